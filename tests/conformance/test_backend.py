"""The contract of `caiafs.backends.base`, which every store keeps."""

import itertools

import pytest
import trio

from caiafs.backends.base import Backend
from caiafs.backends.git.log import parse_trailers
from caiafs.core.types import Change, ChangeSet, DocPath, Entry, GitMode, Signature, blob_id
from tests.support.govc_documents import ADA, Contents

NAMES = {
    "plain": b"letter.txt",
    "nested": b"documents/letter/2026/11/a-1/text.txt",
    "spaces": b"a b/ c .txt ",
    "utf8": "dörfer/straße–1.txt".encode(),
    "not utf8": b"caf\xe9/\xff\xfe.bin",
    "255 bytes": b"n" * 255,
    "255 bytes below": b"d" * 255 + b"/" + b"n" * 251 + b".txt",
    "dotfile": b".hidden",
    "dotfile below": b"a/.hidden",
    "git": b".git",
    "git config": b".git/config",
    "git in capitals": b"a/.GIT/HEAD",
    "git short name": b"git~1",
    "git with invisible character": ".g\u200cit/x".encode(),
    "git after backslash": b"a\\.git",
    "git modules": b".gitmodules",
    "git attributes": b".gitattributes",
    "looks escaped": b"%caia-.git",
    "looks percent-encoded": b"%2Egit%00",
    "double dot inside": b"foo../..bar",
    "colon second": b"c:x",
    "newline and tab": b"a\nb\tc",
    "control characters": b"\x01\x1f\x7f",
    "tilde": b"~x~/~",
    "question": b"a?b#c&d=e+f",
    "trailing dot": b"x./y.",
    "word of a route below": b"base-files/FAQ",
    "word of a route": b"files",
    "word of a route inside a name": b"xfiles/y",
    "word of a route after a dot": b".my-files/x",
}

CONTENTS = {
    "text": b"hello\n",
    "utf8 text": "grüße, 世界\n".encode(),
    "empty": b"",
    "binary": bytes(range(256)) * 3,
    "NUL in text": b"a\0b",
    "no newline at end": b"x",
    "carriage returns": b"a\r\nb\r",
    "json": b'{"a": [1, 2, {"b": null}]}',
    "looks like an envelope": b'{"caiafs": 1, "encoding": "base64"}',
    "a megabyte of binary": bytes(range(256)) * 4096,
}

_operations = itertools.count(1)


def a_save(
    *changes: tuple[bytes, Entry | None], operation: str = "", author: Signature = ADA
) -> ChangeSet:
    """Return a change set with a new operation id, unless one is given."""
    operation = operation or f"c0ffee00-{next(_operations)}-1"
    steps = (Change(DocPath(path), None, entry) for path, entry in sorted(changes))
    message = f"Save {len(changes)} documents\n\nWhy not.\n\nCaiafs-Operation: {operation}\n"
    return ChangeSet(operation, author, message, tuple(steps))


async def holds(client: Backend, path: bytes) -> bytes | None:
    document = await client.read(DocPath(path))
    return None if document is None else document.content


async def test_empty_store_has_no_head_no_log_and_no_documents(client):
    head, log = await client.head(), await client.log(10)
    listing = await client.listing()

    assert head is None
    assert log == ()
    assert listing.entries == {}
    assert await client.read(DocPath(b"nothing")) is None


@pytest.mark.parametrize("path", NAMES.values(), ids=NAMES.keys())
async def test_document_of_any_name_reads_back(client, contents, path):
    entry = contents.put(b"content of " + path)

    result = await client.commit(a_save((path, entry)))

    assert result.refused == ()
    assert await holds(client, path) == b"content of " + path
    listing = await client.listing()
    if listing.complete:
        assert set(listing.entries) == {path}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
async def test_any_content_reads_back_with_its_id_and_size(client, contents, content):
    await client.commit(a_save((b"a/doc", contents.put(content))))

    document = await client.read(DocPath(b"a/doc"))

    assert document is not None
    assert document.content == content
    assert document.entry == Entry(GitMode.FILE, blob_id(content), len(content))


@pytest.mark.slow
async def test_content_larger_than_a_request_reads_back(client, contents):
    content = bytes(range(251)) * (
        18 << 12
    )  # 18 MiB: over govc's request limit and git's streaming limit

    result = await client.commit(a_save((b"big.bin", contents.put(content))))

    assert result.refused == ()
    assert await holds(client, b"big.bin") == content


@pytest.mark.parametrize("mode", [GitMode.EXECUTABLE, GitMode.SYMLINK])
async def test_mode_reads_back(client, contents, mode):
    entry = contents.put(b"target/of it", mode)

    await client.commit(a_save((b"x", entry)))

    document = await client.read(DocPath(b"x"))
    assert document is not None
    assert document.entry.mode == mode
    assert document.content == b"target/of it"


