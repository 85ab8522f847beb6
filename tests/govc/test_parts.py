"""Parts of large documents: they go with the last document that needs them, and never before."""

import json
import random
import urllib.request

import pytest

from caiafs.backends.govc.sweep import Sweeper
from caiafs.core.types import Change, ChangeSet, DocPath, GitMode
from tests.govc.test_commits import post
from tests.support.govc_documents import ADA, a_change_set

pytestmark = pytest.mark.govc

LIMIT = 100_000
LONG = b"/".join([b"long" * 60] * 17)


@pytest.fixture(params=["old", "contract"])
def sweepable(request):
    """Return a server that lists and deletes, and takes no large request."""
    if request.param == "contract":
        return request.getfixturevalue("contract_servers")(max_request=LIMIT)
    return request.getfixturevalue("govc_servers")(architecture="old", max_request=LIMIT)


def names(server) -> set[str]:
    """Return every name that the server holds."""
    if hasattr(server, "service"):
        return set(server.service.repositories["docs"].files)
    with urllib.request.urlopen(f"{server.url}/api/v1/repos/docs/tree/?recursive=true") as reply:
        return {entry["path"] for entry in json.load(reply)["entries"] or []}


def parts(server) -> set[str]:
    """Return the names of parts that the server holds."""
    return {name for name in names(server) if name.startswith("caiafs-parts/")}


def parts_of(found, entry):
    """Return those of `found` that are of one content; never nothing."""
    return {name for name in found if name.startswith(f"caiafs-parts/{entry.oid}/")} or {"none"}


class Step:
    """Builds change sets that know what they replace, as the publisher's do."""

    def __init__(self) -> None:
        self._tree, self._count = {}, 0

    def __call__(self, changes) -> ChangeSet:
        self._count += 1
        done = tuple(
            Change(DocPath(path), self._tree.get(path), entry)
            for path, entry in sorted(changes.items())
        )
        self._tree.update(changes)
        operation = f"0badcafe-{self._count}-1"
        return ChangeSet(operation, ADA, f"Save\n\nCaiafs-Operation: {operation}\n", done)


@pytest.fixture
def step() -> Step:
    """Return what builds this test's change sets."""
    return Step()


@pytest.fixture
def first_look_alone(monkeypatch):
    """Let nothing put back what the first look removed wrongly."""

    async def nothing(*_):
        return ()

    monkeypatch.setattr(Sweeper, "named", nothing)
    monkeypatch.setattr(Sweeper, "lacks", nothing)


def large(contents, seed: int, mode: int = GitMode.FILE):
    return contents.put(random.Random(seed).randbytes(300_000 + seed), mode)


async def reads(backend, contents, path, entry) -> bool:
    document = await backend.read(DocPath(path))
    return document is not None and document.content == contents.held[entry.oid]


async def test_the_largest_request_is_what_the_server_turned_out_to_take(
    sweepable, backends, contents
):
    backend = backends(sweepable)
    before = await backend.connect()

    await backend.commit(a_change_set({b"a": large(contents, 1)}))

    after = backend.capabilities
    assert before.max_content_bytes is not None
    assert after.max_content_bytes is not None
    assert after.max_content_bytes <= LIMIT < before.max_content_bytes


async def test_parts_go_with_the_document_that_is_replaced_or_deleted(
    sweepable, backends, contents, step
):
    backend = backends(sweepable)
    await backend.connect()
    one, two = large(contents, 1), large(contents, 2)
    await backend.commit(step({b"a": one, b"b": contents.put(b"small")}))
    first = parts(sweepable)

    await backend.commit(step({b"a": two}))
    second = parts(sweepable)
    seen = await reads(backend, contents, b"a", two)
    await backend.commit(step({b"a": None}))

    assert first == parts_of(first, one)
    assert second == parts_of(second, two)
    assert seen
    assert parts(sweepable) == set()
    assert await backend.read(DocPath(b"b")) is not None
    saves = [r for r in await backend.log(100) if "Caiafs-Operation" in r.message]
    assert len(saves) == 3


@pytest.mark.usefixtures("first_look_alone")
@pytest.mark.parametrize(
    "twin",
    [(b"d/copy", GitMode.FILE), (b"run", GitMode.EXECUTABLE), (LONG, GitMode.FILE)],
    ids=["copy", "executable", "long name"],
)
async def test_parts_that_another_document_needs_stay(sweepable, backends, contents, step, twin):
    other, mode = twin
    backend = backends(sweepable)
    await backend.connect()
    one, same = large(contents, 1), large(contents, 1, mode)
    await backend.commit(step({b"a": one, other: same}))

    await backend.commit(step({b"a": None}))
    seen = await reads(backend, contents, other, same)
    await backend.commit(step({other: contents.put(b"small")}))

    assert seen
    assert parts(sweepable) == set()


@pytest.mark.usefixtures("first_look_alone")
async def test_parts_that_the_new_version_needs_stay(sweepable, backends, contents, step):
    backend = backends(sweepable)
    await backend.connect()
    one, executable = large(contents, 1), large(contents, 1, GitMode.EXECUTABLE)
    await backend.commit(step({b"a": one}))

    await backend.commit(step({b"a": executable}))
    after_mode = await reads(backend, contents, b"a", executable)
    await backend.commit(step({b"a": None, b"b": executable}))

    assert after_mode
    assert await reads(backend, contents, b"b", executable)


async def test_parts_that_another_client_came_to_need_are_sent_again(
    sweepable, backends, contents, step, monkeypatch
):
    backend, other = backends(sweepable), backends(sweepable)
    await backend.connect()
    await other.connect()
    one = large(contents, 1)
    await backend.commit(step({b"a": one}))
    unused = Sweeper.unused

    async def then_the_other_saves_the_same(sweeper, change_set, refused):
        found = await unused(sweeper, change_set, refused)
        monkeypatch.setattr(Sweeper, "unused", unused)
        await other.commit(a_change_set({b"theirs": one}, operation="other-1-1"))
        return found

    monkeypatch.setattr(Sweeper, "unused", then_the_other_saves_the_same)

    await backend.commit(step({b"a": None}))

    assert await backend.read(DocPath(b"a")) is None
    assert await reads(other, contents, b"theirs", one)
    assert (await backend.log(1))[0].id == await backend.head()


async def test_parts_that_another_client_took_away_are_sent_again(
    govc_servers, backends, contents, step, monkeypatch
):
    server = govc_servers(architecture="old", max_request=LIMIT)
    backend = backends(server)
    await backend.connect()
    one = large(contents, 1)
    lacks = Sweeper.lacks

    async def after_they_are_gone(sweeper, header):
        take_away(server, parts(server))
        return await lacks(sweeper, header)

    monkeypatch.setattr(Sweeper, "lacks", after_they_are_gone)

    result = await backend.commit(step({b"a": one}))

    assert await reads(backend, contents, b"a", one)
    assert result.revision == await backend.head()


def take_away(server, taken):
    """Remove files as another client would."""
    for name in taken:
        url = f"{server.url}/api/v1/repos/docs/remove/{name}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()
    post(server, "/api/v1/repos/docs/commit", {"message": "m", "author": "x", "email": "x@y.z"})


@pytest.mark.slow
async def test_v2_keeps_the_parts_of_what_was_replaced(v2_server, backends, contents, step):
    backend = backends(v2_server)
    await backend.connect()
    one, two = contents.put(b"\xff" * (11 << 20)), contents.put(b"small")
    await backend.commit(step({b"a": one}))

    await backend.commit(step({b"a": two}))
    await backend.commit(step({b"a": one}))

    assert await reads(backend, contents, b"a", one)
