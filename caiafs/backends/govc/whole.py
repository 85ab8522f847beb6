"""A commit in the service contract: one request, in which all of it is. Used by `backend`.

A change set that is larger than a request may be goes as several commits, the last of which carries the change
set's own operation id; parts of large documents come first, so that no document is ever seen without them.
"""

from collections.abc import Awaitable, Callable

from caiafs.backends.base import CommitResult
from caiafs.backends.govc import answers, codec, failures, texts
from caiafs.backends.govc.client import GovcClient
from caiafs.backends.govc.dialects.base import CommitPlan, FilePut
from caiafs.backends.govc.dialects.contract import ENVELOPE_KIND, Contract
from caiafs.backends.govc.limits import Limits
from caiafs.backends.govc.paths import encode_path, is_long
from caiafs.backends.govc.reader import Reader
from caiafs.backends.govc.sweep import Sweeper
from caiafs.backends.govc.wire import Answer
from caiafs.core.errors import Corrupt, NotFound, Refused, Unreachable
from caiafs.core.types import ChangeSet, ContentSource, DocPath, Entry, GitMode

PART_KIND = "caiafs-part"
_FILE_OVERHEAD = 1024
_TRIES = 100


class _NotTaken(Exception):
    """A request of several came back with a code; the rest is not sent."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


class _Sending:
    """One pass over a change set: gathers files and sends a commit whenever a request is full."""

    def __init__(self, send: "Send", budget_bytes: int) -> None:
        self._send = send
        self._budget_bytes = budget_bytes
        self._files: list[FilePut] = []
        self._size_bytes = 0
        self._sent = 0

    async def add(self, file: FilePut) -> None:
        """Take one file, sending what came before where both do not fit."""
        size = len(file.content) * 4 // 3 + len(file.name) + _FILE_OVERHEAD
        if self._files and self._size_bytes + size > self._budget_bytes:
            self._sent += 1
            answer = await self._send(tuple(self._files), (), f"/{self._sent}")
            if answer.code:
                raise _NotTaken(answer)
            self._files, self._size_bytes = [], 0
        self._files.append(file)
        self._size_bytes += size

    async def finish(self, deletions: tuple[str, ...]) -> Answer | None:
        """Send the last commit; None where there is nothing to commit at all."""
        if not self._files and not deletions:
            return None
        return await self._send(tuple(self._files), deletions, "")


Send = Callable[[tuple[FilePut, ...], tuple[str, ...], str], Awaitable[Answer]]


class WholeWriter:
    """Commits change sets to one repository."""

    def __init__(
        self,
        client: GovcClient,
        dialect: Contract,
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

    @property
    def request_bytes(self) -> int:
        """The largest request, as far as the server has told."""
        return self._limits.request_bytes

    async def commit(self, change_set: ChangeSet, refused: dict[DocPath, str]) -> CommitResult:
        """Send the commit; documents that are refused go into `refused` as they come."""
        self._in_parts.clear()
        swept = await self._sweeper.unused(change_set, refused)
        result = await self._commit(change_set, refused, swept)
        return await self._mend(change_set, swept, result)

    async def _mend(
        self, change_set: ChangeSet, swept: tuple[str, ...], result: CommitResult
    ) -> CommitResult:
        """Send parts again that another client's commit, or ours, took from under a document."""
        lost = [*await self._sweeper.named(swept)]
        lost += [sent for sent in self._in_parts.values() if await self._sweeper.lacks(sent)]
        count = 0

        async def send(files: tuple[FilePut, ...], _: tuple[str, ...], _suffix: str) -> Answer:
            nonlocal count, result
            count += 1
            answer = await self._send(change_set, files, (), f"/mend-{count}")
            if not answer.code:
                result = CommitResult(_commit_id(answer), result.refused)
            return answer

        sending = _Sending(send, self._limits.request_bytes // 2)
        for header in lost:
            await self._add_parts(header, sending)
        await sending.finish(())
        return result

    async def _commit(
        self, change_set: ChangeSet, refused: dict[DocPath, str], swept: tuple[str, ...]
    ) -> CommitResult:
        for _ in range(_TRIES):
            limit = self._limits.request_bytes
            answer = await self._send_all(change_set, refused, swept)
            if answer is None:
                return CommitResult(None, tuple(sorted(refused.items())))
            if not answer.code:
                return CommitResult(_commit_id(answer), tuple(sorted(refused.items())))
            if answer.code == "DOCUMENT_REFUSED":
                self._refuse(answer, change_set, refused)
            elif self._limits.request_bytes == limit:
                break
        raise Unreachable(
            "govc refuses the commit and does not say for which document",
            backend=failures.GOVC,
            operation="commit",
        )

    async def _send_all(
        self, change_set: ChangeSet, refused: dict[DocPath, str], swept: tuple[str, ...]
    ) -> Answer | None:
        """Send as few requests as possible; return the last answer, or the first that is no success."""

        async def send(files: tuple[FilePut, ...], gone: tuple[str, ...], suffix: str) -> Answer:
            return await self._send(change_set, files, gone, suffix)

        sending = _Sending(send, self._limits.request_bytes // 2)
        deletions: list[str] = list(swept)
        try:
            for change in change_set.changes:
                if change.path in refused:
                    continue
                if change.after is None:
                    deletions.append(encode_path(change.path, self._dialect.rules))
                    continue
                await self._put(change.path, change.after, sending, refused)
            return await sending.finish(tuple(deletions))
        except _NotTaken as stopped:
            return stopped.answer

    async def _send(
        self,
        change_set: ChangeSet,
        files: tuple[FilePut, ...],
        deletions: tuple[str, ...],
        suffix: str,
    ) -> Answer:
        message = change_set.message if not suffix else f"Part of {change_set.operation_id}"
        request = self._dialect.plan_commit(
            CommitPlan(
                change_set.operation_id + suffix,
                message.encode("utf-8", "replace").decode(),
                texts.encode_author(change_set.author),
                files,
                deletions,
            )
        )
        answer = await self._client.send(request)
        if answer.code == "REQUEST_TOO_LARGE":
            self._limits.learn(answer.payload, len(request.body or b""))
        return answer

    async def _put(
        self, path: DocPath, entry: Entry, sending: _Sending, refused: dict[DocPath, str]
    ) -> None:
        try:
            await self._add(path, entry, sending)
        except Refused as exc:
            if exc.path != path:
                raise  # a whole request, not this document
            refused[path] = exc.reason
        except (NotFound, Corrupt) as exc:
            if isinstance(exc, Corrupt) and exc.backend == failures.GOVC:
                raise
            refused[path] = f"its content cannot be read here: {exc}"

    async def _add(self, path: DocPath, entry: Entry, sending: _Sending) -> None:
        """Add the files that stand for one document, parts first."""
        name = encode_path(path, self._dialect.rules)
        told = path if is_long(name) else None
        if entry.mode == GitMode.GITLINK:
            await sending.add(
                _envelope(name, codec.Header(entry.mode, entry.oid, 0, "none", path=told))
            )
            return
        size = entry.size_bytes if entry.size_bytes >= 0 else await self._source.size(entry.oid)
        self._limits.check(path, size)
        if size <= self._limits.request_bytes // 4:
            await sending.add(_whole(name, entry.mode, await self._source.read(entry.oid), told))
            return
        part_bytes = self._limits.part_bytes()
        if part_bytes is None:
            words = f"the server takes no request above {self._limits.request_bytes} bytes"
            raise Refused(words, path=path, reason=words, backend=failures.GOVC)
        header = codec.Header(entry.mode, entry.oid, size, "parts", part_bytes, told)
        await self._add_parts(header, sending)
        await sending.add(_envelope(name, header))
        self._in_parts[path] = header

    async def _add_parts(self, header: codec.Header, sending: _Sending) -> None:
        for index in range(header.part_count):
            start = index * header.part_bytes
            stop = min(start + header.part_bytes, header.size_bytes)
            content = await self._source.read_range(header.blob, start, stop)
            if len(content) != stop - start:
                raise Corrupt(f"content {header.blob} is shorter than its size says")
            text = codec.encode_part(content).encode()
            name = codec.part_name(header, index)
            await sending.add(FilePut(name, text, GitMode.FILE, PART_KIND))

    def _refuse(self, answer: Answer, change_set: ChangeSet, refused: dict[DocPath, str]) -> None:
        """Leave out the document that the answer names."""
        name = answers.parse_refused_path(answer.payload)
        words = failures.shorten(answers.parse_error(answer.payload)) or answer.code
        for change in change_set.changes:
            if encode_path(change.path, self._dialect.rules) == name and change.path not in refused:
                refused[change.path] = words
                return
        raise Unreachable(
            f"govc refuses a document that we did not send: {words}",
            backend=failures.GOVC,
            operation="commit",
        )


def _whole(name: str, mode: int, content: bytes, path: DocPath | None) -> FilePut:
    """Return a document as one file; enveloped where only the envelope can hold its `path`."""
    if path is None:
        return FilePut(name, content, mode)
    text = codec.encode_content(mode, content, path=path)
    return FilePut(name, text.encode(), GitMode.FILE, ENVELOPE_KIND)


def _envelope(name: str, header: codec.Header) -> FilePut:
    return FilePut(name, codec.encode_header(header).encode(), GitMode.FILE, ENVELOPE_KIND)


def _commit_id(answer: Answer) -> str:
    try:
        return answers.parse_commit_id(answer.payload)
    except answers.AnswerError as exc:
        raise failures.corrupt(f"commit: {exc}", operation="commit") from exc
