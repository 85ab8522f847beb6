"""A commit in the service contract: one request, in which all of it is. Used by `backend`.

A change set that is larger than a request may be goes as several commits, the last of which carries the change
set's own operation id; parts of large documents come first, so that no document is ever seen without them.
"""

from dataclasses import dataclass, field

from caiafs.backends.base import CommitResult
from caiafs.backends.govc import answers, codec, failures, texts
from caiafs.backends.govc.client import GovcClient
from caiafs.backends.govc.dialects.base import CommitPlan, FilePut
from caiafs.backends.govc.dialects.contract import ENVELOPE_KIND, Contract
from caiafs.backends.govc.limits import Limits
from caiafs.backends.govc.paths import encode_path, is_long
from caiafs.backends.govc.reader import Reader
from caiafs.backends.govc.wire import Answer
from caiafs.core.errors import Corrupt, NotFound, Refused, Unreachable
from caiafs.core.types import ChangeSet, ContentSource, DocPath, Entry, GitMode

PART_KIND = "caiafs-part"
_FILE_OVERHEAD = 1024
_TRIES = 100


@dataclass
class _Batch:
    """Files for one request, as they gather."""

    files: list[FilePut] = field(default_factory=list)
    size_bytes: int = 0


class WholeWriter:
    """Commits change sets to one repository."""

    def __init__(
        self, client: GovcClient, dialect: Contract, reader: Reader, source: ContentSource
    ) -> None:
        self._client = client
        self._dialect = dialect
        self._reader = reader
        self._source = source
        self._limits = Limits(dialect.capabilities.max_content_bytes or 1 << 30)

    async def commit(self, change_set: ChangeSet, refused: dict[DocPath, str]) -> CommitResult:
        """Send the commit; documents that are refused go into `refused` as they come."""
        for _ in range(_TRIES):
            limit = self._limits.request_bytes
            answer = await self._send_all(change_set, refused)
            if answer is None:
                newest = await self._reader.log(1)
                return CommitResult(newest[0].id if newest else None, tuple(refused.items()))
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

    async def _send_all(self, change_set: ChangeSet, refused: dict[DocPath, str]) -> Answer | None:
        """Send as few requests as possible; return the last answer, or the first that is no success."""
        batch = _Batch()
        sent = 0
        deletions: list[str] = []
        for change in change_set.changes:
            if change.path in refused:
                continue
            if change.after is None:
                deletions.append(encode_path(change.path, self._dialect.rules))
                continue
            try:
                files = await self._files(change.path, change.after)
            except Refused as exc:
                refused[change.path] = exc.reason
                continue
            except (NotFound, Corrupt) as exc:
                refused[change.path] = f"its content cannot be read here: {exc}"
                continue
            for file in files:
                size = _wire_bytes(file)
                if batch.files and batch.size_bytes + size > self._limits.request_bytes // 2:
                    sent += 1
                    answer = await self._send(change_set, batch, (), f"/{sent}")
                    if answer.code:
                        return answer
                    batch = _Batch()
                batch.files.append(file)
                batch.size_bytes += size
        if not batch.files and not deletions:
            return None
        return await self._send(change_set, batch, tuple(deletions), "")

    async def _send(
        self, change_set: ChangeSet, batch: _Batch, deletions: tuple[str, ...], suffix: str
    ) -> Answer:
        message = change_set.message if not suffix else f"Part of {change_set.operation_id}"
        request = self._dialect.plan_commit(
            CommitPlan(
                change_set.operation_id + suffix,
                message.encode("utf-8", "replace").decode(),
                texts.encode_author(change_set.author),
                tuple(batch.files),
                deletions,
            )
        )
        answer = await self._client.send(request)
        if answer.code == "REQUEST_TOO_LARGE":
            self._limits.learn(answer.payload, len(request.body or b""))
        return answer

    async def _files(self, path: DocPath, entry: Entry) -> list[FilePut]:
        """Return the files that stand for one document, parts first."""
        name = encode_path(path, self._dialect.rules)
        told = path if is_long(name) else None
        if entry.mode == GitMode.GITLINK:
            return [_envelope(name, codec.Header(entry.mode, entry.oid, 0, "none", path=told))]
        size = entry.size_bytes if entry.size_bytes >= 0 else await self._source.size(entry.oid)
        if size <= self._limits.request_bytes // 4 and told is None:
            return [FilePut(name, await self._source.read(entry.oid), entry.mode)]
        if size <= self._limits.request_bytes // 4:
            text = codec.encode_content(entry.mode, await self._source.read(entry.oid), path=told)
            return [FilePut(name, text.encode(), GitMode.FILE, ENVELOPE_KIND)]
        part_bytes = self._limits.part_bytes()
        if part_bytes is None:
            words = f"the server takes no request above {self._limits.request_bytes} bytes"
            raise Refused(words, path=path, reason=words, backend=failures.GOVC)
        header = codec.Header(entry.mode, entry.oid, size, "parts", part_bytes, told)
        files: list[FilePut] = []
        for index in range(header.part_count):
            start = index * part_bytes
            content = await self._source.read_range(entry.oid, start, min(start + part_bytes, size))
            text = codec.encode_part(content)
            files.append(
                FilePut(codec.part_name(header, index), text.encode(), GitMode.FILE, PART_KIND)
            )
        return [*files, _envelope(name, header)]

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


def _wire_bytes(file: FilePut) -> int:
    return len(file.content) * 4 // 3 + len(file.name) + _FILE_OVERHEAD


def _envelope(name: str, header: codec.Header) -> FilePut:
    return FilePut(name, codec.encode_header(header).encode(), GitMode.FILE, ENVELOPE_KIND)


def _commit_id(answer: Answer) -> str:
    try:
        return answers.parse_commit_id(answer.payload)
    except answers.AnswerError as exc:
        raise failures.corrupt(f"commit: {exc}", operation="commit") from exc
