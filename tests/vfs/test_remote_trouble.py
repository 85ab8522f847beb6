"""How changes from outside fare where the state DB refuses, and where somebody's tree is strange."""

import pytest
import trio
import trio.testing

from caiafs.core.errors import NotFound, StateCorrupt, StateFull
from caiafs.vfs import remote, settlement
from tests.support.vfs_world import ALICE, WRITE

DOCUMENTS = {b"f": b"old", b"d/a": b"a", b"d/s/c": b"c"}


def refuse(world, monkeypatch, kind):
    """Have the state DB refuse every commit until the patch is taken back."""

    def commit():
        raise kind("no")

    monkeypatch.setattr(world.journal, "commit", commit)


async def test_changes_that_a_full_disk_refused_are_there_when_they_are_told_again(
    a_world, monkeypatch
):
    world = a_world(DOCUMENTS)
    await world.shown()
    changes, trees = world.foreign({b"new": b"theirs"})

    with monkeypatch.context() as patch:
        refuse(world, patch, StateFull)
        with pytest.raises(StateFull):
            await world.remote.apply(changes, trees, last_seq=0)
    await world.remote.apply(changes, trees, last_seq=0)

    assert await world.read(b"new") == b"theirs"
    world.check_tables()


async def test_each_slice_of_changes_asks_for_room_before_it_is_begun(a_world, monkeypatch):
    world = a_world(DOCUMENTS)
    await world.shown()
    asked = []
    monkeypatch.setattr(world.db, "require_room", asked.append)

    many = {b"n%03d" % number: b"n" for number in range(250)}
    await world.remote.apply(*world.foreign(many))

    assert len(asked) == 3


@pytest.mark.parametrize("change", [{b"f": b"theirs"}, {b"f": None, b"f/below": b"theirs"}])
async def test_change_that_waited_for_a_writer_waits_on_while_the_disk_is_full(
    a_world, monkeypatch, autojump_clock, change
):
    world = a_world(DOCUMENTS)
    handle = world.open(b"f", WRITE)
    world.files.on_released = world.remote.released
    await world.remote.apply(*world.foreign(change))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.remote.run)
        with monkeypatch.context() as patch:
            patch.setattr(world.db, "_room", NoRoom())
            world.files.release(handle)
            await trio.testing.wait_all_tasks_blocked()
            assert world.remote.is_waiting
        await trio.sleep(2 * remote._RETRY_S)

        assert not world.remote.is_waiting
        assert b"theirs" in {text for _, text in (await world.shown()).values()}
        nursery.cancel_scope.cancel()


class NoRoom:
    def has(self, _size):
        return False

    def forget(self):
        pass


async def test_damaged_state_db_ends_neither_task_that_takes_in_what_others_did(
    a_world, monkeypatch, autojump_clock
):
    world = a_world(DOCUMENTS)
    await world.save(b"ours", b"x")
    seq = world.publish_now()
    handle = world.open(b"f", WRITE)
    world.files.on_released = world.remote.released
    await world.remote.apply(*world.foreign({b"f": b"theirs"}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.remote.run)
        nursery.start_soon(world.settlement.run)
        with monkeypatch.context() as patch:
            refuse(world, patch, StateFull)
            assert await world.settlement.settled(seq) == 0
        with monkeypatch.context() as patch:
            refuse(world, patch, StateCorrupt)
            world.files.release(handle)
            await trio.sleep(2 * settlement._RETRY_S)
        nursery.cancel_scope.cancel()


async def test_rename_into_a_directory_that_somebody_else_removed_finds_nothing(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()
    gone = world.find(b"d/s")
    gone.lookups = 1  # a process is in it
    await world.remote.apply(*world.foreign({b"d/s/c": None}))

    with pytest.raises(NotFound):
        world.namespace.rename((1, b"f"), (gone.ino, b"f"), 0, ALICE)

    assert await world.read(b"f") == b"old"


async def test_directory_removed_before_anybody_looked_into_it_is_empty(a_world):
    world = a_world(DOCUMENTS)
    gone = world.find(b"d")
    gone.lookups = 1  # a process is in it
    await world.remote.apply(*world.foreign({b"d/a": None, b"d/s/c": None}))

    assert world.table.children(gone) == {}
    world.journal.commit()
    assert world.count("inode") == 2  # the root and f


async def test_last_document_of_a_very_deep_directory_is_removed_with_it(a_world):
    path = b"/".join([b"a"] * 1500 + [b"document"])
    world = a_world({b"f": b"x", path: b"deep"})
    await world.shown()

    await world.remote.apply(*world.foreign({path: None}))

    assert set(await world.shown()) == {b"f"}
    assert world.count("inode") == 2


@pytest.mark.parametrize("time_ns", [10**30, -(10**30)])
async def test_documents_of_a_commit_without_a_possible_time_are_shown(a_world, time_ns):
    world = a_world(DOCUMENTS)
    world.table.import_time_ns = time_ns
    world.mkdir(b"new")

    await world.remote.apply(*world.foreign({b"f": b"theirs", b"new": b"beside"}))

    assert {b"theirs", b"beside"} <= {text for _, text in (await world.shown()).values()}
    world.check_tables()


async def test_directory_is_found_by_its_new_tree_alone_and_looked_up_once(a_world, monkeypatch):
    below = {b"d/%02d/a/f" % number: b"x" for number in range(30)}
    world = a_world({b"f": b"old", **below})
    world.find(b"d/00")  # d is loaded, nothing below it
    _, trees = world.foreign(dict.fromkeys(below, b"theirs"))
    looked, find = [], world.table.find
    monkeypatch.setattr(world.table, "find", lambda *at: looked.append(at) or find(*at))

    await world.remote.apply([], {path: trees[path] for path in trees if path.startswith(b"d/")})

    assert len(looked) <= 1 + len(trees)
    shown = await world.shown()
    assert {shown[path][1] for path in below} == {b"theirs"}
