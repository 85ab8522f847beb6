"""After a power cut, what was not synced is never shown torn, and op numbers that the stores may know do not come again."""

import shutil

import pytest

from caiafs.core.errors import StateCorrupt
from caiafs.state import database, paths
from caiafs.store_link import StoreLink
from tests.support.vfs_world import WRITE

LARGE = b"0123456789abcdef" * 32  # above inline_max_bytes of these worlds
LARGER = b"fedcba9876543210" * 48


@pytest.fixture
def after_a_cut(a_world, tmp_path, monkeypatch):
    """Return a function that opens a copy of a world, its spool files zeroed, in another life of the kernel."""

    def cut(world, *, same_boot=False, zeroed=True):
        world.journal.commit()
        copy = tmp_path / "survived"
        shutil.copytree(world.root, copy)
        if zeroed:
            for file in paths.spool(copy / world.state_dir.relative_to(world.root)).iterdir():
                file.write_bytes(bytes(file.stat().st_size))
        if not same_boot:
            monkeypatch.setattr(database, "boot_id", lambda: "the next boot")
        return a_world(root=copy)

    return cut


async def save_synced(world, name, content):
    handle = world.create(name)
    await world.files.write(handle, 0, content)
    await world.files.fsync(handle)
    await world.close_handle(handle)


async def test_large_save_that_was_not_synced_is_set_aside_and_the_one_before_stands(
    a_world, after_a_cut
):
    world = a_world()
    await world.save(b"f", b"first")
    await world.settle()
    await world.save(b"f", LARGE)

    later = after_a_cut(world)

    with pytest.raises(StateCorrupt):
        await later.read(b"f")
    later.hash_now()
    await later.settle()
    assert later.published_tree()[b"f"][1] == b"first"


async def test_large_content_flushed_and_still_open_is_set_aside(a_world, after_a_cut):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, LARGE)
    await world.files.flush(handle)

    later = after_a_cut(world)

    with pytest.raises(StateCorrupt):
        await later.read(b"f")


async def test_large_save_that_was_synced_is_there(a_world, after_a_cut):
    world = a_world()
    await save_synced(world, b"f", LARGE)

    later = after_a_cut(world, zeroed=False)

    assert await later.read(b"f") == LARGE
    later.hash_now()
    await later.settle()
    assert later.published_tree()[b"f"][1] == LARGE


async def test_synced_version_comes_back_to_the_stores_where_a_later_one_is_torn(
    a_world, after_a_cut
):
    world = a_world()
    await save_synced(world, b"f", LARGE)
    world.hash_now()
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, LARGER)
    await world.close_handle(handle)

    later = after_a_cut(world, zeroed=False)
    later.hash_now()
    await later.settle()

    assert later.published_tree()[b"f"][1] == LARGE


async def test_death_of_the_process_alone_sets_nothing_aside(a_world, after_a_cut):
    world = a_world()
    await world.save(b"f", LARGE)

    later = after_a_cut(world, same_boot=True, zeroed=False)

    assert await later.read(b"f") == LARGE


async def test_op_numbers_that_the_stores_may_know_do_not_come_again(a_world, after_a_cut):
    world = a_world()
    await world.save(b"f", b"first")
    world.journal.commit()
    survived = world.journal.last_seq

    later = after_a_cut(world)
    await later.save(b"f", b"second")
    later.journal.commit()

    assert later.journal.last_seq > survived + 100_000


async def test_skipped_op_numbers_are_not_counted_as_pending(a_world, after_a_cut):
    world = a_world()
    await world.save(b"f", b"first")

    later = after_a_cut(world)
    await later.save(b"f", b"second")
    later.journal.commit()
    link = StoreLink("{}")
    link.tie(later.mount)

    assert link.pending_ops == 2
    await later.settle()
    link.settled_seq = later.journal.last_seq
    assert link.pending_ops == 0


async def test_transaction_does_not_count_skipped_op_numbers_as_changes(a_world, after_a_cut):
    later = after_a_cut(a_world())
    later.transactions.begin()
    await later.save(b"f", b"first")
    later.journal.commit()

    assert later.transactions.held == 1
