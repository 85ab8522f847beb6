"""A version that a power cut or a bad disk damaged costs that version, and nothing else."""

import json
import os

import pytest

from caiafs.core.errors import StateCorrupt
from caiafs.state import damaged, paths
from tests.support.vfs_world import TRUNCATE, WRITE

LARGE = b"0123456789abcdef" * 16  # above inline_max_bytes of these worlds


def spoil(world, seq):
    """Have the bytes of an op's content go bad, in the DB or the spool; return its row."""
    world.cache.clear()
    ((row, spool),) = world.db.rows(
        "SELECT id, spool FROM op JOIN content ON id=content WHERE seq=?", seq
    )
    if spool is None:
        world.journal.run_sql("UPDATE content SET data=? WHERE id=?", b"garbage", row)
    else:
        file = paths.spool(world.state_dir) / spool
        file.write_bytes(b"\0" * file.stat().st_size)
    return row


def set_aside(world, op):
    spoil(world, op.seq)
    world.damage.set_aside_op(op.seq, "its bytes are others")


async def settled(world):
    """Publish the rest; whatever was taken for foreign fails inside."""
    world.hash_now()
    await world.settle()
    return {path: content for path, (_, content) in world.published_tree().items()}


@pytest.mark.parametrize("content", [b"second", LARGE])
async def test_damaged_version_is_kept_named_and_the_one_before_stands(a_world, content):
    world = a_world()
    await world.save(b"f", b"first")
    await world.settle()
    await world.save(b"f", content)
    await world.save(b"g", b"other")
    world.hash_now()

    set_aside(world, world.ops()[0])

    assert await settled(world) == {b"f": b"first", b"g": b"other"}
    with pytest.raises(StateCorrupt):
        await world.read(b"f")
    assert await world.read(b"g") == b"other"
    (version,) = damaged.read_all(world.state_dir)
    assert version.paths == ("f",)
    kept = (paths.damaged(world.state_dir) / version.file).read_bytes()
    assert kept == (b"garbage" if content == b"second" else bytes(len(content)))
    assert "f is damaged" in world.damage.reasons()[0]
    world.check_tables()


@pytest.mark.parametrize("content", [b"third", LARGE[::-1]])
async def test_next_save_of_a_damaged_document_meets_no_conflict_and_ends_it(a_world, content):
    world = a_world({b"f": b"first"})
    await world.save(b"f", b"second")
    set_aside(world, world.ops()[0])

    await world.save(b"f", content)

    assert await world.read(b"f") == content
    assert world.damage.reasons() == []
    assert await settled(world) == {b"f": content}


@pytest.mark.parametrize("later", [b"third", LARGE[::-1]])
async def test_versions_after_the_damaged_one_replace_the_one_before_it(a_world, later):
    world = a_world({b"f": b"first"})
    await world.save(b"f", LARGE)
    await world.save(b"f", later)
    world.hash_now()

    set_aside(world, world.ops()[0])

    assert await world.read(b"f") == later
    assert world.damage.reasons() == []
    assert await settled(world) == {b"f": later}


async def test_damaged_save_by_rename_leaves_the_document_that_was_there(a_world):
    world = a_world({b"f": b"first"})
    await world.save(b"tmp", b"second")
    world.rename(b"tmp", b"f")
    put, move = world.ops()
    assert (put.kind, move.kind) == ("put", "move")

    set_aside(world, put)

    assert await settled(world) == {b"f": b"first"}
    with pytest.raises(StateCorrupt):
        await world.read(b"f")
    await world.save(b"f", b"third")
    assert await settled(world) == {b"f": b"third"}


async def test_damaged_document_that_was_renamed_is_the_one_before_under_its_new_name(a_world):
    world = a_world({b"f": b"first"})
    await world.save(b"f", b"second")
    world.rename(b"f", b"g")

    set_aside(world, world.ops()[0])

    assert await settled(world) == {b"g": b"first"}
    await world.save(b"g", b"third")
    assert await settled(world) == {b"g": b"third"}


@pytest.mark.parametrize("removed_first", [True, False])
async def test_damaged_document_can_be_removed(a_world, removed_first):
    world = a_world({b"f": b"first"})
    await world.save(b"f", b"second")
    damaged_op = world.ops()[0]
    if removed_first:
        world.unlink(b"f")
        set_aside(world, damaged_op)
    else:
        set_aside(world, damaged_op)
        world.unlink(b"f")

    assert await settled(world) == {}
    assert world.damage.reasons() == []


async def test_new_document_that_is_damaged_keeps_its_name_through_a_remount(a_world, tmp_path):
    world = a_world()
    await world.save(b"f", b"only")
    set_aside(world, world.ops()[0])
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    with pytest.raises(StateCorrupt):
        await world.read(b"f")
    assert "f is damaged" in world.damage.reasons()[0]
    await world.save(b"f", b"again")
    assert await settled(world) == {b"f": b"again"}
    assert world.damage.reasons() == []


