"""A commit on the real server: stage the files, a few at a time, then one commit. Both architectures.

Used by `backend`. Where several clients write to the server at once, three things go wrong, all seen (test_traps).

It has one staging area for all clients, so another client's commit can take our files along; then there is "nothing
to commit", and what counts is whether they are there. Our own commit is made all the same, with a mark file, because
its trailers tell the other mounts what changed.

Two commits at once on v2 may get the same parent: one of them is then in no log, though its files are there. So the
log is read after each commit, and an operation that it does not show is committed once more, with a mark. One that
vanishes after that look is found by the next commit.

And two commits at once on v2, or a commit during another client's add, can end the server's process (Go: concurrent map
writes). No client can prevent that; it is a restart, hence an empty server to be seeded again.
"""

import collections
import random
from collections.abc import Iterable

import trio

from caiafs.backends.base import CommitResult, Revision
from caiafs.backends.govc import answers, codec, failures, texts
from caiafs.backends.govc.client import IN_FLIGHT, GovcClient
from caiafs.backends.govc.dialects.base import StagedDialect
from caiafs.backends.govc.limits import Limits
from caiafs.backends.govc.paths import MARK_PATH, encode_path, is_long
from caiafs.backends.govc.reader import Reader
from caiafs.backends.govc.sweep import Sweeper
from caiafs.backends.govc.tasks import for_each
from caiafs.backends.govc.wire import Answer
from caiafs.core.errors import Corrupt, NotFound, Refused, Unreachable
from caiafs.core.types import Change, ChangeSet, ContentSource, DocPath, Entry, GitMode

_TRIES = 30
_PAUSE_S = 0.002
_CONFIRM_LOG = 32


