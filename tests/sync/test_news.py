"""The mount is told what it cannot know: what it did before it heard of others, and what they did before they heard of it."""

import functools
from contextlib import closing

import pytest
import trio

from caiafs.core.types import blob_id
from caiafs.link.messages import Changes
from caiafs.store.trailers import named_conflicts
from caiafs.sync import assembly
from caiafs.sync.published import Published
from tests.support.store_world import WAIT_S
from tests.support.sync_world import Server, SyncWorld, a_sync_world

a_deaf_world = functools.partial(a_sync_world, poll_interval_s=3600)
"""A world that hears of pushes only when it publishes."""


async def level(world):
    with trio.fail_after(WAIT_S):
        while not world.agrees():  # noqa: ASYNC110  # several messages end this
            await trio.sleep(0.01)
    world.check()


async def test_document_that_came_into_a_directory_renamed_meanwhile_shows_at_its_new_path_only(
    tmp_path,
):
    async with a_deaf_world(tmp_path) as world:
        world.put("d/f", "1\n")
        await world.stored()
        world.push({"d/e/copy": "theirs\n"})
        world.move("d", "b")

        await world.stored()
        await level(world)

        assert set(world.shown) == {b"b/f", b"b/e/copy"}


async def test_document_that_was_deleted_from_a_directory_renamed_meanwhile_goes_there_too(
    tmp_path,
):
    async with a_deaf_world(tmp_path) as world:
        world.put("d/f", "1\n")
        world.put("d/g", "2\n")
        await world.stored()
        world.push({}, remove=["d/g"])
        world.move("d", "b")

        await world.stored()
        await level(world)

        assert set(world.shown) == {b"b/f"}


@pytest.mark.parametrize("in_one_group", [True, False])
async def test_document_that_went_beside_a_directory_goes_there_in_a_renamed_parent_too(
    tmp_path, in_one_group
):
    async with a_deaf_world(tmp_path) as world:
        world.put("d/f", "1\n")
        await world.stored()
        world.push({"d/e/a": "theirs\n"})
        seq = world.put("d/e", "ours\n")
        if in_one_group:
            world.move("d", "b")
        else:
            world.at["before Changes"] = lambda: world.move("d", "b")
            await world.stored(seq)

        await world.stored()
        await level(world)

        copies = {name for name in world.shown if name.startswith(b"b/e.conflict-")}
        assert len(copies) == 1
        assert set(world.shown) == {b"b/f", b"b/e/a", *copies}


async def test_directory_is_removed_with_what_came_by_a_push_that_was_seen(tmp_path):
    async with a_sync_world(tmp_path) as world:
        world.put("d/f", "1\n")
        await world.stored()
        world.push({"d/new": "theirs\n"})
        await world.wait_for(lambda: b"d/new" in world.shown, "the push")

        world.remove("d")
        await world.stored()
        await level(world)

        assert set(world.shown) == set()


async def test_document_that_came_unseen_outlives_the_removal_of_its_directory(tmp_path):
    async with a_deaf_world(tmp_path) as world:
        world.put("d/f", "1\n")
        await world.stored()
        world.push({"d/new": "theirs\n"})

        world.remove("d")
        await world.stored()
        await level(world)

        assert set(world.shown) == {b"d/new"}


async def test_edit_that_meets_a_rename_follows_it(tmp_path):
    async with a_deaf_world(tmp_path) as world:
        world.put("f", "1\n")
        await world.stored()
        world.push({"g": "1\n"}, remove=["f"])

        world.put("f", "edited\n")
        await world.stored()
        await level(world)

        assert set(world.shown) == {b"g"}
        assert world.content("g") == "edited\n"


async def test_rename_right_after_a_save_that_was_merged_shows_the_merge(tmp_path):
    base = "1\n2\n3\n4\n5\n"
    async with a_deaf_world(tmp_path) as world:
        world.put("f", base)
        await world.stored()
        world.push({"f": base.replace("1", "theirs")})
        world.put("f", base.replace("5", "ours"))
        world.deaf = False
        seq = world.last_seq
        world.at["before Changes"] = lambda: world.move("f", "g")

        await world.stored(seq)
        await world.stored()
        await level(world)

        assert world.content("g") == "theirs\n2\n3\n4\nours\n"


@pytest.mark.parametrize("goes_to", ["b", None])
async def test_name_that_both_took_stays_free_when_ours_left_it_before_theirs_was_heard_of(
    tmp_path, goes_to
):
    async with a_deaf_world(tmp_path) as world:
        world.put("f", "1\n")
        await world.stored()
        world.push({"a": "theirs\n"})
        world.put("a", "ours\n")
        world.deaf = False
        seq = world.last_seq
        world.at["before Changes"] = lambda: (
            world.move("a", goes_to) if goes_to else world.remove("a")
        )

        await world.stored(seq)
        await world.stored()
        await level(world)

        assert b"a" not in world.shown
        assert goes_to is None or world.content(goes_to) == "ours\n"


