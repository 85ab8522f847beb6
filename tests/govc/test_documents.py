"""Documents through a real server and back, in every dialect."""

import json
import urllib.parse
import urllib.request

import pytest

from caiafs.core.types import DocPath, Entry, GitMode, ObjectId
from tests.support.govc_documents import a_change_set

pytestmark = pytest.mark.govc

DOCUMENTS = {
    b"notes/plan.txt": b"plan\n",
    b"notes/empty": b"",
    b"notes/blank": b" \n",
    b"notes/control": bytes(range(128)),
    b"notes/separators": "\u2028\u2029\ufeff\ufffd\ufffe😀".encode(),
    b"notes/html": b"<b>&amp;</b>",
    b"notes/crlf": b"a\r\nb\r",
    b"bin/all": bytes(range(256)) * 20,
    b"bin/half": "é".encode()[:1],
    b"like/envelope": b'{"caiafs-envelope":1,"deleted":true}',
    b"like/json": b'{"content":"x","encoding":"base64"}',
}

PATHS = [
    b".gitignore",
    b"..x",
    b"a/.hidden",
    b"foo../bar",
    b"foo..\\bar",
    b"c:x",
    b"\\x",
    b"back\\slash",
    b"x..",
    b" lead and trail ",
    b"new\nline\ttab\x01\x7f",
    b"100%/%41?#&+=;",
    b"'\"<script>|$(x)`",
    "Übung/日本/😀".encode(),
    b"caf\xe9/\xff\xfe",
    b"caiafs-escaped/x",
    b"caiafs-parts/y",
    b"caiafs-long/z",
    b"caiafs-mark",
    b"n" * 255,
    b"/".join([b"long" * 60] * 12),
    b"/".join([b"d" * 255] * 15),
    "/".join(["é" * 100] * 8).encode(),
]


