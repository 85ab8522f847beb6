"""When a group is cut, by the commit= policy, in the store process."""

import pytest
import trio

from caiafs.core.config import CommitPolicy
from tests.store.test_publish_govc import connected, settings
from tests.support.store_world import a_world

INTERVAL_S = 2.0


def documents_by_commit(world):
    text = world.git("log", "--reverse", "--name-only", "--format=%x00", "main")
    return [set(part.split()) for part in text.split("\0")[1:]]


async def test_interval_makes_one_commit_of_all_that_was_saved_in_it(tmp_path):
    more = {"commit": CommitPolicy.INTERVAL, "commit_interval_s": INTERVAL_S}
    async with a_world(tmp_path, **more) as world:
        began = trio.current_time()
        world.put("first", "1")
        world.due(urgent=False)
        await world.wait_for(lambda: world.settled_seq == world.last_seq, "the first commit")
        world.db.execute("BEGIN")  # whatever the machine does meanwhile, the three are seen at once
        for name in "abc":
            world.put(name, "1")
        world.db.execute("COMMIT")
        world.due(urgent=False)

        await world.wait_for(lambda: world.settled_seq == world.last_seq, "the second commit")

        assert trio.current_time() - began > INTERVAL_S
        assert documents_by_commit(world) == [{"first"}, {"a", "b", "c"}]


async def test_somebody_who_waits_does_not_wait_for_the_interval(tmp_path):
    more = {"commit": CommitPolicy.INTERVAL, "commit_interval_s": 3600.0}
    async with a_world(tmp_path, **more) as world:
        for number in range(3):
            world.put("f", str(number))

            assert await world.stored() == ""

        assert len(documents_by_commit(world)) == 3


@pytest.mark.govc
async def test_what_waited_in_vain_for_a_store_stays_pending_and_is_published_later(
    tmp_path, server, peek
):
    more = {"commit": CommitPolicy.CLOSE, "enable_fallback": False}
    async with a_world(tmp_path, **settings(server, **more)) as world:
        await connected(world)
        server.stop()
        world.put("f", "1")

        reason = await world.stored(timeout_s=0.5)

        assert reason
        assert world.settled_seq < world.last_seq
        server.start()
        await world.wait_for(lambda: world.settled_seq == world.last_seq, "it is settled")
        assert (peek.text("f"), world.content("f")) == ("1", "1")
