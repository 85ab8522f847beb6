"""Each trap of the real server: what it does, and what becomes of it here."""

import contextlib

import pytest
import trio

from caiafs.backends.govc import GovcBackend, GovcSettings, answers
from caiafs.backends.govc.client import GovcClient
from caiafs.backends.govc.reader import Reader
from caiafs.core.errors import Corrupt, DeadlineExceeded, Misconfigured, Unreachable
from caiafs.core.types import DocPath
from tests.govc.test_commits import post
from tests.support.fault_proxy import FaultProxy
from tests.support.govc_documents import Contents, a_change_set
from tests.support.govc_server import free_port

pytestmark = pytest.mark.govc

EXPECTED = {"new": "rest-v2", "old": "rest-v1"}


async def test_the_dialect_is_found_by_behaviour(server, contract_servers, backends):
    real, contract = backends(server), backends(contract_servers())

    assert real.capabilities.implementation == "none"
    assert (await real.connect()).implementation == EXPECTED[server.architecture]
    assert (await contract.connect()).implementation == "contract"


async def test_connecting_again_keeps_what_is_there(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    await backend.commit(a_change_set({b"a": contents.put(b"1")}))

    await backend.connect()

    assert await backend.read(DocPath(b"a")) is not None


async def test_a_restart_is_an_empty_repository_never_an_answer(server, backends, contents):
    backend = backends(server)
    await backend.connect()
    await backend.commit(a_change_set({b"a": contents.put(b"1")}, operation="w-1-1"))

    server.restart()

    with pytest.raises(Unreachable):
        await backend.read(DocPath(b"a"))
    with pytest.raises(Unreachable):
        await backend.head()
    with pytest.raises(Unreachable):
        await backend.listing()
    with pytest.raises(Unreachable):
        await backend.commit(a_change_set({b"a": contents.put(b"1")}, operation="w-2-2"))
    await backend.connect()
    assert await backend.head() is None
    await backend.commit(a_change_set({b"a": contents.put(b"1")}, operation="w-1-1"))
    assert await backend.read(DocPath(b"a")) is not None


async def test_an_answer_mixed_into_another_is_asked_for_again(
    v2_server, backends, contents, nursery
):
    proxy = FaultProxy(v2_server.port)
    await nursery.start(proxy.run)
    backend = backends(v2_server, url=proxy.url)
    await backend.connect()
    first, second = contents.put(b"1"), contents.put(b"2")

    proxy.play("mixed ok mixed ok", on="(GET|POST .*/files)")
    await backend.commit(a_change_set({b"a": first}, operation="w-1-1"))
    await backend.commit(a_change_set({b"b": second}, operation="w-2-2"))

    proxy.play("mixed", on="GET")
    assert await backend.current([DocPath(b"b")]) == {DocPath(b"b"): second}
    assert len(await backend.log(10)) == 2


async def test_a_document_refused_once_by_accident_is_stored(server, backends, contents, nursery):
    proxy = FaultProxy(server.port)
    await nursery.start(proxy.run)
    backend = backends(server, url=proxy.url)
    await backend.connect()
    entry = contents.put(b"1")

    proxy.play("400", on="POST .*/(files|add)$")
    result = await backend.commit(a_change_set({b"a": entry}))

    assert result.refused == ()
    assert await backend.current([DocPath(b"a")]) == {DocPath(b"a"): entry}


async def test_a_commit_of_which_all_was_refused_names_nobody_elses(server, backends, contents):
    other = backends(server)
    await other.connect()
    await other.commit(a_change_set({b"theirs": contents.put(b"1")}, operation="w-1-1"))
    backend = backends(server, max_document_bytes=1)
    await backend.connect()

    result = await backend.commit(a_change_set({b"a": contents.put(b"22")}, operation="w-2-2"))

    assert [path for path, _ in result.refused] == [b"a"]
    assert result.revision is None


def test_only_an_answer_that_tells_of_the_file_is_that_to_staging_it():
    assert answers.is_of_add({"status": "added", "message": "file 'a/b' added"}, "a/b")
    assert answers.is_of_add({}, "a/b")
    assert not answers.is_of_add({"status": "added", "message": "file 'c' added"}, "a/b")
    assert not answers.is_of_add({"hash": "1f", "message": "Add a/b"}, "a/b")


async def test_a_commit_goes_on_while_somebody_connects_anew_in_vain(
    v2_server, backends, contents, nursery
):
    proxy = FaultProxy(v2_server.port)
    await nursery.start(proxy.run)
    backend = backends(v2_server, url=proxy.url)
    await backend.connect()
    change_set = a_change_set({b"a": contents.put(b"1")})

    async def commit():
        with contextlib.suppress(Unreachable):
            await backend.commit(change_set)
        ended.set()

    ended = trio.Event()
    proxy.play("slow", on="GET .*/commits")
    nursery.start_soon(commit)
    await proxy.wait_played()
    proxy.play("503 503 503 503")
    with pytest.raises(Unreachable):
        await backend.connect()
    await ended.wait()

    proxy.play("")
    await backend.connect()
    await backend.commit(change_set)
    assert len(await backend.log(10)) == 1


@pytest.mark.parametrize("other", ["new", "old"])
async def test_a_server_of_the_other_architecture_is_recognised(
    govc_servers, backends, contents, other
):
    server = govc_servers(architecture="old" if other == "new" else "new")
    backend = backends(server)
    await backend.connect()

    server.restart(architecture=other)

    assert (await backend.connect()).implementation == EXPECTED[other]
    await backend.commit(a_change_set({b"a": contents.put(b"1")}))
    assert await backend.read(DocPath(b"a")) is not None


async def test_four_writers_at_once_lose_nothing(v1_server, backends, contents):
    # Not on v2: two commits at once end that server's process (unsynchronised maps), see the turns below.
    clients = [backends(v1_server) for _ in range(4)]
    for client in clients:
        await client.connect()
    entries = {
        b"c%d/%d" % (i, s): contents.put(b"%d.%d" % (i, s)) for i in range(4) for s in range(10)
    }

    async def write(index: int) -> None:
        for step in range(10):
            name = b"c%d/%d" % (index, step)
            await clients[index].commit(
                a_change_set({name: entries[name]}, operation=f"w{index}-{step}-1")
            )

    async with trio.open_nursery() as nursery:
        for index in range(4):
            nursery.start_soon(write, index)

    assert await clients[0].current(list(map(DocPath, entries))) == entries
    messages = "".join(revision.message for revision in await clients[0].log(200))
    assert messages.count("Caiafs-Operation") == 40


async def test_files_taken_along_by_another_commit_are_committed_all_the_same(
    server, backends, contents
):
    one, other = backends(server), backends(server)
    await one.connect()
    await other.connect()
    first, second = contents.put(b"1"), contents.put(b"2")
    read = contents.read

    async def commit_of_the_other_in_between(oid):
        # By then the other's commit takes along what was staged here.
        if oid == second.oid:
            contents.read = read
            await other.commit(a_change_set({b"theirs": contents.put(b"3")}, operation="other-1-1"))
        return await read(oid)

    contents.read = commit_of_the_other_in_between

    result = await one.commit(a_change_set({b"a": first, b"b": second}, operation="one-1-1"))

    held = await one.current([DocPath(b"a"), DocPath(b"b")])
    assert list(held.values()) == [first, second]
    newest, before = await one.log(9)
    assert newest.id == result.revision
    assert "one-1-1" in newest.message
    assert "other-1-1" in before.message


async def test_nothing_to_commit_is_answered_by_looking(v2_server, backends, contents, monkeypatch):
    backend = backends(v2_server)
    await backend.connect()
    entries = {b"a": contents.put(b"1"), b"b": None}
    send = GovcClient.send
    swept: list[object] = []

    async def sweep_first(client, request):
        # Another client commits between our last file and our commit.
        if request.operation == "commit" and not swept:
            fields = {"message": "theirs", "author": "x", "email": "x@y.z"}
            swept.append(post(v2_server, "/api/v2/repos/docs/commits", fields))
        return await send(client, request)

    monkeypatch.setattr(GovcClient, "send", sweep_first)

    result = await backend.commit(a_change_set(entries, operation="w-1-1"))

    newest, before = await backend.log(9)
    assert before.message == "theirs"
    assert newest.id == result.revision
    assert "Caiafs-Operation: w-1-1" in newest.message
    assert await backend.current([DocPath(b"a"), DocPath(b"b")]) == entries


async def test_a_commit_that_the_server_dropped_from_its_log_is_made_again(
    v2_server, backends, contents, monkeypatch
):
    backend = backends(v2_server)
    await backend.connect()
    real_log = Reader.log
    asked = []

    async def log_without_the_first(reader, limit):
        revisions = await real_log(reader, limit)
        asked.append(limit)
        # The look-back before the first commit, then the look after it.
        return revisions[1:] if len(asked) == 2 else revisions

    monkeypatch.setattr(Reader, "log", log_without_the_first)

    result = await backend.commit(a_change_set({b"a": contents.put(b"1")}, operation="w-1-1"))

    revisions = await backend.log(9)
    assert [r.message.count("w-1-1") for r in revisions] == [1, 1]
    assert revisions[0].id == result.revision


async def test_a_log_spoilt_by_a_foreign_author_is_read_as_far_as_possible(
    govc_servers, backends, contents
):
    server = govc_servers(storage="disk")
    backend = backends(server)
    await backend.connect()
    post(server, "/api/v2/repos/docs/files", {"path": "x", "content": "x"})
    post(
        server,
        "/api/v2/repos/docs/commits",
        {"message": "m", "author": "x\n", "email": "x@y.z"},
    )
    for n in range(3):
        await backend.commit(a_change_set({b"a": contents.put(b"%d" % n)}, operation=f"w-{n}-1"))

    revisions = await backend.log(100)

    assert 1 <= len(revisions) <= 3
    assert "w-2-1" in revisions[0].message


async def test_a_newest_commit_that_cannot_be_read_is_said_and_heals_with_the_next(
    govc_servers, backends, contents
):
    server = govc_servers(storage="disk")
    backend = backends(server)
    await backend.connect()
    post(server, "/api/v2/repos/docs/files", {"path": "x", "content": "x"})
    fields = {"message": "m", "author": "x\n", "email": "x@y.z"}
    post(server, "/api/v2/repos/docs/commits", fields)

    with pytest.raises(Corrupt):
        await backend.head()
    await backend.connect()
    result = await backend.commit(a_change_set({b"a": contents.put(b"1")}))

    assert await backend.head() == result.revision


async def test_health_is_a_hint(any_server, backends):
    backend = backends(any_server)

    assert await backend.health() == "not connected"
    await backend.connect()
    assert (await backend.health()).startswith(("healthy", "degraded", "unhealthy"))


async def test_a_server_that_is_not_there_is_unreachable(contents):
    backend = GovcBackend(GovcSettings(f"http://127.0.0.1:{free_port()}"), contents)

    with pytest.raises(Unreachable) as caught:
        await backend.connect()

    assert not isinstance(caught.value, DeadlineExceeded)
    await backend.aclose()
    await backend.aclose()


@pytest.mark.slow
async def test_a_server_that_hangs_exceeds_its_deadline(server, backends, contents):
    backend = backends(server, operation_timeout_s=0.3)
    await backend.connect()
    server.pause()

    with pytest.raises(DeadlineExceeded):
        await backend.commit(a_change_set({b"a": contents.put(b"1")}))
    server.resume()
    await backend.connect()
    await backend.commit(a_change_set({b"a": contents.put(b"1")}))

    operations = [r.message for r in await backend.log(9) if "0badcafe-1-1" in r.message]
    assert len(operations) == 1


async def test_a_repository_name_the_server_refuses_is_told_before_anything_is_sent():
    backend = GovcBackend(GovcSettings("http://127.0.0.1:1", repo_name="a b"), Contents())

    with pytest.raises(Misconfigured, match="1 to 64 letters"):
        await backend.connect()


async def test_v2_shows_what_is_staged_before_any_commit(v2_server, backends, contents):
    backend = backends(v2_server)
    await backend.connect()
    post(v2_server, "/api/v2/repos/docs/files", {"path": "staged", "content": "theirs"})

    seen = await backend.read(DocPath(b"staged"))
    head = await backend.head()

    assert seen is not None
    assert seen.content == b"theirs"
    assert head is None
