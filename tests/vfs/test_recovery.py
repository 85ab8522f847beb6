"""What the next mount makes of a state DB that `kill -9` left."""

from caiafs.core.config import CommitPolicy
from caiafs.vfs.attributes import AttributeChange
from tests.support.vfs_world import ALICE, TRUNCATE, WRITE


async def test_kill_after_a_rename_over_an_open_file_looks_like_no_conflict(a_world, tmp_path):
    world = a_world({b"f": b"old"})
    handle = world.create(b"new")
    await world.files.write(handle, 0, b"content")
    await world.files.flush(handle)
    world.rename(b"new", b"f")
    old = world.repository.reader.entry_at(world.published, b"f").oid
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    (op,) = world.ops()
    assert (op.path, op.replaced) == (b"f", old)
    assert await world.read(b"f") == b"content"


async def test_file_that_was_created_and_never_flushed_is_gone_after_a_kill(a_world, tmp_path):
    world = a_world()
    world.create(b"f")
    world.journal.commit()
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")
    await world.settle()

    assert await world.shown() == world.published_tree() == {}
    assert world.count("inode") == 1


async def test_unflushed_file_that_took_a_name_gives_it_back_after_a_kill(a_world, tmp_path):
    world = a_world({b"f": b"old"})
    world.create(b"new")
    world.rename(b"new", b"f")
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    assert await world.shown() == world.published_tree() == {b"f": (0o100644, b"old")}


async def test_kill_between_write_and_flush_leaves_the_old_content_at_its_old_size(
    a_world, tmp_path
):
    world = a_world()
    await world.save(b"f", b"as it was closed")
    handle = world.open(b"f", WRITE)
    await world.files.write(handle, 0, b"x" * 50)
    await world.attributes.set(world.find(b"f").ino, AttributeChange(mtime_ns=1), ALICE)
    world.journal.commit()
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    assert (await world.shown())[b"f"][1] == b"as it was closed"


async def test_kill_between_truncation_and_flush_leaves_the_old_content(a_world, tmp_path):
    world = a_world({b"f": b"old"})
    world.open(b"f", TRUNCATE)
    await world.attributes.set(world.find(b"f").ino, AttributeChange(mode=0o600), ALICE)
    world.journal.commit()
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    assert (await world.shown())[b"f"][1] == b"old"


async def test_rename_is_never_committed_by_halves(a_world, monkeypatch):
    world = a_world()
    await world.save(b"a", b"source")
    await world.save(b"b", b"target")
    world.hard_link(b"a", b"a2")
    world.hard_link(b"b", b"b2")
    for name in (b"a", b"b"):
        world.find(name).names = None  # as after the kernel has forgotten them
    seen = []
    commit = world.journal.commit

    def commit_and_look():
        commit()
        seen.append({name for (name,) in world.db.rows("SELECT name FROM dentry")})

    monkeypatch.setattr(world.journal, "commit", commit_and_look)

    world.rename(b"a", b"b")

    assert seen[-1] == {b"a2", b"b", b"b2"}
    assert all(names == {b"a", b"a2", b"b", b"b2"} for names in seen[:-1])


async def test_file_of_the_last_mount_that_waits_for_its_age_is_due_though_the_kernel_forgot_it(
    a_world,
):
    world = a_world(commit=CommitPolicy.FSYNC)
    await world.save(b"f", b"content")
    world.journal.commit()
    world.table.release(world.find(b"f"))
    assert world.table.peek(world.root_inode.children[b"f"]) is None
    world.files.settle_everything(unflushed=True)

    assert [op.path for op in world.ops()] == [b"f"]


async def test_last_unlogged_version_is_a_version_of_the_next_mount(a_world, tmp_path):
    world = a_world()
    handle = world.create(b"f")
    await world.files.write(handle, 0, b"flushed")
    await world.files.flush(handle)
    await world.files.write(handle, 7, b" and not")
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    assert [world.content_of(op) for op in world.ops()] == [b"flushed"]
    assert await world.read(b"f") == b"flushed"


async def test_name_given_back_shows_a_version_that_git_does_not_have_yet(a_world, tmp_path):
    world = a_world()
    await world.save(b"f", b"not in git")
    world.create(b"new")
    world.rename(b"new", b"f")
    world.kill(tmp_path / "m1")

    world = a_world(root=tmp_path / "m1")

    assert await world.read(b"f") == b"not in git"
    await world.settle()
    assert await world.shown() == world.published_tree()
