"""Publishing holds what it promises where a store fails half-way, hangs, or says nonsense."""

from dataclasses import replace

import trio

from caiafs.backends.base import CommitResult
from caiafs.backends.git.repository import open_repository
from caiafs.core.errors import Corrupt
from caiafs.core.types import blob_id
from caiafs.state.reader import StateReader
from caiafs.store import refusals
from caiafs.store.hybrid import HybridStore
from caiafs.upkeep.check_git import check_caia_refs
from tests.support.sync_world import FakeGovc, Server, a_sync_world
from tests.support.waiting import PATIENCE_S


def level(world):
    tree = {p: (e.mode, e.oid) for p, e in world.tree().items()} if world.head() else {}
    return world.server.tree == tree


async def until(condition, timeout_s=PATIENCE_S):
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110  # many parts end this
            await trio.sleep(0.01)


async def connected(world):
    await until(
        lambda: (
            world.report
            and world.report["backends"]["govc"]["condition"] == "ok"
            and not world.report["backends"]["govc"]["behind"]
        )
    )


async def test_a_save_reaches_both_stores(tmp_path):
    async with a_sync_world(tmp_path, server=Server()) as world:
        await connected(world)
        world.put("f", "1")

        assert await world.stored() == ""

        world.check()
        assert level(world)


async def test_waiting_for_an_op_that_was_dropped_ends(tmp_path):
    async with a_sync_world(tmp_path) as world:
        world.put("f", "1")
        await world.stored()
        world.last_seq += 1

        with trio.fail_after(PATIENCE_S / 2):
            assert await world.stored(timeout_s=PATIENCE_S) == ""


async def test_group_that_only_govc_took_is_in_both_after_the_branch_moves_again(tmp_path):
    async with a_sync_world(tmp_path, server=Server()) as world:
        await connected(world)
        world.put("f", "1")
        await world.stored()
        world.put("f", "2")
        world.branch_fails = 3

        assert await world.stored() == ""

        await until(lambda: level(world))
        await trio.sleep(0.3)
        assert level(world)
        assert [r.message.split("\n")[0] for r, _, _ in world.server.store.commits] == [
            "Add f",
            "Update f",
        ]


async def test_save_is_in_git_though_govc_is_held_by_somebody(tmp_path, monkeypatch):
    found = []
    init = HybridStore.__init__

    def note(self, git, govc, *more):
        found.append(govc)
        init(self, git, govc, *more)

    monkeypatch.setattr(HybridStore, "__init__", note)
    async with a_sync_world(tmp_path, server=Server(), operation_timeout_s=0.3) as world:
        await connected(world)
        async with found[0].lock:
            world.put("f", "1")
            assert await world.stored() == ""
            assert world.head() is not None
        await until(lambda: level(world))


async def test_unreadable_foreign_document_costs_itself_only(tmp_path):
    server = Server()
    async with a_sync_world(tmp_path, server=server) as world:
        await connected(world)
        world.put("f", "1")
        world.put("g", "1")
        await world.stored()
        server.up = False
        world.put("f", "2")
        world.put("g", "2")
        await world.stored()
        await server.write({b"f": b"foreign"})
        server.unreadable.add(b"f")
        server.up = True

        await until(lambda: server.tree[b"g"][1] == world.shown[b"g"].oid)
        before = server.requests
        await trio.sleep(1)
        assert server.requests - before < 150, "a storm of requests"


async def test_group_that_somebody_pushed_meanwhile_leaves_govc_to_be_brought_level(tmp_path):
    async with a_sync_world(tmp_path, server=Server()) as world:
        await connected(world)
        world.put("f", "1")
        await world.stored()
        world.put("f", "2")
        world.at["before refs/heads/main"] = lambda: world.push({"f": "2", "g": "pushed"})

        assert await world.stored() == ""

        await until(lambda: level(world))
        assert set(world.tree()) == {b"f", b"g"}


async def test_head_that_the_log_does_not_show_keeps_no_save_waiting(tmp_path, monkeypatch):
    async def head(self):
        await trio.lowlevel.checkpoint()
        self._server.requests += 1
        return "elsewhere"

    async with a_sync_world(tmp_path, server=Server()) as world:
        await connected(world)
        world.put("f", "1")
        await world.stored()
        monkeypatch.setattr(FakeGovc, "head", head)
        world.put("f", "2")

        assert await world.stored() == ""

        before = world.server.requests
        await trio.sleep(1)
        assert world.server.requests - before < 300, "a storm of requests"


async def test_document_that_others_put_where_we_have_a_directory_goes_beside(tmp_path):
    server = Server()
    async with a_sync_world(tmp_path, server=server) as world:
        await connected(world)
        world.put("d/e", "ours\n")
        world.put("f", "ours too\n")
        await world.stored()
        await until(lambda: level(world))

        await server.write({b"d": b"theirs\n", b"f/g": b"theirs too\n"})

        await until(lambda: b"f/g" in world.tree() and level(world))
        assert world.content("d/e") == "ours\n"
        beside = {path.split(b".")[0] for path in world.tree() if b".conflict-" in path}
        assert beside == {b"d", b"f"}


async def test_bug_while_publishing_delays_the_group_and_ends_nothing(tmp_path, caplog):
    def broken():
        raise RuntimeError("a bug")

    async with a_sync_world(tmp_path) as world:
        world.at["before refs/heads/main"] = broken
        world.put("f", "1")

        assert await world.stored() == ""

        assert set(world.tree()) == {b"f"}
        assert "publishing broke" in caplog.text