async def test_seen_changes_are_forgotten(tmp_path, monkeypatch):
    made = []

    class Kept(Published):
        def __init__(self, *parts):
            super().__init__(*parts)
            made.append(self)

    monkeypatch.setattr(assembly, "Published", Kept)
    async with a_sync_world(tmp_path) as world:
        world.push({f"d/{i}": "theirs\n" for i in range(20)})
        await world.wait_for(lambda: b"d/7" in world.shown, "the push")
        world.put("f", "1\n")
        await world.stored()

        with trio.fail_after(WAIT_S):
            while len(made[0].unseen):  # noqa: ASYNC110  # the mount's answer ends this
                await trio.sleep(0.01)


async def test_both_versions_of_a_merge_are_in_the_history(tmp_path):
    base = "1\n2\n3\n4\n5\n"
    ours, theirs = base.replace("5", "ours"), base.replace("1", "theirs")
    async with a_deaf_world(tmp_path) as world:
        world.put("f", base)
        await world.stored()
        world.push({"f": theirs})
        world.put("f", ours)

        await world.stored()
        await level(world)

        assert world.content("f") == "theirs\n2\n3\n4\nours\n"
        assert {blob_id(text.encode()) for text in (base, ours, theirs)} <= world.history()
        assert "Update f, before a merge" in world.subjects()


async def test_version_of_another_client_that_was_merged_is_in_the_history(tmp_path):
    base = "1\n2\n3\n4\n5\n"
    ours, theirs = base.replace("5", "ours"), base.replace("1", "theirs")
    server = Server()
    async with a_sync_world(tmp_path, server=server) as world:
        world.put("f", base)
        await world.stored()
        await world.sync()
        server.up = False
        world.put("f", ours)
        await world.stored()
        await server.write({b"f": theirs.encode()})
        server.up = True

        with trio.fail_after(WAIT_S):
            while server.tree.get(b"f", (0, ""))[1] != world.shown[b"f"].oid:  # noqa: ASYNC110
                await trio.sleep(0.05)

        assert world.content("f") == "theirs\n2\n3\n4\nours\n"
        assert blob_id(theirs.encode()) in world.history()


async def test_conflict_that_catching_up_found_is_named_in_govc_too(tmp_path):
    server = Server()
    async with a_sync_world(tmp_path, server=server) as world:
        world.put("f", "base\n")
        await world.stored()
        await world.sync()
        server.up = False
        world.put("f", "ours\n")
        await world.stored()
        await server.write({b"f": b"theirs\n"})
        server.up = True

        with trio.fail_after(WAIT_S):
            while len(server.tree) < 2:  # noqa: ASYNC110
                await trio.sleep(0.05)

        texts = [revision.message for revision, _, _ in server.store.commits]
        found = [conflict for text in texts for conflict in named_conflicts(text)]
        assert [(c.path, c.kept, c.beside) for c in found] == [
            (b"f", blob_id(b"ours\n"), blob_id(b"theirs\n"))
        ]
        assert found[0].base == blob_id(b"base\n")


@pytest.mark.parametrize(
    "step", ["after Ready", "before Settled", "after Settled", "before Current"]
)
async def test_what_was_published_before_one_death_is_no_news_after_a_second(tmp_path, step):
    with closing(SyncWorld(tmp_path)) as world:

        def die():
            world.die_at = world.steps

        async with world.running():
            world.put("d/f", "1\n")
            await world.stored()
            world.put("d/g", "2\n")
            world.at["before Settled"] = die
            world.due()
            await world.until_dead()
        world.at[step] = die
        async with world.running():
            await world.until_dead()
        world.at.clear()
        world.events.clear()

        async with world.running():
            await world.wait_for(lambda: world.settled_seq == world.last_seq, "all is settled")

        assert not [event for event in world.events if isinstance(event, Changes)]
        assert world.known_commit == world.head()
        world.check()


async def test_branch_that_had_no_commit_when_it_was_mounted_first_shows_what_was_pushed_since(
    tmp_path,
):
    with closing(SyncWorld(tmp_path)) as world:
        async with world.running():
            assert world.shown == {}
        world.push({"f": "theirs\n"})

        async with world.running():
            await world.wait_for(lambda: b"f" in world.shown, "the push")
            await level(world)
