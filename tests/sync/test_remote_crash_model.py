"""A store process that dies at any step while a git remote takes and gives loses nothing, doubles nothing, and ends level."""

import functools
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.git_remote import SharedRepository, come_level, remote_settings
from tests.support.sync_hand import Hand, hand_steps
from tests.support.sync_world import SyncWorld
from tests.sync.test_crash_model import EXAMPLES, model

work = st.lists(
    st.one_of(
        st.lists(hand_steps, min_size=1, max_size=4),
        st.sampled_from(["others", "conflict", "rewind", "replace", "delete"]),
    ),
    min_size=1,
    max_size=6,
)
deaths = st.lists(st.integers(1, 40), max_size=4)


class Host:
    """A bare repository and what others do to it."""

    def __init__(self, path):
        self.shared = SharedRepository(path)
        self.count = 0
        self.held = set()

    def do(self, what):
        """Do something to the branch."""
        self.count += 1
        head = self.shared.head()
        if what == "others":
            self.shared.commit({f"theirs/{self.count}": f"{self.count}\n"})
        elif what == "conflict":
            self.shared.commit({"a": f"theirs {self.count}\n"})
        elif what == "rewind" and head and len(self.shared.commits()) > 1:
            self.shared.git("update-ref", "refs/heads/main", "main~1")
        elif what == "replace" and head and len(self.shared.commits()) > 1:
            self.shared.commit({f"forced/{self.count}": "x\n"}, parents=(f"{head}~1",))
        elif what == "delete" and head:
            self.shared.git("update-ref", "-d", "refs/heads/main")


async def run(plan, dying):
    with tempfile.TemporaryDirectory() as root, trio.fail_after(250):
        host = Host(Path(root, "shared.git"))
        settings = remote_settings(host.shared)
        waiting = list(plan)
        with closing(SyncWorld(Path(root, "world"), **settings)) as world:
            hand = Hand(world)
            for steps_left in [*dying, None]:
                await live(world, hand, host, waiting, steps_left)
            async with world.running():
                if world.last_seq or host.shared.head():
                    await come_level([world], host.shared)
            world.check()
            hand.check()
            host.shared.git("fsck", "--strict")


async def live(world, hand, host, waiting, steps_left):
    """Work until nothing waits, or the process dies."""

    async def act():
        while waiting:
            item = waiting.pop(0)
            if isinstance(item, str):
                host.do(item)
                await trio.sleep(0.05)
                continue
            for step in item:
                hand.do(step)
            world.due()
            if item[0][1] % 2:
                await world.stored()
        await world.stored()
        await world.sync()

    world.die_at = world.steps + steps_left if steps_left else None
    async with world.running():
        await world.live_through(act)


@pytest.mark.timeout(600)
@functools.partial(model, examples=EXAMPLES)
@given(work, deaths)
async def test_deaths_at_any_step_with_a_git_remote(plan, dying):
    await run(plan, dying)
