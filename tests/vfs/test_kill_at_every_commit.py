"""A kill at any commit leaves a mount that agrees with its op log and has all that was closed."""

import shutil

import pytest

from caiafs.vfs.attributes import AttributeChange
from caiafs.vfs.namespace import RENAME_EXCHANGE
from tests.support.vfs_world import ALICE, WRITE

LARGE = b"L" * 300


async def save_by_rename(world):
    await world.save(b".f.tmp", b"new")
    world.rename(b".f.tmp", b"f")
    return {b"f": {b"old", b"new"}}


async def save_by_rename_of_an_open_file(world):
    handle = world.create(b"new")
    await world.files.write(handle, 0, b"new")
    await world.files.fsync(handle)
    world.rename(b"new", b"f")
    await world.close_handle(handle)
    return {b"f": {b"old", b"new"}}


async def save_with_a_backup(world):
    world.rename(b"f", b"f~")
    await world.save(b"f", b"new")
    world.unlink(b"f~")
    return {}


async def save_in_place_large(world):
    await world.save(b"f", LARGE)
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 300, b"tail")
    await world.close_handle(handle)
    world.hash_now()
    return {b"f": {b"old", LARGE, LARGE + b"tail"}}


async def change_places(world):
    await world.save(b"g", b"other")
    world.rename(b"f", b"g", RENAME_EXCHANGE)
    return {b"f": {b"old", b"other"}}


async def name_twice(world):
    world.hard_link(b"f", b"g")
    await world.save(b"g", b"both")
    world.unlink(b"f")
    world.rename(b"g", b"f")
    return {}


async def move_a_directory(world):
    world.mkdir(b"n")
    world.rename(b"f", b"n/f")
    world.rename(b"n", b"n~")
    world.rename(b"n~", b"m")
    return {b"d/a": {b"in a directory"}}


async def settle_between(world):
    await world.save(b"f", b"first")
    await world.settle(1)
    await world.save(b"f", LARGE)
    world.hash_now()
    await world.settle(1)
    await world.attributes.set(world.find(b"f").ino, AttributeChange(mode=0o755), ALICE)
    await world.settle(1)
    return {b"f": {b"old", b"first", LARGE}}


DANCES = [
    save_by_rename,
    save_by_rename_of_an_open_file,
    save_with_a_backup,
    save_in_place_large,
    change_places,
    name_twice,
    move_a_directory,
    settle_between,
]


@pytest.mark.slow
@pytest.mark.parametrize("dance", DANCES, ids=lambda dance: dance.__name__)
async def test_kill_at_any_commit_loses_nothing_and_looks_like_no_conflict(
    a_world, tmp_path, monkeypatch, dance
):
    world = a_world({b"f": b"old", b"d/a": b"in a directory"})
    await world.shown()
    copies = []
    commit = world.journal.commit

    def commit_and_copy():
        commit()
        copies.append(tmp_path / f"copy{len(copies)}")
        shutil.copytree(world.root, copies[-1])

    monkeypatch.setattr(world.journal, "commit", commit_and_copy)
    allowed = await dance(world)
    world.journal.commit()

    assert len(copies) > 2
    for copy in copies:
        next_mount = a_world(root=copy)
        next_mount.hash_now()
        shown = await next_mount.shown()
        await next_mount.settle()
        assert next_mount.published_tree() == shown
        for path, contents in allowed.items():
            assert shown[path][1] in contents
        next_mount.check_tables()
