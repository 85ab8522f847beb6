"""Contents that are kept in spool files and hashed after they were logged."""

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from caiafs.core.errors import Absent, NotFound
from caiafs.state.ops import OpKind
from tests.support.vfs_world import TRUNCATE, WRITE

LARGE = b"L" * 200
LARGER = b"M" * 300


async def test_removing_a_file_before_it_is_hashed_ends_nothing_else(a_world):
    world = a_world()
    await world.save(b"gone", LARGE)
    world.unlink(b"gone")
    await world.save(b"stays", LARGER)

    await world.run_hasher_until_idle()

    assert all(op.oid for op in world.ops() if op.kind is OpKind.PUT)
    await world.settle()
    assert world.published_tree() == {b"stays": (0o100644, LARGER)}
    assert world.count("content") == 0
    world.contents.sweep(world.table.in_memory())
    assert world.spool_names() == set()


async def test_file_removed_before_it_was_hashed_does_not_keep_the_next_mount_from_starting(
    a_world, tmp_path
):
    world = a_world()
    await world.save(b"gone", LARGE)
    world.unlink(b"gone")
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")
    await world.run_hasher_until_idle()

    await world.settle()
    assert world.published_tree() == {}


async def test_small_version_saved_while_a_large_one_is_hashed_survives_a_kill(a_world, tmp_path):
    world = a_world()
    await world.save(b"f", LARGE)
    await world.save(b"f", b"small")
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")
    await world.run_hasher_until_idle()
    await world.settle()

    assert await world.read(b"f") == b"small"
    assert world.published_tree() == {b"f": (0o100644, b"small")}


async def test_saving_the_old_content_again_while_a_large_one_is_hashed_is_a_version(a_world):
    world = a_world({b"f": b"old"})
    await world.save(b"f", LARGE)

    await world.save(b"f", b"old")
    world.hash_now()
    await world.settle()

    assert await world.read(b"f") == b"old"
    assert world.published_tree() == {b"f": (0o100644, b"old")}


async def test_version_flushed_while_a_large_one_is_hashed_knows_what_it_replaces(
    a_world, tmp_path
):
    world = a_world()
    await world.save(b"f", LARGE)
    handle = world.open(b"f", TRUNCATE)
    await world.files.write(handle, 0, b"small")
    await world.files.flush(handle)
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")
    world.hash_now()

    first, second = world.ops()
    assert second.replaced == first.oid


async def test_append_costs_what_was_appended(a_world):
    world = a_world({b"f": LARGER})
    handle = world.open(b"f", WRITE)

    await world.files.write(handle, 300, b"tail")
    await world.close_handle(handle)

    world.hash_now()
    assert world.link.loads == [], "the base was not needed before it was hashed"
    assert world.spool_sizes() == [4]
    assert await world.read(b"f") == LARGER + b"tail"
    await world.settle()
    assert world.published_tree() == {b"f": (0o100644, LARGER + b"tail")}


async def test_append_is_hashed_over_a_base_that_is_loaded_then(a_world):
    world = a_world({b"f": LARGER})
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, b"head")
    await world.close_handle(handle)

    await world.run_hasher_until_idle()

    assert len(world.link.loads) == 1
    await world.settle()
    assert world.published_tree() == {b"f": (0o100644, b"head" + LARGER[4:])}


async def test_read_of_a_base_that_no_store_gives_fails_and_the_next_one_works(a_world):
    world = a_world({b"f": LARGER})
    world.link.broken = True
    handle = world.open(b"f")
    with pytest.raises(Exception, match="no store answers"):
        await world.files.read(handle, 0, 10)

    world.link.broken = False

    assert await world.files.read(handle, 0, 300) == LARGER


async def test_read_over_a_base_that_git_lost_is_an_error_and_not_absent(a_world, monkeypatch):
    world = a_world({b"f": LARGER})
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, b"head")

    def lost(_oid):
        raise NotFound("no such object")

    monkeypatch.setattr(world.repository.reader, "size", lost)

    with pytest.raises(Absent):
        await world.files.read(handle, 0, 100)
    world.files.release(handle)