class StagedWriter:
    """Commits change sets to one repository."""

    def __init__(
        self,
        client: GovcClient,
        dialect: StagedDialect,
        reader: Reader,
        source: ContentSource,
        *,
        document_bytes: int,
    ) -> None:
        self._client = client
        self._dialect = dialect
        self._reader = reader
        self._source = source
        self._limits = Limits(dialect.capabilities.max_content_bytes or 1 << 30, document_bytes)
        self._sweeper = Sweeper(reader, source, self._limits)
        # Contents that this commit sends in parts.
        self._in_parts: dict[DocPath, codec.Header] = {}
        self._recent: collections.deque[tuple[ChangeSet, int]] = collections.deque(maxlen=4)

    @property
    def request_bytes(self) -> int:
        """The largest request, as far as the server has told."""
        return self._limits.request_bytes

    async def commit(self, change_set: ChangeSet, refused: dict[DocPath, str]) -> CommitResult:
        """Stage and commit; documents that are refused go into `refused` as they come."""
        self._in_parts.clear()
        await self._stage(change_set.changes, refused)
        swept = await self._sweeper.unused(change_set, refused)
        await self._remove_parts(swept)
        result = await self._commit_staged(change_set, refused)
        return await self._mend(change_set, swept, result)

    async def _commit_staged(
        self, change_set: ChangeSet, refused: dict[DocPath, str]
    ) -> CommitResult:
        missing: list[Change] = []
        for attempt in range(_TRIES):
            done = [change for change in change_set.changes if change.path not in refused]
            if not done:
                return CommitResult(None, tuple(sorted(refused.items())))
            answer = await self._send_commit(change_set)
            if not answer.code:
                revision = await self._confirm(change_set, _commit_of(answer))
                return CommitResult(revision, tuple(sorted(refused.items())))
            await trio.sleep(random.uniform(0, _PAUSE_S * attempt))  # noqa: S311 - jitter
            missing = await self._find_missing(done)
            await self._stage(missing, refused)
            await self._add(MARK_PATH, change_set.operation_id, None)
        if not missing:
            # All is there, in somebody else's commits, which are still to be looked at. Only the trailers are lost.
            return CommitResult(None, tuple(sorted(refused.items())))
        raise Unreachable(
            "other clients of govc keep taking our staged files along",
            backend=failures.GOVC,
            operation="commit",
        )

    async def _remove_parts(self, names: Iterable[str]) -> None:
        async def remove(name: str) -> None:
            request = self._dialect.plan_remove(name, None)
            assert request is not None, "a server that lists everything deletes, too"
            await self._client.send(request)

        await for_each(names, remove, width=IN_FLIGHT)

    async def _mend(
        self, change_set: ChangeSet, swept: tuple[str, ...], result: CommitResult
    ) -> CommitResult:
        """Send parts again that another client's commit, or ours, took from under a document."""
        lost = [*await self._sweeper.named(swept)]
        lost += [sent for sent in self._in_parts.values() if await self._sweeper.lacks(sent)]
        if not lost:
            return result
        for header in lost:
            await self._add_parts(header, None)
        answer = await self._send_commit(change_set)
        return result if answer.code else CommitResult(_commit_of(answer).id, result.refused)

    async def _confirm(self, change_set: ChangeSet, made: Revision) -> str:
        """See to it that our newest operations are in the log; return the id of the newest commit of ours."""
        if not self._dialect.loses_commits:
            return made.id
        self._recent.append((change_set, made.time_ns))
        for _ in range(_TRIES):
            try:
                shown = await self._reader.log(_CONFIRM_LOG)
            except Corrupt:
                break
            lost = [
                change_set
                for change_set, time_ns in self._recent
                if _lacks(shown, change_set, time_ns)
            ]
            if not lost:
                break
            for each in lost:
                await self._add(MARK_PATH, each.operation_id, None)
                answer = await self._send_commit(each)
                made = made if answer.code else _commit_of(answer)
        return made.id

    async def _send_commit(self, change_set: ChangeSet) -> Answer:
        """Commit what is staged; the answer has a code where there is nothing to commit."""
        answer = await self._client.send(
            self._dialect.plan_commit(
                texts.encode_message(change_set.message), texts.encode_author(change_set.author)
            )
        )
        if answer.code and "nothing to commit" not in answers.parse_error(answer.payload):
            words = failures.shorten(answers.parse_error(answer.payload))
            raise Unreachable(
                f"govc could not commit: {words}", backend=failures.GOVC, operation="commit"
            )
        return answer

    async def _find_missing(self, changes: Iterable[Change]) -> list[Change]:
        """Return the changes that the server does not show."""
        missing: list[Change] = []

        async def look(change: Change) -> None:
            held = await self._reader.entry(change.path)
            there = held is None if change.after is None else change.after.same_content(held)
            if not there:
                missing.append(change)

        await for_each(changes, look, width=IN_FLIGHT)
        return missing

    async def _stage(self, changes: Iterable[Change], refused: dict[DocPath, str]) -> None:
        async def stage(change: Change) -> None:
            try:
                if change.after is None:
                    await self._remove(change.path)
                else:
                    await self._put(change.path, change.after)
            except Refused as exc:
                refused[change.path] = exc.reason or str(exc)
            except (NotFound, Corrupt) as exc:
                if isinstance(exc, Corrupt) and exc.backend == failures.GOVC:
                    raise
                # From the ContentSource: one content that is not there must not hold up the others.
                refused[change.path] = f"its content cannot be read here: {exc}"

        await for_each(changes, stage, width=IN_FLIGHT)

    async def _remove(self, path: DocPath) -> None:
        name = encode_path(path, self._dialect.rules)
        request = self._dialect.plan_remove(name, path)
        if request is not None:
            await self._client.send(request)
            return
        text = codec.encode_tombstone(path if is_long(name) else None)
        await self._add(name, text, path)

    async def _put(self, path: DocPath, entry: Entry) -> None:
        name = encode_path(path, self._dialect.rules)
        told = path if is_long(name) else None
        if entry.mode == GitMode.GITLINK:
            header = codec.Header(entry.mode, entry.oid, 0, "none", path=told)
            await self._must_add(name, codec.encode_header(header), path)
            return
        size = entry.size_bytes if entry.size_bytes >= 0 else await self._source.size(entry.oid)
        self._limits.check(path, size)
        if size <= self._limits.request_bytes:
            content = await self._source.read(entry.oid)
            if await self._add(name, codec.encode_content(entry.mode, content, path=told), path):
                return
        while part_bytes := self._limits.part_bytes():
            header = codec.Header(entry.mode, entry.oid, size, "parts", part_bytes, told)
            if await self._add_parts(header, path):
                await self._must_add(name, codec.encode_header(header), path)
                self._in_parts[path] = header
                return
        raise self._too_large(path)

    async def _add_parts(self, header: codec.Header, path: DocPath | None) -> bool:
        """Stage the parts; False where the server takes no request of that size."""
        for index in range(header.part_count):
            start = index * header.part_bytes
            stop = min(start + header.part_bytes, header.size_bytes)
            content = await self._source.read_range(header.blob, start, stop)
            if len(content) != stop - start:
                raise Corrupt(f"content {header.blob} is shorter than its size says")
            if not await self._add(
                codec.part_name(header, index), codec.encode_part(content), path
            ):
                return False
        return True

    async def _add(self, name: str, text: str, path: DocPath | None) -> bool:
        """Stage one file; False where the request is too large for the server."""
        request = self._dialect.plan_add(name, text, path)
        body_bytes = len(request.body or b"")
        if body_bytes > self._limits.request_bytes:
            return False
        try:
            answer = await self._client.send(request)
        except Refused:
            answer = None
        # The server gives one request the answer of another whose client went away, once.
        if answer is None or not (answer.code or answers.is_of_add(answer.payload, name)):
            answer = await self._client.send(request)
        if not answer.code:
            return True
        self._limits.learn(answer.payload, body_bytes)
        return False

    async def _must_add(self, name: str, text: str, path: DocPath) -> None:
        if not await self._add(name, text, path):
            raise self._too_large(path)

    def _too_large(self, path: DocPath) -> Refused:
        words = f"the server takes no request above {self._limits.request_bytes} bytes"
        return Refused(words, path=path, reason=words, backend=failures.GOVC, operation="add")


def _commit_of(answer: Answer) -> Revision:
    try:
        return answers.parse_revision(answer.payload)
    except answers.AnswerError as exc:
        raise failures.corrupt(f"commit: {exc}", operation="commit") from exc


def _lacks(shown: tuple[Revision, ...], change_set: ChangeSet, time_ns: int) -> bool:
    """Whether a log that reaches back far enough does not show the operation."""
    if any(texts.names_operation(r.message, change_set.operation_id) for r in shown):
        return False
    return not shown or shown[-1].parent is None or shown[-1].time_ns < time_ns
