"""The contract of backends in its simplest form: what the others are compared with, and a stand-in in tests.

`MemoryStore` is the store, `MemoryBackend` a client of it; several clients may share one store.
"""

import hashlib
from dataclasses import dataclass, field

import trio

from caiafs.backends.base import Backend, Capabilities, CommitResult, Document, Listing, Revision
from caiafs.core.errors import Corrupt, NotFound
from caiafs.core.types import ChangeSet, ContentSource, DocPath, Entry, blob_id


@dataclass
class MemoryStore:
    """Documents and commits, newest last; each commit keeps the whole state it led to."""

    commits: list[tuple[Revision, str, dict[DocPath, Document]]] = field(default_factory=list)

    @property
    def documents(self) -> dict[DocPath, Document]:
        return self.commits[-1][2] if self.commits else {}

    @property
    def head(self) -> str | None:
        return self.commits[-1][0].id if self.commits else None


class MemoryBackend(Backend):
    """A client of a `MemoryStore`."""

    name = "memory"

    def __init__(self, store: MemoryStore, source: ContentSource) -> None:
        self._store = store
        self._source = source

    async def connect(self) -> Capabilities:
        await trio.lowlevel.checkpoint()
        return Capabilities("memory", lists=True, diffs=True, max_content_bytes=None)

    async def head(self) -> str | None:
        await trio.lowlevel.checkpoint()
        return self._store.head

    async def log(self, limit: int) -> tuple[Revision, ...]:
        await trio.lowlevel.checkpoint()
        newest_first = reversed(self._store.commits)
        return tuple(revision for revision, _, _ in newest_first)[:limit]

    async def read(self, path: DocPath) -> Document | None:
        await trio.lowlevel.checkpoint()
        return self._store.documents.get(path)

    async def listing(self) -> Listing:
        await trio.lowlevel.checkpoint()
        entries = {path: document.entry for path, document in self._store.documents.items()}
        return Listing(entries, complete=True, revision=self._store.head)

    async def commit(self, change_set: ChangeSet) -> CommitResult:
        contents: dict[DocPath, Document] = {}
        refused: list[tuple[DocPath, str]] = []
        for change in change_set.changes:
            if change.after is None:
                continue
            try:
                contents[change.path] = await self._take(change.after)
            except (NotFound, Corrupt) as exc:
                refused.append((change.path, str(exc)))
        await trio.lowlevel.checkpoint()
        # No await from here: two clients never see each other's half.
        if any(operation == change_set.operation_id for _, operation, _ in self._store.commits):
            return CommitResult(self._store.head)
        documents = dict(self._store.documents)
        for change in change_set.changes:
            if change.after is None:
                documents.pop(change.path, None)
        documents |= contents
        if documents == self._store.documents:
            return CommitResult(self._store.head, tuple(refused))
        self._append(change_set, documents)
        return CommitResult(self._store.head, tuple(refused))

    async def changed_paths(self, old: str, new: str) -> frozenset[DocPath] | None:
        await trio.lowlevel.checkpoint()
        states = {revision.id: documents for revision, _, documents in self._store.commits}
        if old not in states or new not in states:
            return None
        before, after = states[old], states[new]
        return frozenset(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def _take(self, entry: Entry) -> Document:
        content = await self._source.read(entry.oid)
        if blob_id(content) != entry.oid:
            raise Corrupt(f"the content of {entry.oid} is not what its id says")
        return Document(Entry(entry.mode, entry.oid, len(content)), content)

    def _append(self, change_set: ChangeSet, documents: dict[DocPath, Document]) -> None:
        parent = self._store.head
        seed = f"{parent} {change_set.operation_id}".encode()
        revision = Revision(
            id=hashlib.sha1(seed).hexdigest(),
            message=change_set.message,
            author_name=change_set.author.name,
            author_email=change_set.author.email,
            time_ns=change_set.author.time_ns,
            parent=parent,
        )
        self._store.commits.append((revision, change_set.operation_id, documents))
