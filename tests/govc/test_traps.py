"""Each trap of the real server: what it does, and what becomes of it here."""

import pytest
import trio

from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.errors import DeadlineExceeded, Misconfigured, Unreachable
from caiafs.core.types import DocPath
from tests.govc.test_commits import post
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


async def test_files_taken_along_by_another_client_are_not_lost(server, backends, contents):
    entries = [contents.put(b"%d" % n) for n in range(40)]
    clients = [backends(server) for _ in range(4)]
    for client in clients:
        await client.connect()

    async def write(index: int) -> None:
        for step in range(10):
            name = b"c%d/%d" % (index, step)
            result = await clients[index].commit(
                a_change_set({name: entries[index * 10 + step]}, operation=f"w{index}-{step}-1")
            )
            assert result.refused == ()

    async with trio.open_nursery() as nursery:
        for index in range(4):
            nursery.start_soon(write, index)

    paths = [DocPath(b"c%d/%d" % (i, s)) for i in range(4) for s in range(10)]
    assert list((await clients[0].current(paths)).values()) == entries
    messages = "".join(revision.message for revision in await clients[0].log(200))
    for index in range(4):
        for step in range(10):
            assert f"Caiafs-Operation: w{index}-{step}-1\n" in messages


async def test_nothing_to_commit_is_answered_by_looking(v2_server, backends, contents):
    backend = backends(v2_server)
    await backend.connect()
    entry = contents.put(b"1")
    read = contents.read

    async def read_and_let_others_commit(oid):
        # The second file's content is asked for after the first was staged.
        if oid != entry.oid:
            post(
                v2_server,
                "/api/v2/repos/docs/commits",
                {"message": "theirs", "author": "x", "email": "x@y.z"},
            )
        return await read(oid)

    post(v2_server, "/api/v2/repos/docs/files", {"path": "theirs", "content": "x"})
    contents.read = read_and_let_others_commit

    result = await backend.commit(
        a_change_set({b"a": entry, b"b": contents.put(b"2")}, operation="w-1-1")
    )

    assert result.revision == await backend.head()
    assert set((await backend.current([DocPath(b"a"), DocPath(b"b")])).values()) >= {entry}


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