async def test_change_of_mode_alone_is_stored(client, contents):
    await client.commit(a_save((b"run", contents.put(b"#!/bin/sh\n"))))

    await client.commit(a_save((b"run", contents.put(b"#!/bin/sh\n", GitMode.EXECUTABLE))))

    document = await client.read(DocPath(b"run"))
    assert document is not None
    assert document.entry.mode == GitMode.EXECUTABLE


async def test_second_version_replaces_the_first(client, contents):
    await client.commit(a_save((b"d/doc", contents.put(b"one"))))

    await client.commit(a_save((b"d/doc", contents.put(b"two"))))

    assert await holds(client, b"d/doc") == b"two"
    assert len(await client.log(10)) == 2


async def test_shorter_version_of_a_large_document_replaces_it(client, contents):
    await client.commit(a_save((b"doc", contents.put(bytes(range(256)) * 50_000))))

    await client.commit(a_save((b"doc", contents.put(b"short"))))

    assert await holds(client, b"doc") == b"short"


async def test_deleted_document_is_gone_and_others_stay(client, contents):
    await client.commit(a_save((b"d/a", contents.put(b"a")), (b"d/b", contents.put(b"b"))))

    result = await client.commit(a_save((b"d/a", None)))

    assert result.refused == ()
    assert await client.read(DocPath(b"d/a")) is None
    assert await holds(client, b"d/b") == b"b"
    listing = await client.listing()
    assert DocPath(b"d/a") not in listing.entries


async def test_deleted_document_can_come_back(client, contents):
    first = contents.put(b"a")
    await client.commit(a_save((b"d/a", first)))
    await client.commit(a_save((b"d/a", None)))

    await client.commit(a_save((b"d/a", first)))

    assert await holds(client, b"d/a") == b"a"


async def test_deleting_what_is_not_there_changes_nothing(client, contents):
    await client.commit(a_save((b"keep", contents.put(b"x"))))

    result = await client.commit(a_save((b"not/there", None)))

    assert result.refused == ()
    assert await holds(client, b"keep") == b"x"


async def test_rename_is_a_deletion_and_an_addition_in_one_commit(client, contents):
    entry = contents.put(b"moves along")
    await client.commit(a_save((b"old/name", entry)))

    await client.commit(a_save((b"old/name", None), (b"new/name", entry)))

    assert await client.read(DocPath(b"old/name")) is None
    assert await holds(client, b"new/name") == b"moves along"


async def test_directory_becomes_a_document_and_back(client, contents):
    await client.commit(a_save((b"a/b", contents.put(b"below"))))

    await client.commit(a_save((b"a/b", None), (b"a", contents.put(b"document"))))
    as_document = await holds(client, b"a"), await holds(client, b"a/b")
    await client.commit(a_save((b"a", None), (b"a/c/d", contents.put(b"deep"))))

    assert as_document == (b"document", None)
    assert await client.read(DocPath(b"a")) is None
    assert await holds(client, b"a/c/d") == b"deep"


async def test_many_documents_go_in_one_commit(client, contents):
    paths = [b"documents/note/2026/%02d/n%d/text.txt" % (n % 12 + 1, n) for n in range(60)]

    await client.commit(a_save(*((path, contents.put(b"text of " + path)) for path in paths)))

    assert len(await client.log(10)) == 1
    for path in paths:
        assert await holds(client, path) == b"text of " + path


async def test_same_content_under_many_names_is_stored_under_each(client, contents):
    entry = contents.put(b"twin")

    await client.commit(a_save((b"one", entry), (b"two", entry), (b"three/four", entry)))

    for path in (b"one", b"two", b"three/four"):
        assert await holds(client, path) == b"twin"


async def test_sending_a_change_set_again_changes_nothing(client, contents):
    save = a_save((b"doc", contents.put(b"once")))
    await client.commit(save)
    before = await client.head(), len(await client.log(10))

    await client.commit(save)

    assert (await client.head(), len(await client.log(10))) == before


async def test_new_client_recognises_a_change_set_that_is_stored(store, contents):
    first = await store.connect()
    save = a_save((b"doc", contents.put(b"once")))
    await first.commit(save)
    await first.commit(a_save((b"other", contents.put(b"later"))))
    before = await first.head()

    second = await store.connect()
    await second.commit(save)

    assert await second.head() == before
    assert len(await second.log(10)) == 2


async def test_one_document_whose_content_is_missing_does_not_stop_the_rest(client, contents):
    missing = Entry(GitMode.FILE, blob_id(b"nobody has this"), 15)

    result = await client.commit(a_save((b"bad", missing), (b"good", contents.put(b"fine"))))

    assert [path for path, _ in result.refused] == [b"bad"]
    assert all(reason for _, reason in result.refused)
    assert await client.read(DocPath(b"bad")) is None
    assert await holds(client, b"good") == b"fine"


