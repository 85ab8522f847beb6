"""Two mounts on one govc, and a mount beside pushes: they come to the same tree, and no saved version is lost."""

import functools
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.store_world import WAIT_S
from tests.support.sync_hand import Hand, hand_steps
from tests.support.sync_world import Server, SyncWorld
from tests.sync.test_crash_model import EXAMPLES, model

COMMITS_PER_SAVE = 4
turns = st.lists(
    st.tuples(st.integers(0, 1), st.lists(hand_steps, min_size=1, max_size=3), st.integers(0, 3)),
    min_size=1,
    max_size=8,
)


def tree_of(world):
    tree = world.tree() if world.head() else {}
    return {p: (e.mode, e.oid) for p, e in tree.items()}


async def come_level(worlds, server, timeout_s=WAIT_S):
    """Wait until all hold the same and nothing happens any more."""
    seen = None
    with trio.move_on_after(timeout_s):
        while True:
            for world in worlds:
                await world.stored()
            now = [len(server.store.commits), *(world.head() for world in worlds)]
            trees = [tree_of(world) for world in worlds]
            same = all(tree == server.tree for tree in trees) and all(w.agrees() for w in worlds)
            if same and now == seen:
                return
            seen = now
            await trio.sleep(0.2)
    names = [{p: o for p, (_, o) in t.items()} for t in (server.tree, *map(tree_of, worlds))]
    shown = [{p: e.oid for p, e in world.shown.items()} for world in worlds]
    odd = [
        (i, p, s.get(p, "")[:7], names[0].get(p, "")[:7])
        for i, s in enumerate([*names[1:], *shown])
        for p in s.keys() | names[0].keys()
        if s.get(p) != names[0].get(p)
    ]
    raise AssertionError(f"not level (place, path, has, govc): {odd}")


@functools.partial(model, examples=max(EXAMPLES // 2, 1))
@given(turns)
async def test_two_mounts_on_one_govc_converge(plan):
    server = Server()
    with tempfile.TemporaryDirectory() as root:
        one = SyncWorld(Path(root, "one"), server=server)
        two = SyncWorld(Path(root, "two"), server=server, writer="feedf00d")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(one.running())
            one.put("a", "base\n1\n2\n3\n4\n5\n6\n")
            await one.stored()
            await one.sync()
            await stack.enter_async_context(two.running())
            await come_level([one, two], server)
            hands = [Hand(one, "one "), Hand(two, "two ")]
            for who, steps, pause in plan:
                for step in steps:
                    hands[who].do(step)
                hands[who].world.due()
                await trio.sleep([0, 0, 0.01, 0.05][pause])
            await come_level([one, two], server)
            saves = sum(len(steps) for _, steps, _ in plan)
            assert len(server.store.commits) <= 2 + COMMITS_PER_SAVE * saves
        one.check()
        two.check()
        for hand in hands:
            hand.check()
        one.close()
        two.close()
