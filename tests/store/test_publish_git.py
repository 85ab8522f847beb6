"""Publishing to git alone, through the real store process."""

from contextlib import closing

import trio

from caiafs.core.types import EMPTY_TREE, GitMode
from caiafs.link.messages import Changes, Ready, Settled
from tests.support.store_world import World, a_world


async def test_new_repository_is_ready_and_empty(tmp_path):
    async with a_world(tmp_path) as world:
        ready = world.events[0]

        assert isinstance(ready, Ready)
        assert (ready.commit, ready.tree) == (None, EMPTY_TREE)


async def test_saved_document_is_a_commit_with_its_provenance(tmp_path):
    async with a_world(tmp_path) as world:
        seq = world.put("notes/todo.txt", "milk\n")

        assert await world.stored() == ""

        assert world.content("notes/todo.txt") == "milk\n"
        assert world.subjects() == ["Add notes/todo.txt"]
        trailers = world.git("log", "-1", "--format=%(trailers)", "main")
        assert f"Caiafs-Operation: {world.writer}-{seq}-{seq}\n" in trailers
        assert "Caiafs-Host: " in trailers
        assert "Caiafs-Program: pytest\n" in trailers
        assert world.settled_seq == seq


async def test_settled_names_a_commit_that_the_branch_reaches(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("a", "1")

        await world.stored()
        await world.wait_for(lambda: any(isinstance(e, Settled) for e in world.events))

        settled = next(e for e in world.events if isinstance(e, Settled))
        assert settled.commit == world.head()
        assert settled.tree == world.git("rev-parse", "main^{tree}").strip()


async def test_each_version_of_a_document_is_a_commit(tmp_path):
    async with a_world(tmp_path) as world:
        for number in range(5):
            world.put("f", f"version {number}\n")

        await world.stored()

        versions = [
            world.content("f", commit)
            for commit in world.git("rev-list", "--reverse", "main").split()
        ]
        assert versions == [f"version {number}\n" for number in range(5)]


async def test_a_thousand_new_files_are_few_commits(tmp_path):
    async with a_world(tmp_path) as world:
        for number in range(1000):
            world.put(f"d{number % 7}/f{number}", f"{number}")

        await world.stored()

        assert len(world.subjects()) <= 5
        assert world.agrees()


async def test_save_by_rename_over_is_one_commit(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "old\n")
        await world.stored()
        world.put("sedXyz", "new\n")
        world.move("sedXyz", "f")

        await world.stored()

        assert world.subjects() == ["Add f", "Update f"]
        assert world.content("f") == "new\n"


async def test_directory_rename_is_one_commit(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("old/a", "a")
        world.put("old/sub/b", "b")
        await world.stored()
        world.move("old", "new")

        await world.stored()

        assert world.subjects()[-1] == "Rename old to new"
        assert set(world.tree()) == {b"new/a", b"new/sub/b"}


async def test_mode_change_and_symlink_are_kept(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("run.sh", "#!/bin/sh\n", mode=GitMode.EXECUTABLE)
        world.put("link", "run.sh", mode=GitMode.SYMLINK)

        await world.stored()

        modes = {path: entry.mode for path, entry in world.tree().items()}
        assert modes == {b"run.sh": GitMode.EXECUTABLE, b"link": GitMode.SYMLINK}


async def test_what_came_and_went_makes_no_commit_and_is_settled(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("kept", "1")
        world.put("tmp", "2")
        seq = world.remove("tmp")

        await world.stored()

        assert world.subjects() == ["Add kept"]
        assert world.settled_seq == seq


async def test_only_ops_without_effect_settle_on_an_unborn_branch(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("tmp", "2")
        seq = world.remove("tmp")

        assert await world.stored() == ""

        assert world.head() is None
        assert world.settled_seq == seq


async def test_any_bytes_make_a_name(tmp_path):
    async with a_world(tmp_path) as world:
        names = [b"\xff\xfe", "ü".encode(), b"a\nb", b"sp ace", b".git", b'quote"']
        for name in names:
            world.put(b"d/" + name, name)

        await world.stored()

        assert len(world.tree()) == len(names)
        world.git("fsck", "--strict")
        assert all(
            line.isprintable() for line in world.git("log", "-1", "--format=%B", "main").split("\n")
        )


async def test_another_user_gets_a_commit_of_their_own(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("mine", "1", uid=0)
        world.put("yours", "2", uid=65534)

        await world.stored()

        authors = world.git("log", "--reverse", "--format=%an", "main").splitlines()
        assert len(authors) == 2
        assert authors[0] != authors[1]


async def test_not_urgent_save_is_published_soon(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "1")

        world.due(urgent=False)

        await world.wait_for(lambda: world.settled_seq == world.last_seq)


async def test_killed_process_publishes_what_was_due_after_its_restart(tmp_path):
    async with a_world(tmp_path) as world:
        for number in range(200):
            world.put(f"f{number % 20}", f"{number}")
        world.due()
        await world.wait_for(lambda: world.settled_seq > 0)
        world.kill()

        assert await world.stored() == ""

        assert world.agrees()
        assert len(world.messages()) == len(set(world.messages()))
        versions = world.git("log", "--format=%H", "main").split()
        assert len(versions) == 10


async def test_next_mount_publishes_what_the_last_one_left(tmp_path):
    world = World(tmp_path)
    world.put("f", "left behind")

    async with world.running():
        world.due()
        await world.wait_for(lambda: world.settled_seq == 1)

    assert world.content("f") == "left behind"
    world.close()


async def test_ops_that_the_branch_already_holds_are_not_published_again(tmp_path):
    world = World(tmp_path)
    async with world.running():
        world.put("f", "1")
        world.put("g", "2")
        await world.stored()
    before = world.head()
    world.settled_seq, world.known_commit = 0, None

    async with world.running():
        await world.wait_for(lambda: world.settled_seq == 2)

    assert world.head() == before
    world.close()


async def test_stop_publishes_what_is_pending(tmp_path):
    world = World(tmp_path)
    async with world.running():
        for number in range(50):
            world.put(f"f{number}", "x")
        world.due(urgent=False)

    assert world.stopped.left == {"git": 0}
    assert len(world.tree()) == 50
    world.close()


async def test_push_by_somebody_else_is_kept_and_told(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "ours\n")
        await world.stored()
        world.push({"g": "theirs\n"})
        world.put("h", "ours again\n")

        await world.stored()
        await world.wait_for(lambda: any(isinstance(e, Changes) for e in world.events))

        assert set(world.tree()) == {b"f", b"g", b"h"}
        assert world.agrees()


async def test_report_tells_what_was_published(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "1")
        await world.stored()

        await world.wait_for(lambda: world.report.get("groups") == 1)

        assert world.report["mode"] == "git only"
        assert world.report["backends"]["git"]["condition"] == "ok"
        assert world.report["backends"]["git"]["operations"]["commit"]["count"] == 1


async def test_large_blob_is_loaded_into_the_cache(tmp_path):
    async with a_world(tmp_path) as world:
        content = "0123456789abcdef" * (1 << 17)
        world.put("big", content)
        await world.stored()
        from caiafs.link.messages import LoadRequest
        from caiafs.state import paths

        oid = world.tree()[b"big"].oid
        done = await world.process.request(LoadRequest(0, oid))

        assert (done.error, done.size_bytes) == ("", len(content))
        assert await trio.Path(paths.cached_blob(world.state_dir, oid)).read_text() == content
        assert len(list(paths.cached_blob(world.state_dir, oid).parent.iterdir())) == 1


async def test_damaged_record_of_ids_keeps_no_save_waiting(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("a", "1")
        assert await world.stored() == ""
    for file in world.state_dir.glob("documents.db*"):
        file.write_bytes(b"damaged" * 1000)

    with closing(World(tmp_path)) as again:
        async with again.running():
            again.shown = again.tree()
            again.move("a", "b")

            assert await again.stored() == ""
            assert again.subjects()[-1] == "Rename a to b"
            assert "Caiafs-Document: " in again.messages()[0]
