"""Commits, logs, listings and diffs on a real server, in every dialect."""

import contextlib
import json
import urllib.request

import pytest
import trio

from caiafs.backends.govc import reader
from caiafs.core.errors import Corrupt
from caiafs.core.types import DocPath, GitMode, Signature
from tests.support.govc_documents import ADA, a_change_set

pytestmark = pytest.mark.govc


def post(server, target, fields):
    """Send what another client of govc would."""
    request = urllib.request.Request(
        server.url + target,
        data=json.dumps(fields).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


async def test_a_commit_shows_in_the_log_with_its_provenance(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    first = a_change_set({b"a": contents.put(b"1")}, operation="w-1-1", message="Add a")
    second = a_change_set({b"a": contents.put(b"2")}, operation="w-2-2", message="Ändere € a")

    one = await backend.commit(first)
    two = await backend.commit(second)

    newest, before = await backend.log(10)
    assert (newest.id, before.id) == (two.revision, one.revision)
    assert (newest.message, before.message) == (second.message, first.message)
    assert (newest.author_name, newest.author_email) == (ADA.name, ADA.email)
    assert newest.parent == before.id
    assert newest.time_ns > 1_600_000_000 * 10**9
    assert await backend.head() == newest.id
    assert len(await backend.log(1)) == 1


async def test_an_empty_repository_has_no_head(any_server, backends):
    backend = backends(any_server)
    await backend.connect()

    assert await backend.head() is None
    assert await backend.log(5) == ()
    assert (await backend.listing()).entries == {}


async def test_the_same_operation_is_committed_once(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    change_set = a_change_set({b"a": contents.put(b"1")})

    one = await backend.commit(change_set)
    two = await backend.commit(change_set)

    assert one.revision == two.revision
    assert len(await backend.log(10)) == 1


async def test_an_operation_of_an_earlier_process_is_found(any_server, backends, contents):
    change_set = a_change_set({b"a": contents.put(b"1")})
    earlier, later = backends(any_server), backends(any_server)
    await earlier.connect()
    await earlier.commit(change_set)
    await later.connect()

    await later.commit(change_set)

    assert len(await later.log(10)) == 1


async def test_a_commit_cancelled_anywhere_is_finished_by_the_next_try(
    any_server, backends, contents
):
    backend = backends(any_server)
    await backend.connect()
    entries = {b"d/%d" % n: contents.put(b"%d" % n) for n in range(12)}
    change_set = a_change_set(entries)

    for wait_ms in (0, 1, 2, 4, 8, 16):
        with trio.move_on_after(wait_ms / 1000):
            await backend.commit(change_set)
    # The real server may mix an answer that nobody waited for into this one.
    with contextlib.suppress(Corrupt):
        await backend.commit(change_set)
    await backend.commit(change_set)

    assert await backend.current(list(map(DocPath, entries))) == entries
    made = await backend.log(10)
    assert {revision.message for revision in made} == {made[0].message}
    # It may also be at work on a request that was given up while the log does not show that yet: no client can prevent that.
    assert len(made) == 1 or (backend.capabilities.implementation != "contract" and len(made) == 2)


async def test_an_author_the_server_would_refuse_is_made_acceptable(server, backends, contents):
    backend = backends(server)
    await backend.connect()
    author = Signature("Ada\n<x>", "no address", 0)

    await backend.commit(a_change_set({b"a": contents.put(b"1")}, author=author))

    (newest,) = await backend.log(5)
    assert newest.author_name.split() == ["Ada", "x"]
    assert newest.author_email == "no-address@caiafs.invalid"


async def test_a_message_of_any_length_and_alphabet_is_taken(server, backends, contents):
    backend = backends(server)
    await backend.connect()

    await backend.commit(
        a_change_set({b"a": contents.put(b"1")}, operation="w-1-1", message="\0é\x7f" * 40_000)
    )
    await backend.commit(a_change_set({b"a": contents.put(b"2")}, operation="w-2-2", message=" "))

    assert len(await backend.log(5)) == 2
    again = await backend.commit(
        a_change_set({b"a": contents.put(b"1")}, operation="w-1-1", message="x")
    )
    assert again.revision == (await backend.log(5))[1].id


async def test_a_complete_listing_shows_documents_as_they_are(
    govc_servers, contract_servers, backends, contents
):
    entries = {
        b"a/text": contents.put(b"1"),
        b"a/run": contents.put(b"#!", GitMode.EXECUTABLE),
        b".hidden": contents.put(b""),
        b"caf\xe9": contents.put(b"\xff"),
        b"/".join([b"d" * 255] * 15): contents.put(b"deep"),
        b"big": contents.put(b"\xff" * 11_000_000),
        b"gone": contents.put(b"x"),
    }
    for server in (govc_servers(architecture="old"), contract_servers()):
        backend = backends(server)
        await backend.connect()
        await backend.commit(a_change_set(entries, operation="w-1-1"))
        await backend.commit(a_change_set({b"gone": None}, operation="w-2-2"))

        listing = await backend.listing()

        assert listing.complete
        assert listing.revision == await backend.head()
        assert listing.entries == {p: e for p, e in entries.items() if p != b"gone"}
        assert backend.documents == len(entries) - 1


async def test_a_v2_listing_is_the_first_level_and_says_so(v2_server, backends, contents):
    backend = backends(v2_server)
    capabilities = await backend.connect()
    entry = contents.put(b"1", GitMode.EXECUTABLE)
    await backend.commit(a_change_set({b"top": entry, b"a/b": entry}, operation="w-1-1"))
    await backend.commit(a_change_set({b"dead": entry}, operation="w-2-2"))
    await backend.commit(a_change_set({b"dead": None}, operation="w-3-3"))

    listing = await backend.listing()

    assert not capabilities.lists
    assert not listing.complete
    assert listing.entries == {b"top": entry}


async def test_a_listing_too_long_to_read_names_documents_without_their_ids(
    govc_servers, backends, contents, monkeypatch
):
    monkeypatch.setattr(reader, "LISTING_READS", 1)
    backend = backends(govc_servers(architecture="old"))
    await backend.connect()
    await backend.commit(a_change_set({b"a": contents.put(b"1"), b"b": contents.put(b"2")}))

    listing = await backend.listing()

    assert listing.complete
    assert {path: entry.oid for path, entry in listing.entries.items()} == {b"a": "", b"b": ""}


async def test_names_that_no_file_can_have_cost_only_themselves(
    v1_server, backends, contents, caplog
):
    backend = backends(v1_server)
    await backend.connect()
    for name in ("../../etc/passwd", "/abs", "a//b", "n" * 300, "caiafs-escaped/%zz"):
        post(v1_server, "/api/v1/repos/docs/add", {"path": name, "content": "evil"})
    entry = contents.put(b"1")

    await backend.commit(a_change_set({b"good": entry}))

    assert (await backend.listing()).entries == {b"good": entry}
    assert "/abs" in caplog.text


async def test_a_damaged_envelope_of_somebody_else_costs_only_itself(
    v1_server, backends, contents, caplog
):
    backend = backends(v1_server)
    await backend.connect()
    bad = '{"caiafs-envelope":1,"blob":"?"}'
    post(v1_server, "/api/v1/repos/docs/add", {"path": "bad", "content": bad})
    post(v1_server, "/api/v1/repos/docs/add", {"path": "caiafs-long/" + "0" * 64, "content": bad})
    entry = contents.put(b"1")
    await backend.commit(a_change_set({b"good": entry}))

    listing = await backend.listing()
    current = await backend.current([DocPath(b"bad"), DocPath(b"good")])

    assert {path: e.oid for path, e in listing.entries.items()} == {b"good": entry.oid, b"bad": ""}
    assert not current[DocPath(b"bad")].same_content(entry)
    assert "bad" in caplog.text


async def test_v1_says_which_paths_differ(v1_server, backends, contents):
    backend = backends(v1_server)
    await backend.connect()
    long = b"/".join([b"d" * 255] * 15)
    base = {b"same": contents.put(b"0"), b"old": contents.put(b"1"), b".x": contents.put(b"")}
    one = (await backend.commit(a_change_set(base, operation="w-1-1"))).revision
    step = {b"old": None, b"new\xff": contents.put(b"2"), b".x": contents.put(b"3")}
    step[long] = contents.put(b"4")
    two = (await backend.commit(a_change_set(step, operation="w-2-2"))).revision

    assert one is not None
    assert two is not None
    assert await backend.changed_paths(one, two) == set(step)
    assert await backend.changed_paths(two, two) == frozenset()
    assert await backend.changed_paths("0" * 40, two) is None


async def test_a_server_without_diff_says_that_it_cannot_say(v2_server, backends, contents):
    backend = backends(v2_server)
    await backend.connect()
    one = (await backend.commit(a_change_set({b"a": contents.put(b"1")}))).revision

    assert await backend.changed_paths("0" * 40, one) is None


async def test_a_large_change_set_reaches_a_contract_service_in_bounded_requests(
    contract_servers, backends, contents
):
    backend = backends(contract_servers(max_request=200_000))
    await backend.connect()
    entries = {b"f/%d" % n: contents.put(b"%d" % n * 10_000) for n in range(60)}
    entries[b"big"] = contents.put(b"\xfe" * 700_000)

    result = await backend.commit(a_change_set(entries))

    assert result.refused == ()
    assert (await backend.listing()).entries == entries
    newest = (await backend.log(1))[0]
    assert newest.id == result.revision
    assert "Caiafs-Operation: 0badcafe-1-1" in newest.message


async def test_a_document_that_a_contract_service_refuses_costs_only_itself(
    contract_servers, backends, contents
):
    backend = backends(contract_servers(refuse=["no", "never"]))
    await backend.connect()
    entry = contents.put(b"1")

    result = await backend.commit(a_change_set({b"no": entry, b"yes": entry, b"never": entry}))

    assert [path for path, _ in result.refused] == [b"never", b"no"]
    assert (await backend.listing()).entries == {b"yes": entry}