async def test_document_below_a_submodule_stays_in_the_repository_and_health_names_it(tmp_path):
    async with a_sync_world(tmp_path) as world:
        await commit_submodule(world)
        world.put("sub/f", "nowhere else\n")

        assert await world.stored() == ""

        oid = blob_id(b"nowhere else\n")
        await until(lambda: world.report["backends"]["git"]["refused"])
        [refused] = world.report["backends"]["git"]["refused"]
        assert refused["path"] == "sub/f"
        world.git("gc", "--prune=now", "--quiet")
        assert world.git("cat-file", "blob", oid) == "nowhere else\n"
        assert check_caia_refs(open_repository(world.repo)) == []
        world.put("g", "goes on\n")
        assert await world.stored() == ""
        assert world.content("g") == "goes on\n"


async def commit_submodule(world):
    """Have somebody add a submodule named sub."""
    world.put("f", "1")
    assert await world.stored() == ""
    items = world.git("ls-tree", "main") + f"160000 commit {'1' * 40}\tsub\n"
    tree = world.git("mktree", "--missing", data=items.encode()).strip()
    who = ("-c", "user.name=Else", "-c", "user.email=else@example.org")
    commit = world.git(*who, "commit-tree", "-p", "main", "-m", "Add sub", tree).strip()
    world.git("update-ref", "refs/heads/main", commit)
    await until(lambda: world.known_commit == commit or world.report["commit"] == commit)


def refusing(monkeypatch, refused):
    """Have govc refuse documents: `refused` maps paths to how often."""
    commit = FakeGovc.commit

    async def commit_some(self, change_set):
        left_out = {c.path for c in change_set.changes if refused.get(c.path, 0) > 0}
        for path in left_out:
            refused[path] -= 1
        kept = tuple(c for c in change_set.changes if c.path not in left_out)
        result = CommitResult(self._server.store.head)
        if kept:
            result = await commit(self, replace(change_set, changes=kept))
        return replace(result, refused=tuple((path, "400") for path in sorted(left_out)))

    monkeypatch.setattr(FakeGovc, "commit", commit_some)
    monkeypatch.setattr(refusals, "FIRST_S", 0.1)


async def test_document_refused_by_accident_is_sent_again_by_itself(tmp_path, monkeypatch):
    refusing(monkeypatch, {b"f": 2})
    async with a_sync_world(tmp_path, server=Server()) as world:
        await connected(world)
        world.put("f", "1")
        world.put("g", "1")

        assert await world.stored() == ""

        await until(lambda: level(world))
        await until(lambda: not world.report["backends"]["govc"]["refused"])


async def test_what_somebody_put_where_govc_refused_ours_is_not_written_over(tmp_path, monkeypatch):
    refusing(monkeypatch, {b"f": 1})
    monkeypatch.setattr(refusals, "FIRST_S", 0.5)
    async with a_sync_world(tmp_path, server=Server()) as world:
        await connected(world)
        world.put("f", "ours\n")
        assert await world.stored() == ""
        await world.server.write({b"f": b"theirs\n"})

        await until(lambda: level(world) and not world.report["backends"]["govc"]["refused"])
        assert world.content("f") == "theirs\n"
        assert [c.message.split("\n")[0] for c, _, _ in world.server.store.commits] == [
            "Write as another client"
        ]


async def test_group_whose_answer_makes_no_sense_comes_again_as_the_same_operation(
    tmp_path, monkeypatch
):
    commit = FakeGovc.commit

    async def commit_garbled(self, change_set):
        result = await commit(self, change_set)
        if self._server.commits_tried == 1:
            world.put("g", "saved meanwhile\n")
            world.due()
            raise Corrupt("commit: no such thing", backend="govc", operation="commit")
        return result

    monkeypatch.setattr(FakeGovc, "commit", commit_garbled)
    async with a_sync_world(tmp_path, server=Server(), enable_fallback=False) as world:
        await connected(world)
        world.put("f", "1\n")

        assert await world.stored() == ""

        await until(lambda: level(world) and b"g" in world.tree())
        assert [o for _, o, _ in world.server.store.commits] == [
            f"{world.writer}-1-1",
            f"{world.writer}-2-2",
        ]


async def test_document_that_govc_denies_once_is_not_taken_for_deleted(tmp_path, monkeypatch):
    current, denied = FakeGovc.current, []

    async def current_denied(self, paths):
        found = await current(self, paths)
        if b"f" in found and world.known_commit and not denied:
            denied.append(found[b"f"])
            return found | {b"f": None}
        return found

    async with a_sync_world(tmp_path, server=Server()) as world:
        await connected(world)
        world.put("f", "1\n")
        assert await world.stored() == ""
        await connected(world)
        monkeypatch.setattr(FakeGovc, "current", current_denied)
        await world.server.write({b"f": b"theirs\n"})

        await until(lambda: denied and level(world) and world.content("f") == "theirs\n")
        assert not world.git("log", "--diff-filter=D", "--format=%s", "main")


async def test_contents_are_found_without_a_search_after_somebody_was_first(tmp_path, monkeypatch):
    look, searched = StateReader.content_with_id, []

    def look_and_note(self, oid):
        searched.append(oid)
        return look(self, oid)

    monkeypatch.setattr(StateReader, "content_with_id", look_and_note)
    async with a_sync_world(tmp_path, server=Server(), poll_interval_s=3600) as world:
        await connected(world)
        await world.server.write({b"theirs": b"1\n"})
        world.put("ours", "2\n")

        assert await world.stored() == ""

        await until(lambda: level(world) and len(world.tree()) == 2)
        assert blob_id(b"2\n") not in searched
