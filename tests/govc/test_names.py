"""Names that a server trips over: every document is written, read, listed and deleted under its own."""

import dataclasses

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from caiafs.backends.govc import GovcBackend
from caiafs.backends.govc.client import GovcClient
from caiafs.core.errors import Absent
from caiafs.core.types import DocPath
from tests.govc.test_commits import post
from tests.support.govc_documents import Contents, a_change_set

pytestmark = pytest.mark.govc

ROUTES = [
    "files",
    "tree",
    "commit",
    "commits",
    "read",
    "add",
    "remove",
    "move",
    "search",
    "log",
    "diff",
    "branches",
    "config",
    "api",
    "v1",
    "v2",
    "repos",
    "health",
    "metrics",
    "admin",
    "auth",
    "login",
    "events",
    "watch",
    "show",
    "transaction",
]
CHARACTERS = [
    "..",
    ".",
    ".git",
    "~",
    "%",
    "%2F",
    "?",
    "#",
    ";",
    "&",
    "+",
    "=",
    ":",
    " ",
    "\\",
    "é",
    "日本",
    "\n",
]

REFUSED_READ = {
    "new": "/api/v2/repos/docs/files?path=/absolute",
    "old": "/api/v1/repos/docs/read/files",
}

piece = st.one_of(st.sampled_from(ROUTES), st.sampled_from(CHARACTERS), st.sampled_from("abF"))
component = (
    st.lists(piece, min_size=1, max_size=4)
    .map(lambda pieces: "".join(pieces).encode())
    .filter(lambda name: name not in {b".", b".."})
)
doc_path = st.lists(component, min_size=1, max_size=3).map(b"/".join)


def is_tree(paths: set[bytes]) -> bool:
    """Whether no path is the directory of another one."""
    return not any(other.startswith(path + b"/") for path in paths for other in paths)


async def check_round_trip(server, paths: set[bytes]) -> None:
    """Write, read, list and delete documents at `paths`."""
    contents = Contents()
    backend = GovcBackend(server.settings(), contents)
    entries = {path: contents.put(b"at " + path) for path in paths}
    wanted = list(map(DocPath, paths))
    try:
        await backend.connect()
        operation = f"w-{server.next_number()}-1"
        result = await backend.commit(a_change_set(entries, operation=operation))
        held = await backend.current(wanted)
        listing = await backend.listing()
        gone = await backend.commit(a_change_set(dict.fromkeys(paths), operation=operation + "0"))
        left = await backend.current(wanted)
        after = await backend.listing()
    finally:
        await backend.aclose()

    assert result.refused == gone.refused == ()
    assert held == entries
    assert set(left.values()) == {None}
    assert after.entries == {}
    if listing.complete:
        assert listing.entries == entries


class Numbered:
    """A server whose tests count their operations."""

    def __init__(self, server) -> None:
        self._server, self._number = server, 0

    def settings(self, **changes):
        return self._server.settings(**changes)

    def next_number(self) -> int:
        self._number += 1
        return self._number


@pytest.fixture(params=["old", "new"])
def numbered(request, govc_servers) -> Numbered:
    """Return a server of each architecture."""
    return Numbered(govc_servers(architecture=request.param))


async def test_words_of_routes_are_names_like_any_other(numbered):
    paths = {
        path.encode()
        for word in ROUTES
        for path in (
            word,
            f"d/{word}",
            f"{word}.d/y",
            f"x{word}z/y",
            f"a/b-{word}/c",
            f".{word}",
            f"{word}../x",
        )
    }

    await check_round_trip(numbered, paths)


async def test_special_characters_are_names_like_any_other(numbered):
    paths = {
        path.encode()
        for text in CHARACTERS
        for path in (f"a{text}", f"{text}b/c", f"files{text}/d", f"e/{text}files")
    } - {b"a"}

    await check_round_trip(numbered, paths)


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(paths=st.sets(doc_path, min_size=1, max_size=12).filter(is_tree))
@example(paths={b"files", b"base-files/FAQ", b".my-files", b"a:files"})
async def test_any_names_are_written_read_listed_and_deleted(numbered, paths):
    await check_round_trip(numbered, paths)


async def test_documents_of_other_clients_with_such_names_are_read(v1_server, backends):
    backend = backends(v1_server)
    await backend.connect()
    names = ["files", "base-files/FAQ", ".my-files/x", "c:files", "..files"]
    for name in names:
        post(v1_server, "/api/v1/repos/docs/add", {"path": name, "content": "theirs"})
    fields = {"message": "m", "author": "x", "email": "x@y.z"}
    post(v1_server, "/api/v1/repos/docs/commit", fields)

    paths = [DocPath(name.encode()) for name in names]
    held = await backend.current(paths)
    listing = await backend.listing()

    assert set(listing.entries) == set(paths)
    assert held == listing.entries
    assert {entry.size_bytes for entry in held.values()} == {6}
    for path in paths:
        document = await backend.read(path)
        assert document is not None
        assert document.content == b"theirs"


@pytest.mark.parametrize("repo", ["files", "my-files_2"])
async def test_a_repository_whose_name_has_such_a_word_is_used(server, backends, contents, repo):
    backend = backends(server, repo_name=repo)
    await backend.connect()
    entries = {path: contents.put(b"x") for path in (b"plain", b"a/b", b".hidden", b"files")}

    await backend.commit(a_change_set(entries, operation="w-1-1"))
    held = await backend.current(list(map(DocPath, entries)))
    listing = await backend.listing()
    await backend.commit(a_change_set({b"a/b": None}, operation="w-2-2"))

    assert held == entries
    assert set(listing.entries) <= set(entries)
    assert await backend.read(DocPath(b"a/b")) is None


async def test_a_read_that_the_server_refuses_says_nothing_about_the_document(
    server, backends, contents, monkeypatch
):
    backend = backends(server)
    await backend.connect()
    entries = {b"odd": contents.put(b"1"), b"plain": contents.put(b"2")}
    await backend.commit(a_change_set(entries))
    send = GovcClient.send

    async def refuse_odd(client, request):
        if request.operation == "read" and request.path == b"odd":
            request = dataclasses.replace(request, target=REFUSED_READ[server.architecture])
        return await send(client, request)

    monkeypatch.setattr(GovcClient, "send", refuse_odd)

    held = await backend.current([DocPath(b"odd"), DocPath(b"plain")])
    listing = await backend.listing()

    assert held[DocPath(b"plain")] == entries[b"plain"]
    odd = held[DocPath(b"odd")]
    assert odd is not None
    assert odd.oid == ""
    assert b"odd" in listing.entries
    with pytest.raises(Absent):
        await backend.read(DocPath(b"odd"))
