"""What people do to the repository behind a mount's back: rewinds, deletions, old backups; saves go on and nothing is lost."""

import shutil
from contextlib import closing

import pytest
import trio

from caiafs.core.types import blob_id
from tests.support.sync_world import Server, SyncWorld, a_sync_world
from tests.sync.test_publishing import level, until


async def three_versions(world):
    for number in range(3):
        world.put("f", f"{number}\n")
        world.put(f"g{number}", f"{number}\n")
        await world.stored()


@pytest.mark.parametrize("mounted", [True, False])
@pytest.mark.parametrize("commits", ["main~2", None])
async def test_branch_that_is_taken_back_or_deleted_goes_on(tmp_path, mounted, commits):
    with closing(SyncWorld(tmp_path)) as world:
        async with world.running():
            await three_versions(world)
            before = world.history()
            if mounted:
                _move_branch(world, commits)
                world.put("h", "new\n")
                assert await world.stored() == ""
        if not mounted:
            _move_branch(world, commits)
            world.put("h", "new\n")
        async with world.running():
            assert await world.stored() == ""

        world.check()
        assert before <= world.history()


def _move_branch(world, target):
    if target is None:
        world.git("update-ref", "-d", "refs/heads/main")
    else:
        world.git("update-ref", "refs/heads/main", world.git("rev-parse", target).strip())


async def test_repository_restored_from_an_old_backup_takes_new_saves(tmp_path):
    with closing(SyncWorld(tmp_path)) as world:
        async with world.running():
            await three_versions(world)
        backup = tmp_path / "backup.git"
        shutil.copytree(world.repo, backup)
        async with world.running():
            world.put("f", "lost with the disk\n")
            await world.stored()
        shutil.rmtree(world.repo)
        backup.rename(world.repo)
        newest = world.put("f", "saved after\n")
        world.put("h", "also\n")

        async with world.running():
            assert await world.stored() == ""

        assert world.settled_seq > newest
        assert world.content("f") == "saved after\n"
        assert world.content("h") == "also\n"
        [copy] = [path for path in world.tree() if path.startswith(b"f.conflict-")]
        assert world.tree()[copy].oid == blob_id(b"2\n")
        world.git("fsck", "--strict")


async def test_branch_taken_back_takes_nothing_back_in_govc(tmp_path):
    async with a_sync_world(tmp_path, server=Server()) as world:
        await three_versions(world)
        await world.sync()
        commits = len(world.server.store.commits)

        _move_branch(world, "main~2")
        world.put("h", "new\n")
        await world.stored()

        await until(lambda: level(world))
        assert len(world.server.store.commits) == commits + 1


async def test_ops_behind_one_that_is_being_hashed_wait_for_it(tmp_path):
    async with a_sync_world(tmp_path) as world:
        world.put("a", "1\n")
        world.put("late", "2\n")
        late = world.last_seq
        world.put("b", "3\n")
        world.db.execute("UPDATE op SET oid=NULL WHERE seq=?", (late,))
        world.due()
        await until(lambda: world.settled_seq == late - 1)
        await trio.sleep(0.05)
        assert world.settled_seq == late - 1
        world.put("b", "4\n")
        world.due()
        done = await world.sync(timeout_s=0.3)
        assert done.left["git"] > 0

        oid = bytes.fromhex(blob_id(b"2\n"))
        world.db.execute("UPDATE op SET oid=? WHERE seq=?", (oid, late))
        assert await world.stored() == ""

        assert set(world.tree()) == {b"a", b"late", b"b"}
        assert blob_id(b"3\n") in world.history()
