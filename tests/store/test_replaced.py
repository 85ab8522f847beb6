"""The repository's directory is moved away, replaced or emptied while something is mounted."""

import shutil
import subprocess

from tests.support.store_world import a_world
from tests.sync.test_publishing import until


async def restarted(world, pid):
    """Wait until another store process has opened the repository."""

    def another():
        found = world.process.statistics()
        return found.ready and found.pid != pid

    await world.wait_for(another, "another store process")


def make_empty(path):
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", path], check=True)


async def test_repository_restored_from_a_backup_under_a_mount_takes_the_saves(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "1\n")
        assert await world.stored() == ""
        shutil.copytree(world.repo, tmp_path / "backup")
        world.put("f", "2\n")
        assert await world.stored() == ""
        pid = world.process.statistics().pid

        world.repo.rename(tmp_path / "old")
        (tmp_path / "backup").rename(world.repo)
        await restarted(world, pid)

        world.put("g", "new\n")
        assert await world.stored() == ""
        assert world.content("g") == "new\n"
        assert world.git("fsck", "--strict") == ""
        assert any("restored from a backup" in reason for reason in world.report["reasons"])


async def test_repository_that_is_moved_away_is_not_made_anew_and_saves_wait_for_it(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "1\n")
        assert await world.stored() == ""

        world.repo.rename(tmp_path / "away")
        world.put("f", "2\n")
        await until(lambda: "there is no repository" in world.process.statistics().reason)
        assert not world.repo.exists()

        (tmp_path / "away").rename(world.repo)
        assert await world.stored() == ""
        assert world.content("f") == "2\n"


async def test_nothing_is_pointed_at_what_an_empty_repository_does_not_have(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "1\n")
        assert await world.stored() == ""
        pid = world.process.statistics().pid

        world.repo.rename(tmp_path / "old")
        make_empty(world.repo)
        world.put("g", "2\n")
        await restarted(world, pid)

        assert await world.stored() == ""
        assert world.content("g") == "2\n"
        assert world.git("fsck", "--strict", "--no-dangling") == ""
