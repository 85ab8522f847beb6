"""What close and the commands wait for, and what becomes of a version that could not be logged when it was closed."""

import pytest
import trio
import trio.testing

from caiafs.core.config import CommitPolicy
from caiafs.core.errors import DeadlineExceeded, StateFull
from caiafs.store_link import StoreLink

LARGE = b"0123456789abcdef" * 16  # above inline_max_bytes of these worlds


async def test_close_after_fsync_waits_for_a_store_too(a_world):
    world = a_world(commit=CommitPolicy.CLOSE)
    handle = world.create(b"f")
    await world.files.write(handle, 0, b"saved")
    await world.files.fsync(handle)
    assert world.published_tree() == {}

    await world.files.flush(handle)

    assert world.published_tree()[b"f"][1] == b"saved"
    world.files.release(handle)


async def test_close_waits_for_what_the_close_of_a_reader_made_durable(a_world):
    world = a_world(commit=CommitPolicy.CLOSE)
    handle = world.create(b"f")
    await world.files.write(handle, 0, b"saved")
    reader = world.open(b"f")
    await world.files.flush(reader)
    assert world.published_tree() == {}

    await world.files.flush(handle)

    assert world.published_tree()[b"f"][1] == b"saved"


async def test_who_waits_for_hashes_does_not_wait_for_contents_saved_later(a_world, monkeypatch):
    world = a_world()
    await world.save(b"first", LARGE)

    async def endless(ino, content_id, limiter):
        """Hash one, and have another saved meanwhile: there is always one that waits."""
        await trio.lowlevel.checkpoint()
        await world.save(b"another", LARGE)

    monkeypatch.setattr(world.hasher, "_take", endless)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.hasher.run)
        with trio.fail_after(5):
            await world.hasher.wait_idle()
        nursery.cancel_scope.cancel()


async def test_close_does_not_wait_for_ever_for_a_content_that_cannot_be_hashed(
    a_world, autojump_clock
):
    world = a_world()
    link = StoreLink("{}")
    link.tie(world.mount)
    await world.save(b"f", LARGE)  # and nobody hashes it

    with trio.fail_after(1000), pytest.raises(DeadlineExceeded):
        await link.wait_stored()


@pytest.mark.parametrize("closes", [True, False])
async def test_version_that_a_full_disk_refused_at_its_close_is_logged_when_there_is_room(
    a_world, monkeypatch, autojump_clock, closes
):
    world = a_world(commit_max_age_s=4)
    released = []
    world.files.on_released = released.append
    handle = world.create(b"f")
    await world.files.write(handle, 0, b"saved")
    await world.files.flush(handle)
    inode = world.find(b"f")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.files.run)
        with monkeypatch.context() as patch:

            def full(_inode):
                raise StateFull("no room")

            patch.setattr(world.contents, "small_content", full)
            if closes:
                with pytest.raises(StateFull):
                    world.files.release(handle)
            await trio.sleep(20)
        assert world.ops() == []
        await trio.sleep(20)
        nursery.cancel_scope.cancel()

    assert [op.path for op in world.ops()] == [b"f"]
    assert (released == [inode]) == closes


async def test_version_that_cannot_be_logged_keeps_no_other_from_it(
    a_world, monkeypatch, autojump_clock
):
    world = a_world(commit_max_age_s=4)
    handles = [world.create(name) for name in (b"bad", b"good")]
    for handle in handles:
        await world.files.write(handle, 0, b"saved")
        await world.files.flush(handle)
    bad, due = world.find(b"bad"), world.publication.due

    def refuse(inode):
        if inode is bad:
            raise StateFull("no room")
        due(inode)

    monkeypatch.setattr(world.publication, "due", refuse)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.files.run)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()

    assert [op.path for op in world.ops()] == [b"good"]