async def test_damaged_document_with_two_names_is_set_aside_once(a_world):
    world = a_world()
    await world.save(b"a", b"twice")
    world.hard_link(b"a", b"b")

    set_aside(world, world.ops()[0])

    assert await settled(world) == {}
    (version,) = damaged.read_all(world.state_dir)
    assert set(version.paths) == {"a", "b"}
    await world.save(b"b", b"new")
    assert await settled(world) == {b"a": b"new", b"b": b"new"}


async def test_content_that_memory_still_has_is_written_again(a_world):
    world = a_world()
    await world.save(b"f", b"remembered")
    (op,) = world.ops()
    world.journal.run_sql("UPDATE content SET data=? WHERE id=?", b"garbage", op.content_id)

    world.damage.set_aside_op(op.seq, "its bytes are others")

    assert damaged.read_all(world.state_dir) == []
    assert await settled(world) == {b"f": b"remembered"}


@pytest.mark.parametrize("kind", ["missing", "short"])
async def test_large_content_damaged_before_it_was_hashed_lets_the_others_pass(a_world, kind):
    world = a_world({b"f": b"first"})
    await world.save(b"f", LARGE)
    await world.save(b"g", LARGE[::-1])
    (name,) = world.db.rows("SELECT spool FROM content ORDER BY id")[0]
    file = paths.spool(world.state_dir) / name
    if kind == "missing":
        file.unlink()
    else:
        os.truncate(file, 10)

    await world.run_hasher_until_idle()

    assert await settled(world) == {b"f": b"first", b"g": LARGE[::-1]}
    with pytest.raises(StateCorrupt):
        await world.read(b"f")
    (version,) = damaged.read_all(world.state_dir)
    assert bool(version.file) is (kind == "short")


async def test_version_that_was_never_logged_and_lost_its_file_is_set_aside_at_the_next_mount(
    a_world, tmp_path
):
    world = a_world({b"f": b"first"})
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, LARGE)
    await world.files.flush(handle)
    world.kill(tmp_path / "m1")
    for file in paths.spool(tmp_path / "m1" / "state").iterdir():
        file.unlink()

    world = a_world(root=tmp_path / "m1")

    assert "f is damaged" in world.damage.reasons()[0]
    with pytest.raises(StateCorrupt):
        await world.read(b"f")
    assert await settled(world) == {b"f": b"first"}
    await world.save(b"f", b"again")
    assert await settled(world) == {b"f": b"again"}


async def test_spool_file_that_other_versions_share_stays_for_them(a_world):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, LARGE)
    await world.files.fsync(handle)
    await world.files.write(handle, len(LARGE), b"appended")
    await world.close_handle(handle)
    world.hash_now()
    first, _ = world.ops()
    assert len(world.spool_names()) == 1
    world.cache.clear()

    world.damage.set_aside_op(first.seq, "said so")

    assert await settled(world) == {b"f": LARGE + b"appended"}
    (version,) = damaged.read_all(world.state_dir)
    record = json.loads((paths.damaged(world.state_dir) / f"{version.name}.json").read_text())
    assert record["blob"] == first.oid
    assert (paths.damaged(world.state_dir) / version.file).read_bytes().startswith(LARGE)


@pytest.mark.parametrize("content", [b"ours", LARGE])
async def test_what_somebody_creates_where_a_damaged_document_is_takes_its_place(a_world, content):
    world = a_world({b"f": b"first"})
    await world.save(b"new", content)
    world.hash_now()
    set_aside(world, world.ops()[0])

    await world.remote.apply(*world.foreign({b"new": b"theirs"}))

    assert await world.read(b"new") == b"theirs"
    assert world.damage.reasons() == []
    world.check_tables()


async def test_damaged_document_that_is_being_saved_again_is_not_replaced_from_outside(a_world):
    world = a_world({b"f": b"first"})
    await world.save(b"new", b"ours")
    set_aside(world, world.ops()[0])
    handle = world.open(b"new", TRUNCATE)
    await world.files.write(handle, 0, b"ours again")
    await world.files.flush(handle)

    await world.remote.apply(*world.foreign({b"new": b"theirs"}))

    assert await world.files.read(handle, 0, 99) == b"ours again"
    world.files.release(handle)
    assert await world.read(b"new") == b"ours again"


async def test_large_content_whose_map_is_damaged_is_set_aside_and_keeps_nothing_waiting(
    a_world,
):
    world = a_world()
    await world.save(b"f", LARGE)
    world.unlink(b"f")
    await world.save(b"g", LARGE)
    await world.save(b"h", LARGE[::-1])
    world.journal.run_sql(
        "UPDATE content SET extents=x'07' WHERE id IN (SELECT content FROM op WHERE path=?)", b"g"
    )
    world.journal.commit()

    await world.run_hasher_until_idle()

    await world.settle()
    assert world.published_tree() == {b"h": (0o100644, LARGE[::-1])}
    with pytest.raises(StateCorrupt):
        await world.read(b"g")
    assert "g is damaged" in world.damage.reasons()[0]
