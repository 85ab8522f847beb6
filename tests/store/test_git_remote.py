"""A configured git remote: what is saved gets there, what others pushed comes here, and whatever is wrong with it costs no save."""

import itertools
import logging
import subprocess
from contextlib import closing
from dataclasses import replace

import pytest
import trio

from caiafs.backends.git import remote as git_remote
from caiafs.backends.git.backend import GitBackend
from caiafs.core.types import blob_id
from caiafs.link.messages import AdoptRequest
from caiafs.sync import remote_assembly
from tests.support.git_remote import (
    INTERVAL_S,
    SharedRepository,
    come_level,
    documents,
    remote_settings,
    worlds_on,
)
from tests.support.store_world import WAIT_S
from tests.support.sync_world import Server, SyncWorld, a_sync_world
from tests.sync.test_publishing import until

ROUNDS_S = 6 * INTERVAL_S


@pytest.fixture
def shared(tmp_path):
    """Return an empty bare repository."""
    return SharedRepository(tmp_path / "shared.git")


def remote_of(world):
    return world.report.get("remote", {"last_fetch_ns": 0, "operations": {}, "reasons": []})


def a_repository(path, *options):
    subprocess.run(["git", "init", "-q", "-b", "main", *options, str(path)], check=True)
    return path


async def level(world, shared):
    assert await world.stored() == ""
    await until(lambda: world.head() == shared.head() and world.agrees())


async def a_reason(world, *words):
    """Wait until the report gives a reason that has these words, and return it."""

    def told():
        reasons = world.report.get("remote", {}).get("reasons", [])
        return next((r for r in reasons if all(word in r for word in words)), None)

    try:
        await until(lambda: told() is not None)
    except trio.TooSlowError as exc:
        raise AssertionError((words, world.report.get("remote"))) from exc
    return told()


async def saves_go_on(world):
    """Assert that a save is stored as if there were no remote."""
    world.put("saved meanwhile", "text\n")
    with trio.fail_after(WAIT_S / 2):
        assert await world.stored() == ""
    assert b"saved meanwhile" in world.tree()


# --- what comes and goes


async def test_nothing_is_run_or_written_without_the_setting(tmp_path, shared):
    async with a_sync_world(tmp_path / "world") as world:
        world.put("f", "1")
        await world.stored()
        done = await world.sync()

        assert done.left == {"git": 0}
        assert not remote_of(world)["configured"]
    assert not (world.repo / "caiafs" / "remote.git").exists()


async def test_an_empty_remote_gets_what_is_saved(tmp_path, shared):
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        world.put("d/f", "1\n")
        world.put("run", "#!/bin/sh\n", mode=0o100755)
        await world.stored()

        await level(world, shared)

        assert {p: (int(m, 8), o) for p, (m, o) in shared.tree().items()} == documents(world)
        assert shared.git("for-each-ref", "--format=%(refname)").split() == ["refs/heads/main"]


async def test_documents_of_a_remote_that_takes_long_appear_all_the_same(
    tmp_path, shared, monkeypatch
):
    shared.commit({"f": "1\n"})
    monkeypatch.setattr(remote_assembly, "FIRST_LOOK_S", 1.0)
    diff = GitBackend.diff

    async def slow_diff(*arguments):
        await trio.sleep(1.5)  # as long as that of a large tree
        return await diff(*arguments)

    monkeypatch.setattr(GitBackend, "diff", slow_diff)
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        await until(lambda: b"f" in world.shown, WAIT_S / 4)


async def test_what_others_push_comes_here(tmp_path, shared):
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        world.put("f", "1\n")
        await level(world, shared)

        shared.commit({"f": "2\n", "d/new": "new\n"})

        await until(lambda: b"d/new" in world.shown)
        await level(world, shared)
        assert world.content("f") == "2\n"
        assert world.subjects() == ["Add f", "Commit elsewhere"]


async def test_an_empty_repository_shows_the_remote_before_anything_can_be_saved(tmp_path, shared):
    shared.commit({"f": "1\n", "d/g": "2\n"})
    with closing(SyncWorld(tmp_path / "world", **remote_settings(shared))) as world:
        current = []

        async def on_current(_message):
            current.append(set(world.shown))

        send = world.on_current
        world.on_current = on_current
        world.at["before Current"] = lambda: current.append(set(world.shown))
        async with world.running():
            await level(world, shared)
        world.on_current = send

    assert current[0] == {b"f", b"d/g"}


