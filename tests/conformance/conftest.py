"""One store of each kind, with clients that share it."""

import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from caiafs.backends.base import Backend
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.repository import open_repository
from caiafs.backends.govc.backend import GovcBackend
from caiafs.core.errors import Corrupt
from caiafs.core.types import ObjectId, blob_id
from tests.support.contract_server import contract_servers
from tests.support.govc_documents import Contents
from tests.support.govc_server import govc_servers
from tests.support.memory_backend import MemoryBackend, MemoryStore

__all__ = ["contract_servers", "govc_servers"]

KINDS = [
    "memory",
    "git",
    pytest.param("govc-v1", marks=pytest.mark.govc),
    pytest.param("govc-v2", marks=pytest.mark.govc),
    "contract",
]


class CheckedContents(Contents):
    """Contents that notice, as every source must, when what they hold is not what its id says."""

    async def read(self, oid: ObjectId) -> bytes:
        content = await super().read(oid)
        if blob_id(content) != oid:
            raise Corrupt(f"blob {oid} is not what its id says")
        return content


class StoreUnderTest:
    """A store of one kind: `connect` gives a client, contents come from `contents`."""

    def __init__(self, kind: str, make: Callable[[Contents], Backend]) -> None:
        self.kind = kind
        self.contents = CheckedContents()
        self._make = make
        self._clients: list[Backend] = []

    async def connect(self) -> Backend:
        """Return one more client of the store."""
        client = self._make(self.contents)
        self._clients.append(client)
        await client.connect()
        return client

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()


@pytest.fixture(params=KINDS)
def make_client(request, tmp_path) -> Callable[[Contents], Backend]:
    """Return what makes a client of this test's own store."""
    kind = request.param
    if kind == "memory":
        store = MemoryStore()
        return lambda contents: MemoryBackend(store, contents)
    if kind == "git":
        git_dir = tmp_path / "repository.git"
        return lambda contents: GitBackend(open_repository(git_dir), contents)
    if kind == "contract":
        settings = request.getfixturevalue("contract_servers")().settings()
    else:
        architecture = "old" if kind == "govc-v1" else "new"
        settings = request.getfixturevalue("govc_servers")(architecture=architecture).settings()
    return lambda contents: GovcBackend(settings, contents)


def check_repository(git_dir: Path) -> None:
    """Fail when git finds anything to say about a repository."""
    done = subprocess.run(
        ["git", f"--git-dir={git_dir}", "fsck", "--strict", "--full", "--no-dangling"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.fixture
async def store(request, make_client, tmp_path) -> AsyncIterator[StoreUnderTest]:
    """Return this test's store; git's passes fsck in the end, whatever the test did."""
    kind = request.node.callspec.params["make_client"]
    store = StoreUnderTest(kind, make_client)
    yield store
    await store.aclose()
    if kind == "git":
        check_repository(tmp_path / "repository.git")


@pytest.fixture
async def client(store: StoreUnderTest) -> Backend:
    """Return a client of the store."""
    return await store.connect()


@pytest.fixture
def contents(store: StoreUnderTest) -> Contents:
    """Return where the store's clients take contents from."""
    return store.contents