async def test_truncation_while_a_read_waits_for_the_base_shows_the_new_content(a_world):
    world = a_world({b"f": LARGER})
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, b"x")

    async def truncate():
        world.files.release(world.open(b"f", TRUNCATE))

    world.link.on_load = truncate

    assert await world.files.read(handle, 0, 300) == b""
    world.files.release(handle)


async def test_sealed_version_keeps_its_bytes_while_the_file_is_written_on(a_world):
    world = a_world()
    await world.save(b"f", LARGE)
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, b"new")
    await world.close_handle(handle)

    world.hash_now()
    first, second = world.ops()

    assert world.content_of(first) == LARGE
    assert world.content_of(second) == b"new" + LARGE[3:]


async def test_id_of_a_spool_file_that_lost_bytes_is_never_computed(a_world, caplog):
    world = a_world()
    await world.save(b"f", LARGE)
    (name,) = world.spool_names()
    os.truncate(world.state_dir / "spool" / name, 100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.hasher.run)
        await wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()

    assert "ends at 100 bytes" in caplog.text
    assert world.ops() == []


async def test_target_that_is_still_hashed_is_named_as_replaced_once_it_is(a_world, tmp_path):
    world = a_world()
    await world.save(b"f", LARGE)
    handle = world.create(b"new")
    await world.files.write(handle, 0, b"content")
    world.rename(b"new", b"f")
    world.hash_now()

    await world.close_handle(handle)

    first, second = world.ops()
    assert (second.path, second.replaced) == (b"f", first.oid)


async def test_version_of_a_file_that_stays_open_keeps_its_bytes(a_world):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, LARGE)
    await world.files.fsync(handle)

    await world.files.write(handle, 0, b"over what was synced")
    world.hash_now()

    (op,) = world.ops()
    assert world.content_of(op) == LARGE
    world.files.release(handle)


async def test_file_that_is_written_on_after_it_was_settled_survives_a_kill(a_world, tmp_path):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, LARGE)
    await world.files.fsync(handle)
    world.hash_now()
    await world.settle()

    await world.files.write(handle, 200, b"tail")
    await world.files.flush(handle)
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")
    assert await world.read(b"f") == LARGE + b"tail"


async def test_settled_file_that_is_closed_leaves_no_spool_file(a_world):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, LARGE)
    await world.files.fsync(handle)
    world.hash_now()
    await world.settle()
    assert len(world.spool_names()) == 1

    world.files.release(handle)

    assert world.spool_names() == set()
    assert await world.read(b"f") == LARGE


async def test_fsync_of_a_file_that_was_closed_before_syncs_its_spool_file(a_world, monkeypatch):
    world = a_world()
    await world.save(b"f", LARGE)
    synced = []

    async def sync(file):
        await trio.lowlevel.checkpoint()
        synced.append(file.name)

    monkeypatch.setattr(world.contents._spool, "sync", sync)
    handle = world.open(b"f", os.O_RDONLY)

    await world.files.fsync(handle)

    assert synced == list(world.spool_names())
    world.files.release(handle)


@pytest.mark.parametrize("kept", [True, False])
async def test_what_fsync_notes_of_a_version_goes_with_the_version(a_world, kept):
    world = a_world()
    handle = world.create(b"db")
    for number in range(5):
        await world.files.write(handle, 100 * number, LARGE)
        await world.files.fsync(handle)
    assert world.count("synced") == 5
    if not kept:
        world.unlink(b"db")
    world.files.release(handle)
    world.hash_now()

    await world.settle()

    assert world.count("synced") == 0


async def test_settling_many_large_contents_looks_through_the_inodes_once(a_world, monkeypatch):
    world = a_world()
    for number in range(20):
        await world.save(b"f%d" % number, LARGE + b"%d" % number)
    world.hash_now()
    looks, in_memory = [], world.table.in_memory

    def counted():
        looks.append(1)
        return in_memory()

    monkeypatch.setattr(world.table, "in_memory", counted)
    await world.settle()

    assert len(looks) == 1
    assert world.spool_names() == set()