async def test_different_documents_of_two_machines_meet_without_conflict(tmp_path, shared):
    async with worlds_on(tmp_path, shared) as (one, two):
        one.put("base", "1\n")
        await come_level([one, two], shared)
        one.put("one", "1\n")
        two.put("two", "2\n")

        await come_level([one, two], shared)

        assert set(one.tree()) == set(two.tree()) == {b"base", b"one", b"two"}
        one.check()
        two.check()


async def test_lines_of_two_machines_merge(tmp_path, shared):
    async with worlds_on(tmp_path, shared) as (one, two):
        one.put("f", "1\n2\n3\n4\n5\n")
        await come_level([one, two], shared)
        one.put("f", "one\n2\n3\n4\n5\n")
        two.put("f", "1\n2\n3\n4\nfive\n")

        await come_level([one, two], shared)

        assert one.content("f") == two.content("f") == "one\n2\n3\n4\nfive\n"


async def test_both_versions_of_a_conflict_stay_and_all_see_the_same(tmp_path, shared):
    async with worlds_on(tmp_path, shared, 3) as worlds:
        worlds[0].put("f.txt", "base\n")
        await come_level(worlds, shared)
        for number, world in enumerate(worlds):
            world.put("f.txt", f"by {number}\n")

        await come_level(worlds, shared)

        contents = {entry.oid for entry in worlds[0].tree().values()}
        assert {blob_id(b"by %d\n" % number) for number in range(3)} == contents
        assert documents(worlds[0]) == documents(worlds[1]) == documents(worlds[2])
        assert len(worlds[0].tree()) == 3


async def test_a_copy_of_a_version_has_one_name_whoever_makes_it(tmp_path, shared, monkeypatch):
    time = "2026-01-02T03:04:05+00:00"
    monkeypatch.setenv("GIT_AUTHOR_DATE", time)
    async with worlds_on(tmp_path, shared, 2, git_remote_interval_s=3600.0) as (one, two):
        one.put("f", "base\n")
        await one.sync()
        await two.sync()
        one.put("f", "one\n")
        two.put("f", "two\n")
        await one.stored()
        await two.stored()
        shared.commit({"f": "third\n"})
        pushed = git_remote.GitRemote.push

        async def late(self, commit, tips):
            if self._repository.git_dir == one.repo and two.head() != shared.head():
                monkeypatch.setenv("GIT_AUTHOR_DATE", "2026-06-06T06:06:06+00:00")
                shared.commit({"other": "later\n"})
                await two.sync()
            await pushed(self, commit, tips)

        monkeypatch.setattr(git_remote.GitRemote, "push", late)
        await one.sync()
        await two.sync()

        held = [path for path, entry in two.tree().items() if entry.oid == blob_id(b"third\n")]
        assert held == [b"f.conflict-20260102T030405Z-" + blob_id(b"third\n")[:8].encode()]
        assert documents(one) == documents(two)


async def test_with_nothing_new_nothing_is_committed_or_written(tmp_path, shared):
    async with worlds_on(tmp_path, shared) as (one, two):
        one.put("f", "1\n")
        two.put("g", "2\n")
        await come_level([one, two], shared)
        looks = remote_of(one)["operations"]["look"]["count"]
        before = [world.git("for-each-ref") for world in (one, two)], shared.commits()

        await until(lambda: remote_of(one)["operations"]["look"]["count"] > looks + 8)

        assert ([world.git("for-each-ref") for world in (one, two)], shared.commits()) == before
        assert remote_of(one)["operations"]["push"]["count"] <= 2


async def test_push_that_somebody_overtakes_is_merged_and_sent_again(tmp_path, shared, monkeypatch):
    overtaken = []
    push = git_remote.GitRemote.push

    async def overtake(self, commit, tips):
        if len(overtaken) < 3:
            overtaken.append(shared.commit({f"theirs {len(overtaken)}": "x\n"}))
        await push(self, commit, tips)

    monkeypatch.setattr(git_remote.GitRemote, "push", overtake)
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        world.put("ours", "1\n")
        await world.stored()

        await until(lambda: len(overtaken) == 3 and world.head() == shared.head())

        assert len(shared.tree()) == 4
        for commit in overtaken:
            shared.git("merge-base", "--is-ancestor", commit, "main")
        assert not remote_of(world)["reasons"]


