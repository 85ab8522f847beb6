"""A store process that dies at any step, any number of times, loses nothing, doubles nothing, and ends level."""

import os
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.sync_hand import Hand, hand_steps
from tests.support.sync_world import Server, SyncWorld

EXAMPLES = int(os.environ.get("CAIAFS_EXAMPLES", "12"))
groups = st.lists(st.lists(hand_steps, min_size=1, max_size=6), min_size=1, max_size=4)
deaths = st.lists(st.integers(1, 30), max_size=4)
trouble = st.sampled_from(["", "", "down", "up", "wipe", "rewind", "replace", "hang", "branch"])


def model(test, *, examples=EXAMPLES):
    made = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))(
        test
    )
    return pytest.mark.slow(made)


async def live(world, hand, waiting, steps_left):
    """Save group by group until all are stored, or the process dies."""

    async def save():
        while waiting:
            group, what = waiting.pop(0)
            await cause(world, what)
            for step in group:
                hand.do(step)
            world.due()
            if group[0][1] % 2:
                await world.stored()
        await world.stored()

    world.die_at = world.steps + steps_left if steps_left else None
    async with world.running():
        await world.live_through(save)


async def cause(world, what):
    server = world.server
    if what == "branch":
        world.branch_fails = 1
    if server is None:
        return
    if what in ("down", "up"):
        server.up = what == "up"
    elif what == "wipe":
        server.wipe()
    elif what == "rewind":
        server.rewind(2)
    elif what == "replace":
        server.store.commits[:] = []
        server.up = True
    elif what == "hang":
        server.hangs = not server.hangs


async def run(server, plan, dying, **more):
    with tempfile.TemporaryDirectory() as root, trio.fail_after(250):
        world = SyncWorld(Path(root), server=server, **more)
        hand = Hand(world)
        waiting = list(plan)
        try:
            for steps_left in [*dying, None]:
                await live(world, hand, waiting, steps_left)
            if server is not None:
                server.up, server.hangs = True, False
            world.branch_fails = 0
            async with world.running():
                assert await world.stored() == ""
                done = await world.sync()
                assert not any(done.left.values()), done
            world.check()
            hand.check()
            if server is not None:
                tree = {p: (e.mode, e.oid) for p, e in world.tree().items()} if world.head() else {}
                assert server.tree == tree
        finally:
            world.close()


@model
@given(groups, deaths)
async def test_git_alone(plan, dying):
    await run(None, [(group, "") for group in plan], dying)


@model
@given(groups, deaths)
async def test_govc_and_git(plan, dying):
    await run(Server(), [(group, "") for group in plan], dying)


@model
@given(
    st.lists(
        st.tuples(st.lists(hand_steps, min_size=1, max_size=4), trouble), min_size=1, max_size=5
    ),
    deaths,
)
async def test_govc_that_goes_and_comes_back_otherwise(plan, dying):
    await run(Server(), plan, dying, operation_timeout_s=0.2)
