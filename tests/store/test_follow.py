"""What others do to govc and to the branch arrives in the mount, and nothing of ours is lost for it."""

from contextlib import asynccontextmanager

import pytest

from caiafs.link.messages import FetchRequest
from tests.store.test_publish_govc import connected, settings
from tests.support.store_world import World, a_world

pytestmark = pytest.mark.govc

IDENTITY = ("-c", "user.name=E", "-c", "user.email=e@example.org")


async def arrives(world, path, text):
    await world.wait_for(lambda: path.encode() in world.shown and world.content(path) == text, path)


@asynccontextmanager
async def two_worlds(root, server):
    """Run two mounts, both in step with the server."""
    async with (
        a_world(root / "one", **settings(server)) as one,
        a_world(root / "two", writer="feedf00d", **settings(server)) as two,
    ):
        await connected(one)
        await connected(two)
        yield one, two


@asynccontextmanager
async def edited_elsewhere(root, server, peek, path, *, base, theirs):
    """Run a mount that knows `base` in both stores, while another client wrote `theirs` since; polls don't tell it."""
    async with a_world(root, **settings(server, poll_interval_s=3600)) as world:
        await connected(world)
        world.put(path, base)
        assert await world.stored() == ""
        assert (await world.sync()).left == {"git": 0, "govc": 0}
        peek.write({path: theirs})
        yield world


