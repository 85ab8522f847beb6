"""Open files: versions, space, memory."""

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from caiafs.core.config import CommitPolicy
from caiafs.core.errors import FileTooLarge, InvalidArgument, StateCorrupt, StateFull
from caiafs.vfs.attributes import AttributeChange
from caiafs.vfs.namespace import RENAME_EXCHANGE
from tests.support.vfs_world import ALICE, TRUNCATE, WRITE


async def test_time_past_2262_does_not_stop_the_journal(a_world):
    world = a_world({b"f": b"x"})
    ino = world.find(b"f").ino

    await world.attributes.set(ino, AttributeChange(mtime_ns=16_725_225_600 * 10**9), ALICE)

    world.journal.commit_everything()
    assert world.find(b"f").mtime_ns > 9 * 10**18


async def test_file_may_not_grow_past_the_bound(a_world):
    world = a_world({b"f": b"x"}, max_file_bytes=100)
    handle = world.open(b"f", WRITE)

    with pytest.raises(FileTooLarge):
        await world.files.write(handle, 99, b"xx")
    with pytest.raises(FileTooLarge):
        await world.attributes.set(world.find(b"f").ino, AttributeChange(size=101), ALICE)

    assert await world.files.read(handle, 0, 10) == b"x"


async def test_nothing_opens_for_writing_below_the_reserve(a_world):
    world = a_world({b"f": b"x"}, reserve_bytes=1 << 60)

    with pytest.raises(StateFull):
        world.open(b"f", WRITE)

    assert await world.read(b"f") == b"x"


async def test_two_writers_of_one_file_make_one_version_when_the_last_has_gone(a_world):
    world = a_world({b"f": b"0123456789"})
    first, second = world.open(b"f", WRITE), world.open(b"f", WRITE)
    await world.files.write(first, 0, b"A")
    await world.close_handle(first)
    await world.files.write(second, 9, b"B")
    assert world.ops() == []

    await world.close_handle(second)

    (op,) = world.ops()
    assert world.content_of(op) == b"A12345678B"


async def test_flush_that_wrote_nothing_is_no_version(a_world):
    world = a_world({b"f": b"x"})
    handle = world.open(b"f", WRITE)

    await world.close_handle(handle)

    assert world.ops() == []


async def test_saving_the_same_content_is_no_version_and_leaves_no_row(a_world):
    world = a_world()
    await world.save(b"f", b"same")
    await world.save(b"f", b"same")

    assert len(world.ops()) == 1
    await world.settle()
    assert world.count("content") == 0
    assert await world.read(b"f") == b"same"


async def test_executable_bit_set_while_the_same_content_is_saved_is_published(a_world):
    world = a_world({b"f": b"same"})
    handle = world.open(b"f", TRUNCATE)
    await world.files.write(handle, 0, b"same")
    await world.files.flush(handle)
    await world.attributes.set(world.find(b"f").ino, AttributeChange(mode=0o755), ALICE)
    world.files.release(handle)

    await world.settle()

    assert world.published_tree() == {b"f": (0o100755, b"same")}


async def test_closed_and_stored_are_one_with_commit_close(a_world):
    world = a_world(commit=CommitPolicy.CLOSE)
    handle = world.create(b"f")
    await world.files.write(handle, 0, b"x")

    await world.files.flush(handle)

    assert world.published_tree() == {b"f": (0o100644, b"x")}


async def test_fsync_while_somebody_writes_keeps_what_was_synced(a_world, tmp_path):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, b"synced")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.files.fsync, handle)
        await wait_all_tasks_blocked()
        await world.files.write(handle, 6, b" more")
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    assert (await world.read(b"f")).startswith(b"synced")


async def test_unlinked_file_stays_readable_through_its_handle_and_leaves_nothing(a_world):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, b"x" * 500)
    await world.files.flush(handle)

    world.unlink(b"f")
    assert await world.files.read(handle, 0, 500) == b"x" * 500
    world.files.release(handle)
    world.contents.sweep(world.table.in_memory())

    assert world.ops() == []
    assert world.count("inode") == 1
    assert world.count("content") == 0
    assert world.spool_names() == set()


async def test_spool_file_that_lost_bytes_is_an_error_and_no_zeros(a_world):
    world = a_world()
    await world.save(b"f", b"x" * 500)
    (name,) = world.spool_names()
    os.truncate(world.state_dir / "spool" / name, 100)

    with pytest.raises(StateCorrupt):
        await world.read(b"f")


async def test_row_of_a_mount_that_kept_more_inline_is_written_on_with_its_own_bytes(a_world):
    world = a_world({b"f": b"in git"}, inline_max_bytes=1000)
    await world.save(b"f", b"y" * 500)
    world.close()
    world = a_world(inline_max_bytes=64, root=world.root)

    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, b"z")
    await world.close_handle(handle)
    world.hash_now()
    await world.settle()

    assert world.published_tree() == {b"f": (0o100644, b"z" + b"y" * 499)}


async def test_directory_with_many_documents_leaves_memory_when_the_kernel_forgets_it(
    a_world, monkeypatch
):
    monkeypatch.setattr("caiafs.vfs.table._TRIM_AT", 10)
    world = a_world({b"d/%03d" % number: b"x" for number in range(100)})
    world.table._trim_at = 10
    world.find(b"d/000")
    assert len(world.table) > 100
    world.journal.commit_everything()

    world.table.trim()

    assert len(world.table) == 1
    assert await world.read(b"d/050") == b"x"


async def test_exchange_of_a_file_with_its_own_directory_is_refused_and_changes_nothing(a_world):
    world = a_world({b"d/f": b"x"})
    before = await world.shown()

    with pytest.raises(InvalidArgument):
        world.rename(b"d/f", b"d", RENAME_EXCHANGE)

    assert await world.shown() == before


async def test_setgid_directory_gives_its_group_and_to_directories_the_bit(a_world):
    world = a_world()
    world.mkdir(b"d")
    await world.attributes.set(world.find(b"d").ino, AttributeChange(mode=0o2775, gid=77), ALICE)

    world.mkdir(b"d/s")
    await world.save(b"d/f", b"x")

    assert (world.find(b"d/s").gid, world.find(b"d/s").mode & 0o2000) == (77, 0o2000)
    assert (world.find(b"d/f").gid, world.find(b"d/f").mode & 0o2000) == (77, 0)


async def test_link_counts_of_directories_follow_their_subdirectories(a_world):
    world = a_world({b"d/s/f": b"x", b"e/f": b"x"})
    await world.shown()
    assert [world.find(p).nlink for p in (b"d", b"e", b"d/s")] == [3, 2, 2]

    world.rename(b"d/s", b"e/s")

    assert [world.find(p).nlink for p in (b"d", b"e", b"e/s")] == [2, 3, 2]