async def test_a_burst_of_saves_is_few_pushes(tmp_path, shared):
    settings = remote_settings(shared, git_remote_interval_s=1.0)
    async with a_sync_world(tmp_path / "world", **settings) as world:
        for number in range(30):
            world.put(f"f{number}", "x\n")
            await world.stored()

        await level(world, shared)

        await until(lambda: "push" in remote_of(world)["operations"])
        assert remote_of(world)["operations"]["push"]["count"] <= 6


async def test_sync_waits_for_the_remote(tmp_path, shared):
    settings = remote_settings(shared, git_remote_interval_s=3600.0)
    async with a_sync_world(tmp_path / "world", **settings) as world:
        world.put("f", "1\n")

        done = await world.sync()

        assert done.left == {"git": 0, "remote": 0}
        assert world.head() == shared.head()


async def test_sync_waits_until_govc_has_what_the_remote_brought(tmp_path, shared):
    server = Server()
    settings = remote_settings(shared, git_remote_interval_s=3600.0)
    async with a_sync_world(tmp_path / "world", server=server, **settings) as world:
        world.put("f", "1\n")
        await world.sync()
        shared.commit({"theirs": "2\n"})

        done = await world.sync()

        assert done.left == {"git": 0, "govc": 0, "remote": 0}
        assert set(server.tree) == {b"f", b"theirs"}


async def test_the_end_of_the_mount_pushes_what_is_left(tmp_path, shared):
    settings = remote_settings(shared, git_remote_interval_s=3600.0)
    async with a_sync_world(tmp_path / "world", **settings) as world:
        world.put("f", "1\n")

    assert world.stopped.left == {"git": 0, "remote": 0}
    assert world.head() == shared.head()


async def test_a_named_remote_and_another_branch(tmp_path, shared):
    with closing(SyncWorld(tmp_path / "world", **remote_settings("origin"))) as world:
        a_repository(world.repo, "--bare")
        world.git("remote", "add", "origin", str(shared.path))
        world.config = replace(world.config, git_remote_branch="shared/docs")
        async with world.running():
            world.put("f", "1\n")
            await world.sync()

        assert shared.git("rev-parse", "shared/docs").strip() == world.head()


async def test_govc_of_one_machine_gets_what_another_one_saved(tmp_path, shared):
    server = Server()
    settings = remote_settings(shared)
    async with (
        a_sync_world(tmp_path / "one", server=server, **settings) as one,
        a_sync_world(tmp_path / "two", writer="feedf00d", **settings) as two,
    ):
        one.put("f", "1\n2\n3\n4\n5\n")
        await come_level([one, two], shared)
        two.put("d/g", "by two\n")
        two.put("f", "1\n2\n3\n4\ntwo\n")
        one.put("f", "one\n2\n3\n4\n5\n")
        await come_level([one, two], shared)

        await until(lambda: server.tree == documents(one) == documents(two))
        commits = len(server.store.commits)
        await trio.sleep(ROUNDS_S)
        assert len(server.store.commits) == commits
        one.check()
        two.check()


async def test_a_read_only_mount_follows_and_pushes_nothing(tmp_path, shared):
    first = shared.commit({"f": "1\n"})
    settings = remote_settings(shared, read_only=True)
    async with a_sync_world(tmp_path / "world", **settings) as world:
        await level(world, shared)
        world.git("update-ref", "refs/heads/main", world.push({"g": "2\n"}) or "main")

        await until(lambda: b"g" in world.shown)
        done = await world.sync()

        assert shared.head() == first
        assert done.left["remote"] == 0


# --- the remote's history goes another way


async def test_a_remote_that_was_taken_back_gets_everything_again(tmp_path, shared):
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        for number in range(3):
            world.put("f", f"{number}\n")
            await world.stored()
        await level(world, shared)
        newest = shared.head()

        shared.git("update-ref", "refs/heads/main", "main~2")

        await until(lambda: shared.head() == newest)
        assert world.git("rev-parse", f"refs/caia/lost/{newest}").strip() == newest
        assert len(world.subjects()) == 3


async def test_a_branch_that_was_deleted_there_comes_again(tmp_path, shared):
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        world.put("f", "1\n")
        await level(world, shared)
        newest = shared.head()

        shared.git("update-ref", "-d", "refs/heads/main")

        await until(lambda: shared.head() == newest)