async def test_another_clients_edit_of_a_known_document_arrives(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        world.put("d/f", "ours\n")
        await world.stored()
        await world.sync()

        peek.write({"d/f": "theirs\n"}, "Edit elsewhere")

        await arrives(world, "d/f", "theirs\n")
        await world.wait_for(world.agrees, "the mount to agree")
        assert world.subjects()[-1] == "Edit elsewhere"
        assert world.git("log", "-1", "--format=%an <%ae>", "main").strip() == (
            "Other <other@example.org>"
        )


async def test_another_clients_new_document_arrives_where_it_is_listed(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)

        peek.write({"new.txt": "hello\n"})

        await arrives(world, "new.txt", "hello\n")


async def test_new_document_that_the_server_does_not_list_is_fetched_by_name(
    tmp_path, server, peek
):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        peek.write({"deep/er/f": "1\n"})

        done = await world.process.request(FetchRequest(0, ("deep/er/f", "nowhere")))

        assert (done.found, done.missing, done.error) == (("deep/er/f",), ("nowhere",), "")
        await arrives(world, "deep/er/f", "1\n")


async def test_another_mounts_changes_arrive_at_any_depth(tmp_path, server):
    async with two_worlds(tmp_path, server) as (one, two):
        one.put("a/b/c", "1\n")
        one.put("gone", "x\n")
        await one.stored()
        await arrives(two, "a/b/c", "1\n")

        one.move("a/b", "moved")
        one.remove("gone")
        await one.stored()

        await two.wait_for(lambda: set(two.shown) == {b"moved/c"}, "the rename")
        assert two.agrees()


async def test_saves_to_different_documents_meet_without_conflict(tmp_path, server):
    async with two_worlds(tmp_path, server) as (one, two):
        for number in range(10):
            one.put(f"one/{number}", f"{number}")
            two.put(f"two/{number}", f"{number}")
            one.due()
            two.due()
        await one.stored()
        await two.stored()

        everything = {f"{who}/{n}".encode() for who in ("one", "two") for n in range(10)}
        await one.wait_for(lambda: set(one.shown) == everything, "two's in one")
        await two.wait_for(lambda: set(two.shown) == everything, "one's in two")
        assert one.agrees()
        assert two.agrees()


async def test_edits_of_different_lines_merge(tmp_path, server, peek):
    base, theirs = "1\n2\n3\n4\n5\n", "one\n2\n3\n4\n5\n"
    async with edited_elsewhere(tmp_path, server, peek, "f", base=base, theirs=theirs) as world:
        world.put("f", "1\n2\n3\n4\nfive\n")

        assert await world.stored() == ""

        assert world.content("f") == "one\n2\n3\n4\nfive\n"
        await world.wait_for(world.agrees, "the mount to agree")
        await world.sync()
        assert peek.text("f") == "one\n2\n3\n4\nfive\n"


async def test_edits_of_the_same_line_are_both_kept(tmp_path, server, peek):
    edited = edited_elsewhere(tmp_path, server, peek, "f.txt", base="base\n", theirs="theirs\n")
    async with edited as world:
        world.put("f.txt", "ours\n")

        assert await world.stored() == ""

        assert world.content("f.txt") == "ours\n"
        [copy] = [path for path in world.tree() if path.startswith(b"f.conflict-")]
        assert world.content(copy.decode()) == "theirs\n"
        await world.wait_for(world.agrees, "the mount to agree")
        await world.sync()
        assert peek.text("f.txt") == "ours\n"
        assert peek.text(copy.decode()) == "theirs\n"
        await world.wait_for(lambda: world.report["conflicts"] == 1)


async def test_an_edit_survives_our_deletion(tmp_path, server, peek):
    edited = edited_elsewhere(tmp_path, server, peek, "f", base="base\n", theirs="edited\n")
    async with edited as world:
        world.remove("f")

        assert await world.stored() == ""

        assert world.content("f") == "edited\n"
        await world.wait_for(world.agrees, "the mount to agree")


async def test_edit_during_an_outage_meets_ours(tmp_path, server, peek):
    # The other client writes before the mount has found the server again.
    slow = settings(server, operation_timeout_s=1.0, breaker_reset_s=4.0)
    async with a_world(tmp_path, **slow) as world:
        world.put("both", "1\n2\n3\n")
        world.put("mine", "1\n")
        world.put("yours", "1\n")
        await world.stored()
        await world.sync()
        server.pause()
        world.put("both", "1\n2\nours\n")
        world.put("mine", "2\n")
        await world.stored()
        await world.wait_for(
            lambda: world.report["backends"]["govc"]["condition"] == "failed", "the outage"
        )
        server.resume()
        peek.write({"both": "theirs\n2\n3\n", "yours": "2\n"})

        assert (await world.sync()).left == {"git": 0, "govc": 0}

        await arrives(world, "yours", "2\n")
        assert (await world.sync()).left == {"git": 0, "govc": 0}
        assert world.content("both") == "theirs\n2\nours\n"
        assert world.content("mine") == "2\n"
        assert await peek.agrees(world)
        await world.wait_for(world.agrees, "the mount to agree")


async def test_push_is_sent_to_govc(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        world.put("f", "1\n")
        await world.stored()
        await world.sync()

        world.push({"pushed": "2\n"}, message="Pushed by hand")

        await arrives(world, "pushed", "2\n")
        await world.sync()
        assert peek.text("pushed") == "2\n"
        assert peek.messages()[0].startswith("Pushed by hand")


async def test_rewound_branch_keeps_what_was_published(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "1\n")
        await world.stored()
        first = world.head()
        world.put("g", "2\n")
        await world.stored()
        second = world.head()

        world.git("update-ref", "refs/heads/main", first)
        world.put("h", "3\n")
        await world.stored()

        assert set(world.tree()) == {b"f", b"g", b"h"}
        assert second in world.git("rev-list", "--all")
        assert world.agrees()


async def test_diverged_push_is_merged(tmp_path):
    world = World(tmp_path, author_domain="desk.example.org")
    async with world.running():
        world.put("f", "1\n2\n3\n4\n")
        await world.stored()
        base = world.head()
        world.push({"f": "one\n2\n3\n4\n", "theirs": "x\n"})
        await arrives(world, "theirs", "x\n")
        pushed = world.head()
        world.git("update-ref", "refs/heads/main", base)
        await world.wait_for(lambda: world.head() != base)
        assert pushed in world.git("rev-list", "main")

        blob = world.git("hash-object", "-w", "--stdin", data=b"1\n2\n3\nfour\n").strip()
        tree = world.git("mktree", data=f"100644 blob {blob}\tf\n".encode()).strip()
        rewritten = world.git(*IDENTITY, "commit-tree", tree, "-p", base, "-m", "x").strip()
        world.git("update-ref", "refs/heads/main", rewritten)

        await arrives(world, "f", "one\n2\n3\nfour\n")
        assert set(world.tree()) == {b"f", b"theirs"}
        await world.wait_for(world.agrees, "the mount to agree")
        history = world.git("rev-list", "main")
        assert rewritten in history
        assert pushed in history
        assert world.git("log", "-1", "--format=%ae", "main").endswith("@desk.example.org\n")
    world.close()


async def test_push_that_cannot_be_read_yet_arrives_once_it_can(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "ours\n")
        assert await world.stored() == ""
        blob = world.git("hash-object", "-w", "--stdin", data=b"theirs\n").strip()
        folder = world.git("mktree", data=f"100644 blob {blob}\tg\n".encode()).strip()
        ours = world.git("ls-tree", "main")
        tree = world.git("mktree", data=f"{ours}040000 tree {folder}\td\n".encode()).strip()
        pushed = world.git(*IDENTITY, "commit-tree", tree, "-p", "main", "-m", "x").strip()
        hidden = world.repo / "objects" / folder[:2] / folder[2:]
        hidden.rename(tmp_path / "hidden")

        world.git("update-ref", "refs/heads/main", pushed)
        log = world.state_dir / "log.store"
        await world.wait_for(
            lambda: log.exists() and folder in log.read_text(), "the log to say so"
        )
        (tmp_path / "hidden").rename(hidden)

        await arrives(world, "d/g", "theirs\n")
        await world.wait_for(world.agrees, "the mount to agree")


async def test_merge_that_a_dead_mount_did_not_hear_of_is_told_to_the_next(tmp_path):
    world = World(tmp_path, poll_interval_s=60)
    async with world.running():
        world.put("f", "1\n2\n3\n4\n5\n")
        world.put("g", "1\n")
        await world.stored()
        await world.wait_for(lambda: world.settled_seq == 2)
        world.push({"f": "one\n2\n3\n4\n5\n"})
        world.deaf = True
        world.put("f", "1\n2\n3\n4\nfive\n")
        world.put("g", "2\n")
        await world.stored()
    world.deaf = False
    assert world.settled_seq == 2

    async with world.running():
        await world.wait_for(world.agrees, "the mount to agree")

    assert world.content("f") == "one\n2\n3\n4\nfive\n"
    assert world.settled_seq == 4
    world.close()
