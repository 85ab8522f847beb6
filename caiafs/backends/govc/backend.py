"""The govc service as a `Backend`: connects, chooses the dialect, keeps commits idempotent.

Runs under trio in the store process; one task commits at a time, others may read meanwhile. What is sent and
how answers are checked is in `reader`, `staging` and `whole`; what a document looks like on the server in `codec`
and `paths`. Limits that no client can mend: v2 lists its first level only, shows what is staged, and cannot delete, so that
parts of replaced large documents stay there (elsewhere `sweep` removes them).
"""

import collections
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import trio

from caiafs.backends.base import (
    Backend,
    Capabilities,
    CommitResult,
    Document,
    Listing,
    Revision,
)
from caiafs.backends.govc import answers, failures, texts
from caiafs.backends.govc.client import IN_FLIGHT, GovcClient
from caiafs.backends.govc.dialects.base import Dialect, StagedDialect
from caiafs.backends.govc.dialects.contract import Contract
from caiafs.backends.govc.paths import LongName, decode_path
from caiafs.backends.govc.probe import probe
from caiafs.backends.govc.reader import Reader
from caiafs.backends.govc.settings import GovcSettings, find_fault
from caiafs.backends.govc.staging import StagedWriter
from caiafs.backends.govc.tasks import for_each
from caiafs.backends.govc.whole import WholeWriter
from caiafs.backends.govc.wire import Request
from caiafs.core.errors import CaiaError, Corrupt, Misconfigured, StoreError, Unreachable
from caiafs.core.types import ChangeSet, ContentSource, DocPath, Entry

LOOK_BACK = 64
"""How many commits are searched for an operation whose outcome is unknown."""
_REMEMBERED = 1024
_NOT_CONNECTED = Capabilities("none", lists=False, diffs=False, max_content_bytes=None)