async def test_document_whose_content_is_damaged_does_not_stop_the_rest(client, contents):
    entry = contents.put(b"what was saved")
    contents.held[entry.oid] = b"what a broken disk gives"

    result = await client.commit(a_save((b"bad", entry), (b"good", contents.put(b"fine"))))

    assert [path for path, _ in result.refused] == [b"bad"]
    assert await client.read(DocPath(b"bad")) is None
    assert await holds(client, b"good") == b"fine"


async def test_log_is_newest_first_and_keeps_message_and_trailers(client, contents):
    saves = [a_save((b"doc", contents.put(b"version %d" % n))) for n in range(3)]
    for save in saves:
        await client.commit(save)

    log = await client.log(10)

    operations = [dict(parse_trailers(r.message))["Caiafs-Operation"] for r in log]
    assert operations == [save.operation_id for save in reversed(saves)]
    assert log[0].message.startswith("Save 1 documents")


async def test_log_stops_at_its_limit(client, contents):
    for number in range(4):
        await client.commit(a_save((b"doc", contents.put(b"version %d" % number))))

    log = await client.log(2)

    assert len(log) == 2
    assert log[0].id == await client.head()


async def test_log_names_parents_or_says_nothing(client, contents):
    for number in range(3):
        await client.commit(a_save((b"doc", contents.put(b"version %d" % number))))

    log = await client.log(10)

    for newer, older in itertools.pairwise(log):
        assert newer.parent in (older.id, None)


async def test_head_moves_with_each_commit_and_is_what_commit_says(client, contents):
    heads = []
    for number in range(3):
        result = await client.commit(a_save((b"doc", contents.put(b"version %d" % number))))
        heads.append(await client.head())
        assert result.revision in (heads[-1], None)

    assert len(set(heads)) == 3


async def test_listing_has_every_document_or_says_that_it_is_partial(client, contents):
    saved = {
        path: contents.put(b"content of " + path)
        for path in (b"top", b"a/one", b"a/b/two", "ä/drei".encode(), b"a/b/\xff")
    }
    await client.commit(a_save(*saved.items()))

    listing = await client.listing()

    capabilities = await client.connect()
    assert listing.complete == capabilities.lists
    assert set(listing.entries) <= set(saved)
    if listing.complete:
        assert listing.entries == saved
        assert listing.revision == await client.head()


async def test_changed_paths_are_those_that_differ_or_unknown(client, contents):
    await client.commit(a_save((b"a", contents.put(b"1")), (b"b/c", contents.put(b"2"))))
    old = await client.head()
    await client.commit(a_save((b"b/c", contents.put(b"3")), (b"new", contents.put(b"4"))))
    await client.commit(a_save((b"a", None)))
    new = await client.head()
    assert old is not None
    assert new is not None

    changed = await client.changed_paths(old, new)

    capabilities = await client.connect()
    if capabilities.diffs:
        assert changed == {b"a", b"b/c", b"new"}
    else:
        assert changed is None


async def test_changed_paths_of_an_unknown_commit_are_unknown(client, contents):
    await client.commit(a_save((b"a", contents.put(b"1"))))
    head = await client.head()
    assert head is not None

    assert await client.changed_paths("0123456789" * 4, head) is None


async def test_two_clients_saving_at_once_lose_nothing(store, contents):
    clients = [await store.connect(), await store.connect()]
    paths = [
        (client, b"c%d/d%d" % (number, turn))
        for number, client in enumerate(clients)
        for turn in range(6)
    ]

    async def save_all(mine: Backend) -> None:
        for client, path in paths:
            if client is mine:
                await client.commit(a_save((path, contents.put(b"content of " + path))))

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(save_all, client)

    for _, path in paths:
        assert await holds(clients[0], path) == b"content of " + path


async def test_one_client_sees_what_another_saved(store, contents):
    one, other = await store.connect(), await store.connect()
    await one.commit(a_save((b"doc", contents.put(b"first"))))
    seen = await holds(other, b"doc")

    await other.commit(a_save((b"doc", contents.put(b"second"))))

    assert seen == b"first"
    assert await holds(one, b"doc") == b"second"
    assert await one.head() == await other.head()


async def test_cancelled_commit_leaves_the_store_as_before_or_after(store, contents: Contents):
    client = await store.connect()
    await client.commit(a_save((b"doc", contents.put(b"before"))))
    with trio.move_on_after(0.002):
        await client.commit(a_save((b"doc", contents.put(b"after"))))

    fresh = await store.connect()

    assert await holds(fresh, b"doc") in (b"before", b"after")
    await fresh.commit(a_save((b"doc", contents.put(b"and on"))))
    assert await holds(fresh, b"doc") == b"and on"


async def test_connecting_again_changes_nothing(client, contents):
    await client.commit(a_save((b"doc", contents.put(b"x"))))
    before = await client.head()

    again = await client.connect()

    assert again.implementation != "none"
    assert await client.head() == before
    assert await holds(client, b"doc") == b"x"


async def test_closing_twice_is_safe(client):
    await client.aclose()
    await client.aclose()
