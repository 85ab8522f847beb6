"""How the mount ends a conflict: one step in the state DB, one group of ops, nothing left behind."""

import os
from contextlib import contextmanager

import pytest

from caiafs.core.conflicts import RESERVED, conflict_name
from caiafs.core.errors import Busy, IsADirectory, NoAttribute, NotFound
from caiafs.core.types import DocPath, ObjectId, blob_id
from caiafs.link.messages import Origin, Version
from tests.support.vfs_world import WRITE

OURS, THEIRS, BASE = b"ours", b"theirs", b"base"
COPY = bytes(conflict_name(DocPath(b"d/doc"), 1_700_000_000 * 10**9, blob_id(THEIRS)))
KNOWN_BASE = blob_id(BASE)
DOCUMENTS = {b"d/doc": OURS, COPY: THEIRS, b"other": BASE}


def explain(world, base=KNOWN_BASE):
    """Say what the history would: what both versions started from."""
    theirs = Version(blob_id(THEIRS))
    origin = Origin(COPY.decode(), ObjectId("1" * 40), 0, base, Version(blob_id(OURS)), theirs)
    world.find(COPY)
    world.conflicts._origins[DocPath(COPY)] = origin


def only(world):
    (conflict,) = world.conflicts.open()
    return conflict


async def resolve(world, way, given=b""):
    await world.resolver.resolve(way, only(world).key, os.getuid(), given=given)


async def place(world, content):
    """Put a file beside the document, as `caiafs resolve --file` does; return its name."""
    name = RESERVED + b"x"
    await world.save(b"d/" + name, content)
    assert not world.ops()
    return name


async def shows(world, content):
    shown = await world.shown()
    assert {path: text for path, (_, text) in shown.items()} == {b"d/doc": content, b"other": BASE}
    world.check_tables()
    await world.settle()
    assert await world.shown() == world.published_tree()
    assert world.conflicts.open() == []


@pytest.mark.parametrize(
    ("way", "content"), [("ours", OURS), ("theirs", THEIRS), ("base", BASE), ("file", b"both")]
)
async def test_each_way_makes_its_version_the_document_in_one_group(a_world, way, content):
    world = a_world(DOCUMENTS)
    explain(world)
    given = await place(world, b"both") if way == "file" else b""

    await resolve(world, way, given)

    ops = world.ops()
    bound = world.db.rows("SELECT first_seq, last_seq FROM txn")
    assert bound == ([(ops[0].seq, ops[-1].seq)] if len(ops) > 1 else [])
    await shows(world, content)


@pytest.mark.parametrize("way", ["base", "file"])
async def test_each_commit_of_the_state_has_all_of_it_or_nothing(a_world, monkeypatch, way):
    world = a_world(DOCUMENTS)
    explain(world)
    given = await place(world, b"both") if way == "file" else b""
    key = only(world).key
    world.journal.commit_everything()
    begin = world.db.transaction
    states = []

    def state():
        names = world.db.rows("SELECT name, ino FROM dentry ORDER BY name")
        return names, world.db.rows("SELECT count(*) FROM op"), world.db.rows("SELECT * FROM txn")

    @contextmanager
    def watched():
        with begin() as db:
            yield db
        states.append(state())

    before = state()
    monkeypatch.setattr(world.db, "transaction", watched)

    await world.resolver.resolve(way, key, os.getuid(), given=given)

    assert all(seen in (before, state()) for seen in states)
    assert states[-1] == state() != before


async def test_what_is_being_written_is_left_alone(a_world):
    world = a_world(DOCUMENTS)
    explain(world)
    for path in (b"d/doc", COPY):
        for way in ("ours", "theirs", "base"):
            handle = world.open(path, WRITE)
            inodes = world.count("inode")
            with pytest.raises(Busy):
                await resolve(world, way)
            assert world.count("inode") == inodes
            world.files.release(handle)

    assert (await world.shown())[COPY][1] == THEIRS
    world.check_tables()


async def test_a_base_that_is_not_known_or_not_here_is_refused(a_world):
    world = a_world(DOCUMENTS)
    world.find(COPY)
    with pytest.raises(NoAttribute):
        await resolve(world, "base")
    for base in (None, ObjectId("2" * 40)):
        explain(world, base)
        world.conflicts._found_at = -1
        with pytest.raises(NoAttribute):
            await resolve(world, "base")
    world.check_tables()


async def test_beside_a_directory_only_the_copy_can_go(a_world):
    world = a_world({b"d/doc/below": OURS, COPY: THEIRS})
    world.find(COPY)
    with pytest.raises(IsADirectory):
        await resolve(world, "theirs")

    await resolve(world, "ours")

    assert set(await world.shown()) == {b"d/doc/below"}


async def test_open_handles_keep_the_version_that_they_opened(a_world):
    world = a_world(DOCUMENTS)
    handle = world.open(b"d/doc", os.O_RDONLY)
    world.find(COPY)

    await resolve(world, "theirs")

    assert await world.files.read(handle, 0, 10) == OURS
    world.files.release(handle)
    world.check_tables()


async def test_conflicts_follow_renames_and_end_with_either_name(a_world):
    world = a_world(DOCUMENTS)
    assert world.conflicts.open() == []  # nobody has looked into the directory yet
    world.conflicts.noticed([DocPath(COPY)])
    assert only(world).path == b"d/doc"

    world.rename(b"d", b"moved")
    assert only(world).path == b"moved/doc"
    world.rename(b"moved/doc", b"moved/elsewhere")
    assert world.conflicts.open() == []
    world.rename(b"moved/elsewhere", b"moved/doc")
    key = only(world).key
    world.unlink(COPY.replace(b"d/", b"moved/", 1))

    assert world.conflicts.open() == []
    with pytest.raises(NotFound):
        world.conflicts.find(key)


async def test_the_kernel_forgets_the_names_that_changed(a_world):
    world = a_world(DOCUMENTS)
    world.find(COPY)
    directory = world.find(b"d").ino
    world.resolver._kernel = world.notices

    async def told():
        pass

    world.notices.wait_told = told
    copy_ino = only(world).copy.ino

    await resolve(world, "theirs")

    name = COPY.removeprefix(b"d/")
    assert {(directory, b"doc", None), (directory, name, copy_ino)} <= set(world.notices.names)
