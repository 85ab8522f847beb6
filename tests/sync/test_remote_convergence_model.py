"""Two and three mounts on one git remote: they come to rest at one commit, and no saved version is lost."""

import functools
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.git_remote import SharedRepository, come_level, worlds_on
from tests.support.sync_hand import Hand, hand_steps
from tests.sync.test_crash_model import EXAMPLES, model


def turns(worlds):
    step = st.tuples(
        st.integers(0, worlds - 1),
        st.lists(hand_steps, min_size=1, max_size=3),
        st.integers(0, 3),
    )
    return st.lists(step, min_size=1, max_size=8)


async def converge(plan, number):
    with tempfile.TemporaryDirectory() as root:
        shared = SharedRepository(Path(root, "shared.git"))
        async with worlds_on(Path(root), shared, number) as worlds:
            worlds[0].put("a", "base\n1\n2\n3\n4\n5\n6\n")
            await come_level(worlds, shared)
            hands = [Hand(world, f"{index} ") for index, world in enumerate(worlds)]
            for who, steps, pause in plan:
                for step in steps:
                    hands[who].do(step)
                worlds[who].due()
                await trio.sleep([0, 0, 0.05, 0.15][pause])
            await come_level(worlds, shared)
            before = shared.commits()
            await trio.sleep(0.3)
            assert shared.commits() == before, "commits go to and fro"
        for world, hand in zip(worlds, hands, strict=True):
            world.check()
            hand.check()
        shared.git("fsck", "--strict")


few = functools.partial(model, examples=max(EXAMPLES // 2, 1))


@pytest.mark.timeout(600)
@few
@given(turns(2))
async def test_two_mounts_on_one_git_remote_converge(plan):
    await converge(plan, 2)


@pytest.mark.timeout(600)
@few
@given(turns(3))
async def test_three_mounts_on_one_git_remote_converge(plan):
    await converge(plan, 3)
