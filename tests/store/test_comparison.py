"""Every sync_interval what govc holds is compared with the branch, and put right."""

import time

import pytest

from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.config import BackendName
from caiafs.core.types import Change, ChangeSet, Entry, GitMode, Signature, blob_id
from caiafs.link.messages import FetchRequest
from caiafs.store.trailers import with_operation
from tests.store.test_publish_govc import connected, govc_report, settings
from tests.support.govc_peek import REPO, Peek
from tests.support.store_world import WRITER, World, a_world, doc

pytestmark = pytest.mark.govc


class OneContent:
    def __init__(self, content):
        self.content = content

    async def read(self, _oid):
        return self.content

    async def read_range(self, _oid, start, stop):
        return self.content[start:stop]

    async def size(self, _oid):
        return len(self.content)


async def slip_in(server, path, text):
    """Change what govc holds at `path` (None: deleted) in a commit that the mount takes for its own."""
    content = None if text is None else text.encode()
    operation = f"{WRITER}-slip-{time.monotonic_ns()}"
    after = None if content is None else Entry(GitMode.FILE, blob_id(content), len(content))
    change_set = ChangeSet(
        operation,
        Signature("Somebody", "somebody@example.org", time.time_ns()),
        with_operation("Slip by\n", operation),
        (Change(doc(path), None, after),),
    )
    backend = GovcBackend(GovcSettings(url=server.url, repo_name=REPO), OneContent(content))
    await backend.connect()
    await backend.commit(change_set)
    await backend.aclose()


async def compared(world):
    """Wait for a comparison that began after this."""
    seen = world.report["comparisons"]
    await world.wait_for(lambda: world.report["comparisons"] > seen + 1, "a whole comparison")


@pytest.mark.parametrize("architecture", ["new", "old"])
async def test_document_that_govc_lost_is_sent_again(tmp_path, govc_servers, architecture):
    server = govc_servers(architecture=architecture)
    async with a_world(tmp_path, **settings(server, sync_interval_s=0.5)) as world:
        await connected(world)
        for number in range(5):
            world.put(f"d/f{number}", f"{number}\n")
        assert await world.stored() == ""
        await world.sync()

        await slip_in(server, "d/f2", None)

        await world.wait_for(lambda: world.report["repaired"] == 1, "a repair")
        assert await Peek(server.url).agrees(world)
        assert b"d/f2" in world.tree()


async def test_older_version_there_is_replaced_and_a_strange_one_is_taken_in(
    tmp_path, server, peek
):
    async with a_world(tmp_path, **settings(server, sync_interval_s=0.5)) as world:
        await connected(world)
        world.put("ours", "1\n")
        world.put("theirs", "1\n")
        world.put("ours", "2\n")
        assert await world.stored() == ""
        await world.sync()

        await slip_in(server, "ours", "1\n")
        await slip_in(server, "theirs", "never seen\n")

        await world.wait_for(
            lambda: (
                world.shown[b"theirs"].oid == blob_id(b"never seen\n")
                and peek.text("ours") == "2\n"
            ),
            "both put right",
        )
        assert world.content("theirs") == "never seen\n"
        assert world.agrees()


async def test_comparison_of_equal_stores_writes_nothing(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server, sync_interval_s=0.2)) as world:
        await connected(world)
        for number in range(300):
            world.put(f"d{number % 7}/f{number}", f"{number}\n")
        assert await world.stored() == ""
        await world.sync()
        sent, head = len(peek.messages()), world.head()

        await compared(world)

        assert (len(peek.messages()), world.head()) == (sent, head)
        assert world.report["repaired"] == 0


async def test_fetching_what_govc_lost_deletes_nothing(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        world.put("f", "1\n")
        assert await world.stored() == ""
        await world.sync()
        await slip_in(server, "f", None)
        await world.wait_for(lambda: govc_report(world)["head"] == peek.log(1)[0]["hash"])

        await world.process.request(FetchRequest(0, ("f",)))

        assert world.content("f") == "1\n"


async def test_without_background_sync_the_other_store_waits_until_it_is_asked_for(
    tmp_path, server, peek
):
    more = {
        "primary_backend": BackendName.GIT,
        "enable_sync": False,
        "sync_interval_s": 0.1,
    }
    world = World(tmp_path, **settings(server, **more))
    async with world.running():
        world.put("f", "1\n")
        assert await world.stored() == ""
        await world.wait_for(lambda: govc_report(world)["condition"] == "ok")
        await world.wait_for(lambda: govc_report(world)["behind"] == 1)
    assert world.stopped.left == {"git": 0}
    assert peek.text("f") is None

    async with world.running():
        assert (await world.sync()).left == {"git": 0, "govc": 0}
        assert peek.text("f") == "1\n"
        assert world.report["comparisons"] == 0
    world.close()


async def test_primary_is_caught_up_with_whether_or_not_background_sync_is_on(
    tmp_path, server, peek
):
    async with a_world(tmp_path, **settings(server, enable_sync=False)) as world:
        await connected(world)
        server.stop()
        world.put("f", "1\n")
        assert await world.stored() == ""

        server.start()

        await world.wait_for(lambda: peek.text("f") == "1\n", "govc has it")


async def test_metrics_are_forgotten_when_asked_and_counted_anew(tmp_path, server):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        world.put("f", "1\n")
        assert await world.stored() == ""
        await world.wait_for(lambda: "commit" in govc_report(world)["operations"])

        world.process.reset_metrics()

        await world.wait_for(lambda: "commit" not in govc_report(world)["operations"])
        assert not world.report["backends"]["git"]["operations"]
        world.put("f", "2\n")
        assert await world.stored() == ""
        await world.wait_for(
            lambda: govc_report(world)["operations"].get("commit", {}).get("count") == 1
        )
