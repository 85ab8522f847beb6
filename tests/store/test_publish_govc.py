"""Publishing to a real govc server and to git, through the real store process."""

from contextlib import asynccontextmanager

import pytest

from caiafs.core.config import BackendName
from caiafs.link.messages import AdoptRequest
from tests.support.govc_peek import REPO, Peek
from tests.support.store_world import WAIT_S, World, a_world

pytestmark = pytest.mark.govc


def settings(server, **more):
    return {
        "use_govc": True,
        "govc_url": server.url,
        "govc_repo_name": REPO,
        "operation_timeout_s": 10.0,
        "retry_max": 2,
        "breaker_failures": 2,
        "breaker_reset_s": 0.2,
        "poll_interval_s": 0.1,
        **more,
    }


def govc_report(world):
    return world.report.get("backends", {}).get("govc", {})


def in_step(world):
    return lambda: govc_report(world).get("condition") == "ok" and not govc_report(world)["behind"]


async def connected(world):
    await world.wait_for(in_step(world), "govc in step")


async def test_save_is_a_commit_in_govc_and_in_git(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        seq = world.put("notes/todo.txt", "milk\n")

        assert await world.stored() == ""

        assert peek.text("notes/todo.txt") == "milk\n"
        assert world.content("notes/todo.txt") == "milk\n"
        [message] = peek.messages()
        assert message.startswith("Add notes/todo.txt\n")
        assert f"Caiafs-Operation: {world.writer}-{seq}-{seq}\n" in message
        assert f"Caiafs-Change: - {world.tree()[b'notes/todo.txt'].oid} notes/todo.txt" in message
        assert "Caiafs-Change" not in world.messages()[0]


async def test_primary_has_it_before_the_branch_moves(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        for number in range(20):
            world.put("f", f"{number}\n")

        await world.stored()

        assert [m.split("\n")[0] for m in reversed(peek.messages())] == world.subjects()
        await world.wait_for(lambda: govc_report(world)["operations"]["commit"]["count"] == 20)
        assert govc_report(world)["operations"]["commit"]["failure"] == 0


async def test_git_as_primary_is_followed_by_govc(tmp_path, server, peek):
    more = {"primary_backend": BackendName.GIT}
    async with a_world(tmp_path, **settings(server, **more)) as world:
        for number in range(10):
            world.put("f", f"{number}\n")
        assert await world.stored() == ""

        done = await world.sync()

        assert done.left == {"git": 0, "govc": 0}
        assert [m.split("\n")[0] for m in reversed(peek.messages())] == world.subjects()


async def test_everything_that_git_holds_reaches_govc(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        world.put("empty", "")
        world.put("binary", bytes(range(256)))
        world.put("exec", "#!/bin/sh\n", mode=0o100755)
        world.put("link", "exec", mode=0o120000)
        world.put(b"\xff\xfe/name", "odd")
        world.put(".hidden", "dot")
        await world.stored()

        assert (await world.sync()).left == {"git": 0, "govc": 0}

        assert await peek.agrees(world)


async def test_removed_document_is_removed_in_govc(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        world.put("f", "1")
        await world.stored()
        world.remove("f")
        await world.stored()
        await world.sync()

        assert await peek.entries([b"f"]) == {b"f": None}


async def test_without_the_server_git_takes_the_saves_and_health_says_so(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        server.stop()
        world.put("f", "1")

        assert await world.stored() == ""

        assert world.content("f") == "1"
        await world.wait_for(lambda: govc_report(world)["condition"] == "failed")
        assert govc_report(world)["reasons"]
        done = await world.sync(timeout_s=0.3)
        assert done.left["govc"] > 0
        assert done.reasons


async def test_without_fallback_saves_wait_for_the_primary(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server, enable_fallback=False)) as world:
        await connected(world)
        server.stop()
        world.put("f", "1")

        assert await world.stored(timeout_s=1.5) != ""
        assert world.head() is None

        server.start()
        assert await world.stored() == ""
        assert peek.text("f") == "1"


async def test_server_that_comes_back_empty_gets_everything_again(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        for number in range(30):
            world.put(f"d{number % 3}/f{number}", f"{number}")
        await world.stored()
        server.stop()
        world.put("during", "the outage")
        world.remove("d0/f0")
        await world.stored()
        server.start()

        done = await world.sync()

        assert done.left == {"git": 0, "govc": 0}
        assert await peek.agrees(world)
        assert world.agrees()


async def test_hanging_server_is_left_alone_and_caught_up_with(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server, operation_timeout_s=1.0)) as world:
        await connected(world)
        world.put("before", "1")
        await world.stored()
        server.pause()
        for number in range(5):
            world.put("f", f"{number}")
            assert await world.stored() == ""
        await world.wait_for(lambda: govc_report(world)["breaker"] != "closed")
        server.resume()

        assert (await world.sync()).left == {"git": 0, "govc": 0}

        subjects = [m.split("\n")[0] for m in reversed(peek.messages())]
        assert subjects == world.subjects()


async def test_server_that_was_away_at_start_is_filled_when_it_comes(tmp_path, server, peek):
    server.stop()
    async with a_world(tmp_path, **settings(server)) as world:
        world.put("f", "1")
        assert await world.stored() == ""
        server.start()

        assert (await world.sync()).left == {"git": 0, "govc": 0}
        assert peek.text("f") == "1"


async def test_existing_repository_seeds_an_empty_server(tmp_path, server, peek):
    world = World(tmp_path)
    async with world.running():
        for number in range(450):
            world.put(f"d/f{number}", f"{number}")
        await world.stored()
    world.close()

    async with a_world(tmp_path, **settings(server)) as world:
        assert (await world.sync()).left == {"git": 0, "govc": 0}

        assert await peek.agrees(world)


async def test_empty_repository_takes_what_govc_holds(tmp_path, server, peek):
    async with a_world(tmp_path / "first", **settings(server)) as first:
        first.put("a/b", "1")
        first.put("c", "2")
        await first.stored()
        await first.sync()

    async with a_world(tmp_path / "second", writer="feedf00d", **settings(server)) as second:
        await second.wait_for(lambda: len(second.shown) == 2, "both documents")

        assert second.content("a/b") == "1"
        assert second.agrees()


@asynccontextmanager
async def never_met(root, server, *, theirs, ours):
    """Run a mount whose repository holds `ours` on a govc that holds `theirs`, once it says that they never met."""
    async with a_world(root / "first", **settings(server)) as first:
        await connected(first)
        for path, text in theirs.items():
            first.put(path, text)
        assert await first.stored() == ""
        assert (await first.sync()).left == {"git": 0, "govc": 0}
    async with a_world(root / "second", writer="feedf00d") as alone:
        for path, text in ours.items():
            alone.put(path, text)
        assert await alone.stored() == ""
    async with a_world(root / "second", writer="feedf00d", **settings(server)) as second:
        await second.wait_for(
            lambda: any("adopt" in r for r in govc_report(second).get("reasons", []))
        )
        yield second


async def test_two_collections_that_never_met_are_not_mixed(tmp_path, server, peek):
    met = never_met(tmp_path, server, theirs={"theirs": "1"}, ours={"ours": "2"})
    async with met as second:
        second.put("more", "3")
        assert await second.stored() == ""

        assert set(second.tree()) == {b"ours", b"more"}
        assert peek.text("ours") is None


async def test_collections_that_never_met_are_merged_once_somebody_says_so(tmp_path, server, peek):
    theirs = {"theirs": "1", "both": "their words\n"}
    ours = {"ours": "2", "both": "our words\n"}
    async with never_met(tmp_path, server, theirs=theirs, ours=ours) as second:
        done = await second.process.request(AdoptRequest(0, WAIT_S))

        assert done.error == ""
        await second.wait_for(lambda: b"theirs" in second.tree(), "their document")
        assert (await second.sync()).left == {"git": 0, "govc": 0}
        kept = {second.content(path.decode()) for path in second.tree()}
        assert kept == {"1", "2", "our words\n", "their words\n"}
        assert await peek.agrees(second)


async def test_killed_process_makes_no_commit_twice(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        for round_number in range(4):
            for number in range(6):
                world.put("f", f"{round_number} {number}\n")
            world.due()
            before = world.settled_seq
            await world.wait_for(lambda b=before: world.settled_seq > b)
            world.kill()
        await world.stored()
        await world.sync()

        operations = [
            line for m in peek.messages() for line in m.split("\n") if "Operation" in line
        ]
        assert len(operations) == len(set(operations)) == 24
        assert [m.split("\n")[0] for m in reversed(peek.messages())] == world.subjects()
        assert await peek.agrees(world)


async def test_cursor_saves_the_next_start_from_sending_again(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        world.put("f", "1")
        await world.stored()
        await world.sync()
    sent = len(peek.messages())

    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)

    assert len(peek.messages()) == sent


async def test_stop_brings_govc_up_to_date(tmp_path, server, peek):
    world = World(tmp_path, **settings(server, primary_backend=BackendName.GIT))
    async with world.running():
        await connected(world)
        for number in range(20):
            world.put("f", f"{number}")
        world.due()

    assert world.stopped.left == {"git": 0, "govc": 0}
    assert peek.text("f") == "19"
    world.close()


async def test_wrong_address_is_a_reason_and_no_outage_of_saves(tmp_path, govc_servers):
    async with a_world(tmp_path, **settings(govc_servers(), govc_repo_name="not/a/name")) as world:
        world.put("f", "1")

        assert await world.stored() == ""

        await world.wait_for(lambda: "repository name" in str(govc_report(world).get("reasons")))
        assert govc_report(world)["condition"] == "degraded"


async def test_wrong_token_is_a_reason_until_its_file_has_a_right_one(tmp_path, govc_servers):
    server = govc_servers(auth=True)
    token = tmp_path / "token"
    token.write_text("wrong")
    more = {"govc_auth_token_file": token, "govc_auth_token": "wrong"}
    async with a_world(tmp_path, **settings(server, **more)) as world:
        world.put("f", "1")
        assert await world.stored() == ""
        await world.wait_for(lambda: govc_report(world).get("condition") == "degraded")
        assert "wrong" not in str(world.report)

        token.write_text(server.login())

        assert (await world.sync()).left == {"git": 0, "govc": 0}


@pytest.mark.parametrize("form", [("old", "memory"), ("old", "disk"), ("new", "disk")])
async def test_every_form_of_the_server_ends_with_what_git_holds(tmp_path, govc_servers, form):
    architecture, storage = form
    server = govc_servers(architecture=architecture, storage=storage)
    async with a_world(tmp_path, **settings(server)) as world:
        for number in range(60):
            world.put(f"d{number % 5}/f{number % 40}", f"{number}\n")
        world.move("d0", "moved")
        world.remove("d1/f1")
        await world.stored()

        assert (await world.sync()).left == {"git": 0, "govc": 0}

        assert await Peek(server.url).agrees(world)
        assert set((await Peek(server.url).entries([b"d1/f1", b"d0/f0"])).values()) == {None}


async def test_server_restarted_again_and_again_loses_nothing(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        for round_number in range(4):
            for number in range(15):
                world.put(f"d{number}/f", f"{round_number} {number}\n")
            world.due()
            before = world.settled_seq
            await world.wait_for(lambda b=before: world.settled_seq > b)
            server.restart()
        assert await world.stored() == ""

        assert (await world.sync()).left == {"git": 0, "govc": 0}

        assert await peek.agrees(world)
        assert world.agrees()
