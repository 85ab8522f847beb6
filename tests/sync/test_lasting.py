"""What breaks in one part of the store process ends neither it nor the saves."""

import pytest
import trio

from caiafs import store_process
from caiafs.backends.git.repository import open_repository
from caiafs.core.errors import Corrupt
from caiafs.core.types import ObjectId
from caiafs.link.channel import LinkClosed
from caiafs.link.messages import Failed
from caiafs.store import tally
from caiafs.sync.lasting import run_lasting
from tests.support.git_objects import a_backend
from tests.support.sync_world import a_sync_world
from tests.sync.test_publishing import until


async def test_task_that_breaks_begins_again(autojump_clock):
    begun = []

    async def work():
        begun.append(trio.current_time())
        if len(begun) < 3:
            raise KeyError("a bug")
        scope.cancel()
        await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        await run_lasting(work, "the test")

    assert len(begun) == 3
    assert begun[2] - begun[0] >= 2


async def test_end_of_the_link_ends_a_task():
    async def work():
        raise LinkClosed("gone")

    with pytest.raises(LinkClosed):
        await run_lasting(work, "the test")


async def test_saves_go_on_where_counting_breaks(tmp_path, monkeypatch):
    async def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tally.Tally, "_count", broken)
    async with a_sync_world(tmp_path) as world:
        for number in range(3):
            world.put("f", f"{number}\n")
            assert await world.stored() == ""
        await until(lambda: world.report and world.report["groups"] == 3)

        assert not world.process.ended.is_set()


async def test_what_cannot_be_counted_is_tried_less_and_less(tmp_path, monkeypatch, autojump_clock):
    backend, _ = a_backend(tmp_path / "r")
    tries = []

    async def damaged(*_):
        tries.append(trio.current_time())
        raise Corrupt("a tree cannot be parsed", backend="git")

    class Branch:
        tree = ObjectId("1" * 40)
        wait_moved = staticmethod(trio.sleep_forever)

    counting = tally.Tally(backend, Branch(), lambda: None)
    monkeypatch.setattr(counting, "_count", damaged)

    with trio.move_on_after(3600):
        await counting.run()

    assert 10 < len(tries) < 100
    backend.contents.close()


def test_object_on_a_bad_sector_is_corrupt(tmp_path):
    repository = open_repository(tmp_path / "r")
    oid = ObjectId("ab" + "0" * 38)
    loose = repository.write_dir / oid[:2] / oid[2:]
    loose.parent.mkdir()
    loose.symlink_to("/proc/self/mem")  # reading it fails with EIO

    with pytest.raises(Corrupt, match="Input/output error"):
        repository.reader.read_blob(oid)
    with pytest.raises(Corrupt, match="Input/output error"):
        repository.reader.size(oid)


async def test_bug_that_ends_the_store_process_is_in_its_log_and_the_mount_hears_of_it(
    monkeypatch, caplog
):
    sent = []

    class Link:
        async def receive(self):
            raise KeyError("a bug")

        async def send(self, message):
            sent.append(message)

    with pytest.raises(ExceptionGroup):
        await store_process.serve(Link())

    assert sent == [Failed("an internal error: KeyError; see the log")]
    assert "the store process broke" in caplog.text
