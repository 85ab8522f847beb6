"""The first look at a large directory: it is imported in slices, and nobody ever sees a part of it."""

import sqlite3
from contextlib import closing

import pytest
import trio

from caiafs.core.errors import Absent, Corrupt
from caiafs.core.types import DocPath, InodeNo
from caiafs.state import paths
from caiafs.upkeep import check_state
from caiafs.vfs import importing, table
from caiafs.vfs.table import LOAD_MAX

COUNT = 1050
SLICE = 100
LARGE = {b"big/%04d" % number: b"%d" % number for number in range(COUNT)}
DOCUMENTS = {**LARGE, b"big/sub/below": b"x", b"small/f": b"f"}


@pytest.fixture(autouse=True)
def slices(monkeypatch):
    monkeypatch.setattr(importing, "SLICE", SLICE)


def names_in(world, directory):
    world.journal.commit()
    sql = "SELECT count(*) FROM dentry WHERE parent=?"
    return world.db.rows(sql, directory.ino)[0][0]


async def half_import(world, directory, slices=4):
    """Import some slices of a directory, as a request does that goes on to wait."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.table.prepare, directory.ino)
            while names_in(world, directory) < slices * SLICE:
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert not directory.flags & importing.LOADED


def complaints(world):
    with closing(sqlite3.connect(paths.database(world.state_dir))) as db:
        return [*check_state._check_names(db), *check_state._check_counts(db)]


async def test_no_more_than_a_slice_is_imported_between_two_turns_of_other_tasks(
    a_world, monkeypatch
):
    world = a_world(DOCUMENTS)
    big = world.find(b"big")
    since_last_turn, most, turns = 0, [0, 0], 0
    size, execute = world.repository.reader.size, world.journal.commit

    def counted_size(oid):
        nonlocal since_last_turn
        since_last_turn += 1
        return size(oid)

    def counted_commit():
        most[1] = max(most[1], len(world.journal._statements))
        execute()

    monkeypatch.setattr(world.repository.reader, "size", counted_size)
    monkeypatch.setattr(world.journal, "commit", counted_commit)
    async with trio.open_nursery() as nursery:

        async def others():
            nonlocal since_last_turn, turns
            while True:
                most[0] = max(most[0], since_last_turn)
                since_last_turn = 0
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(others)
        await world.table.prepare(big.ino)
        world.journal.commit()
        nursery.cancel_scope.cancel()

    assert most[0] <= 2 * SLICE  # trio takes tasks of one round in any order
    assert most[1] < 2 * SLICE
    assert turns >= COUNT // SLICE
    assert len(world.table.children(big)) == COUNT + 1


async def test_whoever_cannot_wait_finds_all_of_a_directory_that_is_being_imported(a_world):
    world = a_world(DOCUMENTS)
    big = world.find(b"big")
    await half_import(world, big)

    assert len(world.table.children(big)) == COUNT + 1
    assert big.nlink == 3
    shown = await world.shown()
    assert shown == world.published_tree()
    assert complaints(world) == []


async def test_two_that_look_at_once_see_the_same_inodes(a_world):
    world = a_world(DOCUMENTS)
    big = world.find(b"big")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.table.prepare, big.ino)
        nursery.start_soon(world.table.prepare, big.ino)

    assert names_in(world, big) == COUNT + 1
    assert world.count("inode") == COUNT + 1 + 3  # sub is one of the names; big, small, the root
    world.check_tables()


async def test_death_half_way_leaves_nothing_of_it_and_the_next_mount_shows_all(a_world, tmp_path):
    world = a_world(DOCUMENTS)
    big = world.find(b"big")
    inodes = world.count("inode")
    await half_import(world, big)
    copy = tmp_path / "survived"
    world.kill(copy)

    later = a_world(root=copy)

    assert complaints(later) == []
    assert later.count("inode") == inodes
    assert later.count("dentry") == inodes - 1
    assert await later.shown() == later.published_tree()
    assert complaints(later) == []


async def test_fsck_finds_nothing_wrong_with_an_import_that_death_interrupted(a_world):
    world = a_world(DOCUMENTS)
    await half_import(world, world.find(b"big"))

    assert complaints(world) == []


async def test_change_from_outside_is_not_missed_by_an_import_under_way(a_world):
    world = a_world(DOCUMENTS)
    big = world.find(b"big")
    await half_import(world, big)

    await world.remote.apply(
        *world.foreign({b"big/0000": b"theirs", b"big/0001": None, b"big/new": b"new"})
    )

    shown = await world.shown()
    assert shown == world.published_tree()
    assert shown[b"big/0000"][1] == b"theirs"
    world.check_tables()


async def test_directory_that_is_removed_from_outside_while_it_is_imported_goes(a_world):
    world = a_world(DOCUMENTS)
    await half_import(world, world.find(b"big"))

    await world.remote.apply(*world.foreign({**dict.fromkeys(LARGE), b"big/sub/below": None}))

    assert world.find(b"big") is None
    assert set(await world.shown()) == {b"small/f"}
    assert complaints(world) == []


async def test_import_that_breaks_leaves_nothing_and_is_begun_anew(a_world, monkeypatch):
    world = a_world(DOCUMENTS)
    big = world.find(b"big")
    inodes = world.count("inode")
    await half_import(world, big)
    with monkeypatch.context() as patch:

        def broken(_oid):
            raise MemoryError

        patch.setattr(world.repository.reader, "size", broken)
        with pytest.raises(MemoryError):
            await world.table.prepare(big.ino)
        assert world.count("inode") == inodes
        assert names_in(world, big) == 0

    await world.table.prepare(big.ino)

    assert len(world.table.children(big)) == COUNT + 1
    assert complaints(world) == []


async def test_directory_whose_tree_is_missing_is_an_error_and_not_absent(a_world):
    world = a_world(DOCUMENTS)
    big = world.find(b"big")
    big.oid = "12" * 20

    with pytest.raises((Absent, Corrupt)):
        world.table.children(big)
    with pytest.raises((Absent, Corrupt)):
        await world.table.prepare(big.ino)


async def test_listing_asks_for_inodes_as_far_as_it_is_read(a_world, tmp_path, monkeypatch):
    world = a_world(DOCUMENTS)
    await world.shown()
    copy = tmp_path / "next"
    world.kill(copy)
    later = a_world(root=copy)
    big = later.find(b"big")
    handle = later.listings.open(big.ino)
    known = len(later.table)

    entries = later.listings.entries(handle, 0)
    first = [next(entries) for _ in range(10)]

    assert len(later.table) <= known + LOAD_MAX
    rest = [name for _, name, _ in later.listings.entries(handle, first[-1][0])]
    assert sorted([name for _, name, _ in first] + rest) == sorted(later.table.children(big))
    later.listings.release(handle)


async def test_what_is_not_a_directory_needs_no_preparing(a_world):
    world = a_world(DOCUMENTS)
    await world.table.prepare(world.find(b"small/f").ino)
    assert DocPath(b"small/f") == world.table.paths(world.find(b"small/f"))[0]
    assert not world.table.is_ready(InodeNo(10_000))


async def test_names_of_a_large_directory_are_read_in_slices_and_none_that_comes_meanwhile_is_lost(
    a_world, tmp_path, monkeypatch
):
    monkeypatch.setattr(table, "_NAMES_SLICE", SLICE)
    world = a_world(DOCUMENTS)
    await world.shown()
    copy = tmp_path / "next"
    world.kill(copy)
    later = a_world(root=copy)
    big = later.find(b"big")
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later.table.prepare, big.ino)
        for _ in range(5):
            turns += not later.table.is_ready(big.ino)
            await trio.lowlevel.checkpoint()
        later.unlink(b"big/0000")
        later.mkdir(b"big/between")

    assert turns == 5
    expected = {name.removeprefix(b"big/") for name in LARGE} | {b"sub", b"between"}
    assert set(later.table.children(big)) == expected - {b"0000"}


async def test_all_names_of_a_large_directory_are_read(a_world, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_NAMES_SLICE", SLICE)
    world = a_world(DOCUMENTS)
    await world.shown()
    copy = tmp_path / "next"
    world.kill(copy)
    later = a_world(root=copy)
    big = later.find(b"big")

    await later.table.prepare(big.ino)

    assert later.table.is_ready(big.ino)
    assert set(big.children) == {name.removeprefix(b"big/") for name in LARGE} | {b"sub"}