async def test_every_content_comes_back(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    entries = {path: contents.put(content) for path, content in DOCUMENTS.items()}
    entries[b"bin/run"] = contents.put(b"#!/bin/sh\n", GitMode.EXECUTABLE)
    entries[b"bin/link"] = contents.put(b"../notes/plan.txt", GitMode.SYMLINK)

    result = await backend.commit(a_change_set(entries))

    assert result.refused == ()
    for path, entry in entries.items():
        document = await backend.read(DocPath(path))
        assert document is not None, path
        assert document.entry == entry
        assert document.content == contents.held[entry.oid]
    assert await backend.current(list(map(DocPath, entries))) == entries


async def test_every_path_is_held(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    entries = {path: contents.put(b"at " + path) for path in PATHS}

    result = await backend.commit(a_change_set(entries))

    assert result.refused == ()
    assert await backend.current(list(map(DocPath, entries))) == entries
    document = await backend.read(DocPath(b"caf\xe9/\xff\xfe"))
    assert document is not None
    assert document.content == b"at caf\xe9/\xff\xfe"


async def test_a_deletion_is_seen_and_can_be_undone(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    paths = [b"a/plain", b".hidden", b"/".join([b"d" * 255] * 15)]
    entries = {path: contents.put(b"x") for path in paths}
    await backend.commit(a_change_set(entries, operation="w-1-1"))

    await backend.commit(a_change_set(dict.fromkeys(paths), operation="w-2-2"))
    gone = await backend.current(list(map(DocPath, paths)))
    await backend.commit(a_change_set(entries, operation="w-3-3"))

    assert set(gone.values()) == {None}
    assert await backend.read(DocPath(b"never there")) is None
    assert await backend.current(list(map(DocPath, paths))) == entries


async def test_a_deletion_of_what_is_not_there_is_no_error(any_server, backends):
    backend = backends(any_server)
    await backend.connect()

    result = await backend.commit(a_change_set({b"never/there": None}))

    assert result.refused == ()


async def test_a_submodule_keeps_its_commit(any_server, backends):
    backend = backends(any_server)
    await backend.connect()
    entry = Entry(GitMode.GITLINK, ObjectId("c" * 40), 0)

    await backend.commit(a_change_set({b"lib": entry}))

    document = await backend.read(DocPath(b"lib"))
    assert document is not None
    assert document.entry == entry


@pytest.mark.slow
async def test_a_document_larger_than_a_request_goes_in_parts(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    block = bytes(range(256)) * 4096
    entries = {
        b"large/binary": contents.put(block * 12 + b"end"),
        b"large/text": contents.put(b"0123456789abcde\n" * (11 << 16)),
        b"large/controls": contents.put(b"\x01" * (3 << 20)),
    }

    result = await backend.commit(a_change_set(entries))

    assert result.refused == ()
    for path, entry in entries.items():
        document = await backend.read(DocPath(path))
        assert document is not None
        assert document.entry.same_content(entry)
        assert document.content == contents.held[entry.oid]


async def test_a_smaller_request_limit_is_learned(govc_servers, backends, contents):
    backend = backends(govc_servers(max_request=100_000))
    await backend.connect()
    entry = contents.put(b"\xff" * 500_000)

    result = await backend.commit(a_change_set({b"a": entry, b"b": contents.put(b"small")}))

    assert result.refused == ()
    document = await backend.read(DocPath(b"a"))
    assert document is not None
    assert document.content == b"\xff" * 500_000


async def test_a_limit_too_small_for_anything_refuses_that_document(
    govc_servers, backends, contents
):
    backend = backends(govc_servers(max_request=2000))
    await backend.connect()
    entries = {b"big": contents.put(b"x" * 5000), b"small": contents.put(b"x")}

    result = await backend.commit(a_change_set(entries))

    assert [path for path, _ in result.refused] == [b"big"]
    assert await backend.read(DocPath(b"small")) is not None


async def test_a_content_that_is_missing_here_holds_up_no_other(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    lost = Entry(GitMode.FILE, ObjectId("d" * 40), 4)

    result = await backend.commit(a_change_set({b"a": lost, b"b": contents.put(b"here")}))

    assert [path for path, _ in result.refused] == [b"a"]
    assert await backend.read(DocPath(b"b")) is not None


async def test_a_commit_of_which_everything_is_refused_makes_none(server, backends):
    backend = backends(server)
    await backend.connect()
    lost = Entry(GitMode.FILE, ObjectId("d" * 40), 4)

    result = await backend.commit(a_change_set({b"a": lost}))

    assert len(result.refused) == 1
    assert await backend.head() is None


async def test_plain_text_is_plain_for_other_clients(v2_server, backends, contents):
    backend = backends(v2_server)
    await backend.connect()

    await backend.commit(a_change_set({b"notes/plan.txt": contents.put("plän\n".encode())}))

    assert foreign_read(v2_server, "notes/plan.txt") == "plän\n"


def foreign_read(server, path):
    query = urllib.parse.quote(path)
    with urllib.request.urlopen(f"{server.url}/api/v2/repos/docs/files?path={query}") as reply:
        return json.load(reply)["content"]


@pytest.mark.slow
async def test_v2_takes_every_name_that_is_not_escaped(govc_servers, backends, contents):
    backend = backends(govc_servers())
    await backend.connect()
    alphabet = [".", "..", ":", "\\", "/", "a", "~", "%", " ", "\x01", "é"]
    names = {a + b + c for a in alphabet for b in alphabet for c in ("", "x", "/y", "..")}
    paths = [
        name.encode()
        for name in sorted(names)
        if all(part not in {"", ".", ".."} for part in name.split("/"))
    ]
    entry = contents.put(b"x")

    result = await backend.commit(a_change_set(dict.fromkeys(paths, entry)))

    assert result.refused == ()
    held = await backend.current(list(map(DocPath, paths)))
    assert set(held.values()) == {entry}