class GovcBackend(Backend):
    """One repository on one govc server."""

    name = "govc"

    def __init__(self, settings: GovcSettings, source: ContentSource) -> None:
        self._settings = settings
        self._source = source
        self._client: GovcClient | None = None
        self._reader: Reader | None = None
        self._writer: StagedWriter | WholeWriter | None = None
        self._committing = trio.Lock()
        # Operations whose outcome may be unknown, with what was refused on the way.
        self._tried: collections.OrderedDict[str, dict[DocPath, str]] = collections.OrderedDict()
        self._look_back = True
        self._documents = 0

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do as of the last `connect`; "none" before the first.

        `max_content_bytes` is the largest request, which shrinks when the server says so.
        """
        if self._reader is None or self._writer is None:
            return _NOT_CONNECTED
        return replace(
            self._reader.dialect.capabilities, max_content_bytes=self._writer.request_bytes
        )

    @property
    def documents(self) -> int:
        """How many documents the server holds, as far as listings and our commits told."""
        return self._documents

    async def connect(self) -> Capabilities:
        """Reach the server, check the token, make the repository, choose the dialect."""
        fault = find_fault(self._settings)
        if fault is not None:
            raise Misconfigured(fault, backend=self.name, operation="connect")
        if self._client is None:
            self._client = GovcClient(self._settings)
        try:
            dialect = await probe(
                self._client, self._settings.repo_name, has_token=bool(self._settings.token)
            )
        except CaiaError:
            self._reader = self._writer = None
            raise
        self._use(self._client, dialect)
        return self.capabilities

    def _use(self, client: GovcClient, dialect: Dialect) -> None:
        reader = Reader(client, dialect)
        largest = self._settings.max_document_bytes
        if isinstance(dialect, StagedDialect):
            self._writer = StagedWriter(
                client, dialect, reader, self._source, document_bytes=largest
            )
        else:
            assert isinstance(dialect, Contract)
            self._writer = WholeWriter(
                client, dialect, reader, self._source, document_bytes=largest
            )
        self._reader = reader
        self._look_back = True

    def _connected(self, operation: str) -> Reader:
        if self._reader is None:
            raise Unreachable("govc is not connected", backend=self.name, operation=operation)
        return self._reader

    async def head(self) -> str | None:
        """Return the id of the newest commit, None where there is none yet."""
        newest = await self._connected("head").log(1)
        return newest[0].id if newest else None

    async def log(self, limit: int) -> tuple[Revision, ...]:
        """Return the newest commits; fewer where the server cannot read its log further back."""
        return await self._connected("log").log(max(limit, 1))

    async def read(self, path: DocPath) -> Document | None:
        """Return the current document; on v2 also one that is staged and not committed yet.

        Raises:
            Corrupt: see `Backend.read`.
            Absent: the server refuses the name in a read, so nothing can be said.
        """
        return await self._connected("read").read(path)

    async def read_to(self, path: DocPath, file: BinaryIO) -> Entry | None:
        """Write the document at `path` to a binary file and return its entry, None where there is none.

        Memory is bounded by a few parts, whatever the size. The content goes where `file` stands; `file` is neither synced nor
        closed. It is checked against its blob id in passing, and cut back to where it began unless this returns an entry.
        A size that is absurd is the caller's to judge: `current` tells it first.

        Raises:
            Corrupt, Absent: see `read`.
            OSError: `file` cannot be written.
        """
        return await self._connected("read").read_to(path, file)

    async def listing(self) -> Listing:
        """Return what the server lists.

        The real server lists no hashes: documents are read for theirs. Above `reader.LISTING_READS` of them the entries have an empty oid.
        """
        listing = await self._connected("list").listing()
        if listing.complete:
            self._documents = len(listing.entries)
        return listing

    async def current(self, paths: Sequence[DocPath]) -> dict[DocPath, Entry | None]:
        """Return what govc holds at `paths` now, None where nothing; an oid is empty where nobody can say."""
        reader = self._connected("read")
        found: dict[DocPath, Entry | None] = dict.fromkeys(paths)

        async def look(path: DocPath) -> None:
            found[path] = await reader.entry(path)

        await for_each(list(found), look, width=IN_FLIGHT)
        return found

    async def commit(self, change_set: ChangeSet) -> CommitResult:
        """Apply `change_set`; see `Backend.commit`.

        The log is searched for the operation id where an earlier attempt may have got through: same id, or first commit of a connection.
        """
        async with self._committing:
            reader = self._connected("commit")
            writer = self._writer  # whoever connects anew meanwhile replaces it
            assert writer is not None
            operation = change_set.operation_id
            if self._look_back or operation in self._tried:
                done = await self._find(reader, operation)
                if done is not None:
                    refused = self._tried.get(operation, {})
                    return CommitResult(done.id, tuple(sorted(refused.items())))
            if not change_set.changes:
                return CommitResult(None)
            refused = self._remember(operation)
            refused.clear()
            result = await writer.commit(change_set, refused)
            if self._writer is writer:
                self._look_back = False
            self._count(change_set, refused)
            return result

    def _remember(self, operation: str) -> dict[DocPath, str]:
        refused = self._tried.setdefault(operation, {})
        while len(self._tried) > _REMEMBERED:
            self._tried.popitem(last=False)
        return refused

    async def _find(self, reader: Reader, operation: str) -> Revision | None:
        try:
            revisions = await reader.log(LOOK_BACK)
        except Corrupt:
            # A log that the server cannot read heals with the next commit: ours.
            return None
        wanted = (r for r in revisions if texts.names_operation(r.message, operation))
        return next(wanted, None)

    def _count(self, change_set: ChangeSet, refused: dict[DocPath, str]) -> None:
        for change in change_set.changes:
            if change.path not in refused:
                self._documents += (change.after is not None) - (change.before is not None)
        self._documents = max(self._documents, 0)

    async def changed_paths(self, old: str, new: str) -> frozenset[DocPath] | None:
        """Return the paths that differ; None where the server has no diff or does not know the commits."""
        reader = self._connected("diff")
        if old == new:
            return frozenset()
        request = reader.dialect.plan_diff(old, new)
        if request is None or self._client is None:
            return None
        answer = await self._client.send(request)
        try:
            names = answers.parse_diff(answer.payload)
        except answers.AnswerError as exc:
            raise failures.corrupt(f"diff: {exc}", operation="diff") from exc
        if not names:
            # An unknown commit gives an empty diff too.
            known = {revision.id for revision in await reader.log(1000)}
            return frozenset() if {old, new} <= known else None
        paths: set[DocPath] = set()
        for name in names:
            path = decode_path(name, reader.dialect.rules)
            if isinstance(path, LongName):
                path = await reader.resolve(name)
                if path is None:
                    return None
            if path is not None:
                paths.add(path)
        return frozenset(paths)

    async def health(self) -> str:
        """Return the server's own word on itself: a hint, its requests' outcomes decide."""
        client = self._client
        if client is None:
            return "not connected"
        try:
            answer = await client.send(Request("GET", "/health", "health"))
            status, failing = answers.parse_status(answer.payload)
        except (StoreError, answers.AnswerError) as exc:
            return failures.shorten(str(exc))
        return f"{status}: {failing}" if failing else status

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        client, self._client = self._client, None
        self._reader = self._writer = None
        if client is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
                await client.aclose()
