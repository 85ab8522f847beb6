"""How the mount takes in what others wrote."""

import os
import stat

import pytest
import trio
import trio.testing

from caiafs.core.types import Change
from caiafs.vfs.attributes import AttributeChange
from tests.support.vfs_world import ALICE, WRITE

DOCUMENTS = {b"f": b"old", b"d/a": b"a", b"d/b": b"b", b"d/s/c": b"c", b"other": b"x"}


async def content(world, path):
    return (await world.shown())[path][1]


async def test_change_is_applied_under_a_new_inode_and_told_to_the_kernel(a_world):
    world = a_world(DOCUMENTS)
    old = world.find(b"f")

    await world.remote.apply(*world.foreign({b"f": b"theirs"}))

    assert await content(world, b"f") == b"theirs"
    assert world.find(b"f").ino != old.ino
    assert (1, b"f", old.ino) in world.notices.names
    assert world.notices.attributes == [1]


async def test_open_handle_keeps_the_version_that_it_opened(a_world):
    world = a_world(DOCUMENTS)
    handle = world.open(b"f", os.O_RDONLY)

    await world.remote.apply(*world.foreign({b"f": b"theirs"}))

    assert await world.files.read(handle, 0, 10) == b"old"
    world.files.release(handle)
    world.check_tables()


async def test_what_we_have_newer_is_left_alone(a_world):
    world = a_world(DOCUMENTS)
    await world.save(b"f", b"ours")

    await world.remote.apply(*world.foreign({b"f": b"theirs"}))

    assert await content(world, b"f") == b"ours"


async def test_name_that_we_gave_up_since_is_left_alone(a_world):
    world = a_world(DOCUMENTS)
    change, trees = world.foreign({b"new": b"theirs"})
    known = world.journal.last_seq
    await world.save(b"new", b"ours")
    world.rename(b"new", b"moved")

    await world.remote.apply(change, trees, last_seq=known)

    shown = await world.shown()
    assert b"new" not in shown
    assert shown[b"moved"][1] == b"ours"


async def test_permissions_owner_and_attributes_are_inherited(a_world):
    world = a_world(DOCUMENTS)
    ino = world.find(b"f").ino
    await world.attributes.set(ino, AttributeChange(mode=0o640, uid=7, gid=8), ALICE)
    world.attributes.set_xattr(ino, b"user.x", b"y")
    await world.settle()

    await world.remote.apply(*world.foreign({b"f": b"theirs"}))

    new = world.find(b"f")
    assert (new.mode & 0o7777, new.uid, new.gid) == (0o640, 7, 8)
    assert world.attributes.get_xattr(new.ino, b"user.x") == b"y"


@pytest.mark.parametrize(
    "changes",
    [[b"theirs"], [b"first", b"second"], [b"first", b"old"]],
    ids=["one", "two are one", "two that undo each other leave the file"],
)
async def test_change_waits_for_the_last_writer(a_world, changes):
    world = a_world(DOCUMENTS)
    handle = world.open(b"f", WRITE)
    world.files.on_released = world.remote.released
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.remote.run)

        for change in changes:
            await world.remote.apply(*world.foreign({b"f": change}))
        assert await content(world, b"f") == b"old"
        world.files.release(handle)
        await trio.testing.wait_all_tasks_blocked()

        assert await content(world, b"f") == changes[-1]
        nursery.cancel_scope.cancel()


async def test_directory_that_nobody_looked_into_shows_the_new_tree(a_world):
    world = a_world(DOCUMENTS)
    world.find(b"d")

    await world.remote.apply(*world.foreign({b"d/a": b"theirs", b"d/new": b"n"}))

    assert await content(world, b"d/a") == b"theirs"
    assert await content(world, b"d/new") == b"n"