async def test_a_replaced_history_is_merged_and_the_old_one_kept(tmp_path, shared):
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        world.put("base", "1\n")
        await world.sync()
        world.put("ours", "1\n")
        await world.sync()
        old = shared.head()

        forced = shared.commit({"theirs": "2\n"}, parents=(f"{old}~1",))

        await until(lambda: b"theirs" in world.shown)
        await level(world, shared)
        assert set(world.tree()) == {b"base", b"ours", b"theirs"}
        for commit in (old, forced):
            shared.git("merge-base", "--is-ancestor", commit, "main")
        assert world.git("rev-parse", f"refs/caia/lost/{old}").strip() == old


async def adopted(world):
    return (await world.process.request(AdoptRequest(0, WAIT_S))).error


async def test_collections_that_never_met_are_merged_after_adopt_only(tmp_path, shared):
    theirs = shared.commit({"f": "theirs\n", "t": "x\n"})
    with closing(SyncWorld(tmp_path / "world")) as world:
        async with world.running():
            world.put("f", "ours\n")
            await world.stored()
        world.config = replace(world.config, **remote_settings(shared))
        async with world.running():
            await a_reason(world, "never met", "caiafs adopt")
            await saves_go_on(world)
            done = await world.sync()
            assert done.left["remote"] > 0
            assert "never met" in " ".join(done.reasons)
            assert shared.head() == theirs

            assert await adopted(world) == ""

            await level(world, shared)
            await until(lambda: not remote_of(world)["reasons"])
            assert world.content("f") == "ours\n"
            [copy] = [path for path in world.tree() if path.startswith(b"f.conflict-")]
            assert world.content(copy.decode()) == "theirs\n"
        world.check()


async def test_two_that_began_empty_belong_together(tmp_path, shared):
    async with worlds_on(tmp_path, shared) as (one, two):
        await until(lambda: all(remote_of(world)["last_fetch_ns"] for world in (one, two)))
        one.put("f", "1\n")
        two.put("g", "2\n")

        await come_level([one, two], shared)

        assert set(one.tree()) == {b"f", b"g"}


async def test_submodules_and_odd_entries_of_others_stay_and_hurt_nothing(tmp_path, shared):
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        world.put("good", "1\n")
        await level(world, shared)
        blob = blob_id(b"1\n")
        entries = [
            ("100644", ".git", blob),
            ("100644", "..", blob),
            ("100644", "a/b", blob),
            ("104755", "setuid", blob),
            ("160000", "module", "1" * 40),
            ("120000", "link", shared.git("hash-object", "-w", "--stdin", data=b"/etc/x").strip()),
            ("100644", "good", blob),
        ]
        raw = b"".join(
            f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid)
            for mode, name, oid in sorted(entries, key=lambda entry: entry[1])
        )
        tree = shared.git(
            "hash-object", "-w", "-t", "tree", "--literally", "--stdin", data=raw
        ).strip()
        hostile = shared.git(
            "commit-tree", tree, "-p", shared.head(), "-m", "Hostile", data=b""
        ).strip()
        world.put("ours", "2\n")
        shared.git("update-ref", "refs/heads/main", hostile)
        await world.stored()

        await until(lambda: {b"ours", b"setuid"} <= set(world.shown) and not world.shown.get(b".."))
        await until(lambda: world.head() == shared.head())

        assert {b"good", b"ours", b"setuid", b"link"} <= set(world.shown)
        assert not {b"..", b"a/b", b"module"} & set(world.shown)
        assert shared.git("rev-parse", "main:module").strip() == "1" * 40
        assert not remote_of(world)["reasons"]


# --- the remote does not do as asked


async def test_a_missing_repository_says_so_and_is_used_when_it_is_there(tmp_path):
    settings = remote_settings(str(tmp_path / "later.git"))
    async with a_sync_world(tmp_path / "world", **settings) as world:
        await a_reason(world, "there is no repository", "git init --bare", "later.git")
        await saves_go_on(world)
        done = await world.sync()
        assert done.left["remote"] > 0
        assert "git init --bare" in " ".join(done.reasons)

        later = SharedRepository(tmp_path / "later.git")

        assert (await world.sync()).left["remote"] == 0
        assert later.head() == world.head()
        await until(lambda: not remote_of(world)["reasons"])


async def test_a_hook_that_declines_is_named_and_taken_back_is_tried_again(tmp_path, shared):
    hook = shared.hook("pre-receive", "echo 'Only signed commits here.' >&2; exit 1")
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        world.put("f", "1\n")
        await world.stored()
        reason = await a_reason(world, "takes no push", "main", "Only signed commits here.")
        assert "pre-receive hook declined" in reason
        await saves_go_on(world)
        tried = remote_of(world)["operations"]["push"]["count"]
        await trio.sleep(4 * INTERVAL_S)
        assert remote_of(world)["operations"]["push"]["count"] - tried <= 4, "a storm of pushes"

        hook.unlink()

        assert (await world.sync()).left["remote"] == 0
        assert shared.head() == world.head()


async def test_a_branch_checked_out_elsewhere_is_not_pushed_to(tmp_path):
    work = a_repository(tmp_path / "work")
    async with a_sync_world(tmp_path / "world", **remote_settings(str(work))) as world:
        world.put("f", "1\n")
        await world.stored()

        await a_reason(world, "takes no push", "bare repository")


@pytest.fixture
async def hanging_port(nursery, monkeypatch):
    """Return the port of a host that takes connections and says nothing."""
    monkeypatch.setattr(git_remote, "LOOK_SILENCE_S", 0.5)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def hang(_stream):
        await trio.sleep_forever()

    nursery.start_soon(trio.serve_listeners, hang, listeners)
    return listeners[0].socket.getsockname()[1]


@pytest.mark.parametrize("scheme", ["git", "http"])
async def test_a_hanging_host_keeps_nobody_waiting(tmp_path, hanging_port, scheme):
    address = f"{scheme}://127.0.0.1:{hanging_port}/docs.git"
    with closing(SyncWorld(tmp_path / "world", **remote_settings(address))) as world:
        with trio.fail_after(2 * WAIT_S):
            async with world.running(grace_s=3):
                await saves_go_on(world)
                await a_reason(world, "does not answer", f"127.0.0.1:{hanging_port}")
                done = await world.sync()
                assert done.left["remote"] > 0
                began = trio.current_time()
        assert trio.current_time() - began < 3 + WAIT_S / 2, "the end waited for it"
        assert world.stopped.left["remote"] > 0


async def test_a_host_that_is_away_is_asked_less_and_less_often(tmp_path, shared, monkeypatch):
    asked = []
    look = git_remote.GitRemote.look

    async def note(self):
        asked.append(trio.current_time())
        return await look(self)

    monkeypatch.setattr(git_remote.GitRemote, "look", note)
    settings = remote_settings("git://127.0.0.1:1/x")
    async with a_sync_world(tmp_path / "world", **settings) as world:
        await a_reason(world, "127.0.0.1")
        await until(lambda: len(asked) >= 6)

        pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
        assert pauses[-1] > 4 * INTERVAL_S
        assert asked[5] - asked[0] > 10 * INTERVAL_S


async def test_a_problem_is_logged_once(tmp_path, caplog):
    settings = remote_settings("git://127.0.0.1:1/x")
    with caplog.at_level(logging.WARNING):
        async with a_sync_world(tmp_path / "world", **settings) as world:
            await a_reason(world, "127.0.0.1")
            failed = remote_of(world)["operations"]["look"]["failure"]
            await until(lambda: remote_of(world)["operations"]["look"]["failure"] > failed + 2)

    assert len([r for r in caplog.records if "git remote" in r.getMessage()]) == 1


async def test_the_repository_itself_is_no_remote(tmp_path):
    path = str(tmp_path / "world" / "repo.git")
    async with a_sync_world(tmp_path / "world", **remote_settings(path)) as world:
        await a_reason(world, "the mounted repository itself")


async def test_an_unknown_name_says_how_a_path_is_written(tmp_path):
    async with a_sync_world(tmp_path / "world", **remote_settings("upstream")) as world:
        await a_reason(world, "no remote upstream", "./upstream")


async def test_figures_say_how_far_apart_they_are(tmp_path, shared):
    hook = shared.hook("pre-receive", "exit 1")
    async with a_sync_world(tmp_path / "world", **remote_settings(shared)) as world:
        for number in range(3):
            world.put(f"f{number}", "1\n")
            await world.stored()
        await a_reason(world, "takes no push")
        await until(lambda: remote_of(world)["ahead"] == 3)
        assert remote_of(world)["documents_left"] == 3
        assert remote_of(world)["last_push_ns"] == 0

        hook.unlink()
        await world.sync()

        await until(lambda: remote_of(world)["last_push_ns"] > 0)
        assert (remote_of(world)["ahead"], remote_of(world)["behind"]) == (0, 0)
        assert remote_of(world)["head"] == world.head()