async def test_directory_first_looked_into_between_two_slices_shows_the_new_tree(a_world):
    world = a_world(DOCUMENTS)
    world.find(b"d")
    many = {b"n%03d" % number: b"n" for number in range(150)}

    async def look(_directory, _name, _removed=None):
        world.find(b"d/a")

    world.notices.forget_name = look
    await world.remote.apply(*world.foreign({b"d/a": b"theirs", **many}))

    assert await content(world, b"d/a") == b"theirs"


async def test_removal_below_an_unseen_directory_leaves_the_rest_of_it(a_world):
    world = a_world(DOCUMENTS)
    world.find(b"d")
    changes, trees = world.foreign({b"d/a": None, b"other": b"y"})

    # Large commits come in several messages; the tree ids come with the last.
    await world.remote.apply(changes[:1], {})
    await world.remote.apply(changes[1:], trees)

    assert set(await world.shown()) == {b"f", b"d/b", b"d/s/c", b"other"}


async def test_unseen_directory_that_lost_its_last_document_goes(a_world):
    world = a_world(DOCUMENTS)
    world.find(b"d")

    await world.remote.apply(*world.foreign({b"d/a": None, b"d/b": None, b"d/s/c": None}))

    assert world.find(b"d") is None


async def test_directory_whose_last_document_goes_goes_too(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()

    await world.remote.apply(*world.foreign({b"d/s/c": None}))

    assert world.find(b"d/s") is None
    assert world.find(b"d/a") is not None


async def test_directory_that_somebody_made_here_stays(a_world):
    world = a_world(DOCUMENTS)
    world.mkdir(b"mine")
    await world.save(b"mine/f", b"x")
    await world.settle()

    await world.remote.apply(*world.foreign({b"mine/f": None}))

    assert world.find(b"mine") is not None
    assert world.find(b"mine/f") is None


async def test_new_directories_appear_with_their_documents(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()

    await world.remote.apply(*world.foreign({b"n/m/one": b"1", b"n/two": b"2"}))

    assert await content(world, b"n/m/one") == b"1"
    assert await content(world, b"n/two") == b"2"
    assert world.root_inode.nlink == 4


async def test_document_takes_the_place_of_a_directory(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()

    await world.remote.apply(
        *world.foreign({b"d/s/c": None, b"d/s": b"a document now"}),
    )

    assert await content(world, b"d/s") == b"a document now"


async def test_directory_takes_the_place_of_a_document(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()

    await world.remote.apply(*world.foreign({b"other": None, b"other/f": b"below"}))

    assert await content(world, b"other/f") == b"below"


async def test_change_of_a_document_in_a_directory_that_we_moved_makes_no_copy_of_it(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()
    world.rename(b"d", b"moved")

    await world.remote.apply(*world.foreign({b"d/a": b"theirs"}))

    assert world.find(b"d") is None


async def test_executable_bit_alone_keeps_the_inode(a_world):
    world = a_world(DOCUMENTS)
    inode = world.find(b"f")
    (change,), trees = world.foreign({b"f": b"old"})
    after = type(change.after)(0o100755, change.after.oid, change.after.size_bytes)

    await world.remote.apply([Change(change.path, change.before, after)], trees)

    assert world.find(b"f").ino == inode.ino
    assert inode.mode & 0o777 == 0o755


async def test_change_whose_content_is_missing_costs_itself_only(a_world, caplog):
    world = a_world(DOCUMENTS)
    await world.shown()
    inodes = world.count("inode")
    changes, trees = world.foreign({b"f": b"theirs", b"other": b"fine"})
    lost = type(changes[0].after)(0o100644, "12" * 20, -1)

    await world.remote.apply([Change(b"f", changes[0].before, lost), *changes[1:]], trees)

    assert await content(world, b"other") == b"fine"
    assert await content(world, b"f") == b"old"
    assert "left out" in caplog.text
    assert world.count("inode") == inodes


async def test_writer_whose_file_is_removed_leaves_nothing_waiting(a_world):
    world = a_world(DOCUMENTS)
    handle = world.open(b"f", WRITE)
    world.files.on_released = world.remote.released
    await world.remote.apply(*world.foreign({b"f": b"theirs"}))

    world.unlink(b"f")
    world.files.release(handle)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.remote.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not world.remote.is_waiting


async def test_new_document_in_a_directory_that_we_moved_does_not_bring_the_others_back(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()
    world.rename(b"d", b"moved")

    await world.remote.apply(*world.foreign({b"d/new": b"n"}))

    assert set(await world.shown()) >= {b"d/new", b"moved/a"}
    assert world.find(b"d/a") is None


async def test_link_that_takes_the_place_of_a_file_with_the_same_bytes_is_a_link(a_world):
    world = a_world(DOCUMENTS)
    await world.shown()
    (change,), trees = world.foreign({b"f": b"old"})
    after = type(change.after)(0o120000, change.after.oid, change.after.size_bytes)

    await world.remote.apply([Change(change.path, change.before, after)], trees)

    assert world.find(b"f").is_symlink


async def test_new_document_deep_in_a_directory_that_we_moved_does_not_bring_the_others_back(
    a_world,
):
    world = a_world(DOCUMENTS)
    world.rename(b"d", b"e")

    await world.remote.apply(*world.foreign({b"d/s/new": b"theirs"}))

    shown = await world.shown()
    assert shown[b"d/s/new"][1] == b"theirs"
    assert b"d/s/c" not in shown


async def test_document_where_an_empty_directory_is_goes_beside_it(a_world):
    world = a_world(DOCUMENTS)
    world.mkdir(b"new")

    await world.remote.apply(*world.foreign({b"new": b"theirs"}))

    (copy,) = [name for name in world.table.children(world.root_inode) if b".conflict-" in name]
    assert copy.startswith(b"new.conflict-")
    assert await content(world, copy) == b"theirs"
    assert world.find(b"new").is_directory
    await world.save(b"new/doc", b"ours")
    await world.settle()
    assert await world.shown() == world.published_tree()
    assert b"new/doc" in world.published_tree()
    world.check_tables()


async def test_document_where_a_fifo_is_goes_beside_it(a_world):
    world = a_world(DOCUMENTS)
    world.namespace.mknod(1, b"pipe", stat.S_IFIFO | 0o644, 0, ALICE)

    await world.remote.apply(*world.foreign({b"pipe": b"theirs"}))

    assert b"theirs" in {text for _, text in (await world.shown()).values()}
    assert stat.S_ISFIFO(world.find(b"pipe").mode)
    world.check_tables()


async def test_fifo_in_the_way_of_a_directory_is_renamed_here(a_world):
    world = a_world(DOCUMENTS)
    world.namespace.mknod(1, b"pipe", stat.S_IFIFO | 0o644, 0, ALICE)

    await world.remote.apply(*world.foreign({b"pipe/doc": b"theirs", b"pipe/more": b"more"}))

    assert await content(world, b"pipe/doc") == b"theirs"
    assert await content(world, b"pipe/more") == b"more"
    assert stat.S_ISFIFO(world.find(b"pipe.local-1").mode)
    world.check_tables()


async def test_document_that_became_a_directory_while_it_was_open_for_writing_shows_afterwards(
    a_world,
):
    world = a_world(DOCUMENTS)
    handle = world.open(b"f", WRITE)
    world.files.on_released = world.remote.released
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.remote.run)

        await world.remote.apply(*world.foreign({b"f": None, b"f/x": b"x", b"f/d/y": b"y"}))
        assert await content(world, b"f") == b"old"
        assert world.remote.is_waiting
        world.files.release(handle)
        await trio.testing.wait_all_tasks_blocked()

        assert await content(world, b"f/x") == b"x"
        assert await content(world, b"f/d/y") == b"y"
        assert not world.remote.is_waiting
        nursery.cancel_scope.cancel()
    world.check_tables()
