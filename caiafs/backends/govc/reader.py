"""Documents and logs from a server: sends what a dialect plans, believes nothing that does not check.

Used by `backend` and by the writers. A name, a size, a blob id or an envelope that does not fit is Corrupt, and says of which document.
"""

import hashlib
import io
import logging
from typing import BinaryIO

import trio

from caiafs.backends.base import Document, Listing, Revision
from caiafs.backends.govc import answers, codec, failures, texts
from caiafs.backends.govc.client import IN_FLIGHT, GovcClient
from caiafs.backends.govc.dialects.base import Dialect
from caiafs.backends.govc.paths import (
    MARK_PATH,
    PARTS_DIR,
    LongName,
    decode_path,
    encode_path,
    is_long,
)
from caiafs.backends.govc.tasks import for_each
from caiafs.core.errors import Absent, Corrupt, Refused
from caiafs.core.types import DocPath, Entry, GitMode, ObjectId

log = logging.getLogger(__name__)

READ_MAX_BYTES = 1 << 32
LISTING_READS = 5000
"""Above so many documents whose id only a read would tell, a listing names them without it."""
UNKNOWN = ObjectId("")


class Reader:
    """Reads one repository."""

    def __init__(self, client: GovcClient, dialect: Dialect) -> None:
        self._client = client
        self.dialect = dialect

    async def log(self, limit: int) -> tuple[Revision, ...]:
        """Return the newest `limit` commits or fewer, messages decoded."""
        while True:
            answer = await self._client.send(self.dialect.plan_log(limit))
            if not answer.code:
                break
            if limit <= 1:
                raise failures.corrupt("govc cannot read its own log", operation="log")
            # v2 on disk: one commit with a newline in its author spoils every log that reaches back to it.
            limit //= 2
        try:
            revisions = self.dialect.parse_log(answer.payload)
        except answers.AnswerError as exc:
            raise failures.corrupt(f"log: {exc}", operation="log") from exc
        return tuple(_with_message(revision) for revision in revisions[:limit])

    async def read(self, path: DocPath) -> Document | None:
        """Return the document at `path`, checked.

        Raises:
            Absent: the server refuses to show what is there, if anything is.
        """
        stored = await self._stored(encode_path(path, self.dialect.rules), path)
        if stored is None:
            return None
        content = stored.content
        if content is None:
            joined = io.BytesIO()
            await self._join_parts(stored.header, path, joined)
            content = joined.getvalue()
        return Document(to_entry(stored.header), content)

    async def read_to(self, path: DocPath, file: BinaryIO) -> Entry | None:
        """Write the document at `path` to `file`, checked, a part at a time; see `GovcBackend.read_to`."""
        stored = await self._stored(encode_path(path, self.dialect.rules), path)
        if stored is None:
            return None
        if stored.content is None:
            await self._join_parts(stored.header, path, file)
        else:
            await trio.to_thread.run_sync(file.write, stored.content)
        return to_entry(stored.header)

    async def entry(self, path: DocPath) -> Entry | None:
        """Return what is at `path` without fetching parts; `UNKNOWN` as oid where it makes no sense."""
        try:
            stored = await self._stored(encode_path(path, self.dialect.rules), path)
        except (Absent, Corrupt) as exc:
            log.warning("govc holds no readable document there: %s", exc)
            return Entry(GitMode.FILE, UNKNOWN)
        return None if stored is None else to_entry(stored.header)

    async def listing(self) -> Listing:
        """Return what the server lists. Bad names are left out and logged, one bad entry costs that entry."""
        newest = await self.log(1)
        listed = await self.listed()
        entries: dict[DocPath, Entry] = {}
        unread: list[tuple[str, DocPath | None]] = []
        for item in listed:
            self._sort_in(item, entries, unread)
        too_many = len(unread) > LISTING_READS

        async def look(item: tuple[str, DocPath | None]) -> None:
            name, path = item
            if too_many and path is not None:
                entries[path] = Entry(GitMode.FILE, UNKNOWN)
                return
            await self._look(name, path, entries)

        await for_each(unread, look, width=IN_FLIGHT)
        return Listing(entries, self.dialect.capabilities.lists, newest[0].id if newest else None)

    async def listed(self) -> tuple[answers.Listed, ...]:
        """Return the names that the server lists, parts and marks included."""
        answer = await self._client.send(self.dialect.plan_listing())
        try:
            return self.dialect.parse_listing(answer.payload)
        except answers.AnswerError as exc:
            raise failures.corrupt(f"listing: {exc}", operation="list") from exc

    async def holds(self, name: str) -> bool:
        """Whether the server has a file of this name, whatever is in it."""
        return not (await self._client.send(self.dialect.plan_read(name, None))).code

    async def resolve(self, name: str) -> DocPath | None:
        """Return the path of a long name, None where its envelope is gone or not one."""
        try:
            stored = await self.file(name, None)
        except (Absent, Corrupt):
            return None
        path = _path_of(stored)
        return path if path and encode_path(path, self.dialect.rules) == name else None

    def _sort_in(
        self,
        item: answers.Listed,
        entries: dict[DocPath, Entry],
        unread: list[tuple[str, DocPath | None]],
    ) -> None:
        """Put one listed name where it belongs: among what is known, what must be read, or nowhere."""
        if item.name == MARK_PATH or item.name.startswith(PARTS_DIR + "/"):
            return
        path = decode_path(item.name, self.dialect.rules)
        if path is None:
            log.warning("govc lists a name that no file can have: %s", failures.shorten(item.name))
        elif isinstance(path, LongName):
            unread.append((item.name, None))
        elif _is_object_id(item.oid) and not item.kind and item.mode in codec.CONTENT_MODES:
            entries[path] = Entry(item.mode, ObjectId(item.oid), item.size_bytes)
        else:
            unread.append((item.name, path))

    async def _look(self, name: str, path: DocPath | None, entries: dict[DocPath, Entry]) -> None:
        if path is not None:
            entry = await self.entry(path)
            if entry is not None:
                entries[path] = entry
            return
        try:
            stored = await self.file(name, None)
        except (Absent, Corrupt) as exc:
            log.warning("govc holds no readable document there: %s", exc)
            return
        path = _path_of(stored)
        if path is None or encode_path(path, self.dialect.rules) != name:
            return
        if isinstance(stored, codec.Stored):
            entries[path] = to_entry(stored.header)

    async def _stored(self, name: str, path: DocPath) -> codec.Stored | None:
        stored = await self.file(name, path)
        if stored is None:
            return None
        told = _path_of(stored)
        if told != path and (told is not None or is_long(name)):
            raise failures.corrupt(
                "the envelope is another document's", operation="read", path=path
            )
        return None if isinstance(stored, codec.Tombstone) else stored

    async def file(self, name: str, path: DocPath | None) -> codec.Stored | codec.Tombstone | None:
        """Return what `name` stands for, None where the server has no such file."""
        file = await self._ask_twice(name, path)
        if file is None:
            return None
        try:
            return self.dialect.decode_file(file)
        except codec.DecodeError as exc:
            raise _corrupt(exc, name, path) from exc

    async def _ask_twice(self, name: str, path: DocPath | None) -> answers.File | None:
        """Ask for a file; once more where the answer makes no sense.

        Nothing else asks again before the next comparison: a garbled answer would hide somebody's edit until then.
        """
        try:
            return await self._ask(name, path)
        except Corrupt as exc:
            log.info("asking again: %s", exc)
        return await self._ask(name, path)

    async def _ask(self, name: str, path: DocPath | None) -> answers.File | None:
        try:
            answer = await self._client.send(self.dialect.plan_read(name, path))
        except Refused as exc:
            # A name that the server does not let through: nobody knows what is there.
            raise Absent(str(exc), backend=failures.GOVC, operation="read") from exc
        if answer.code:
            return None
        try:
            return answers.parse_file(answer.payload, name)
        except answers.AnswerError as exc:
            raise _corrupt(exc, name, path) from exc

    async def _join_parts(self, header: codec.Header, path: DocPath, file: BinaryIO) -> None:
        """Write the parts to `file` one after the other; what does not add up is taken back."""
        in_memory = isinstance(file, io.BytesIO)
        if in_memory and header.size_bytes > READ_MAX_BYTES:
            raise failures.corrupt("the size is absurd", operation="read", path=path)
        start = file.tell()
        digest = hashlib.sha1(b"blob %d\0" % header.size_bytes)
        try:
            for index in range(header.part_count):
                part = await self._part(header, index, path)
                digest.update(part)
                if in_memory:
                    file.write(part)
                else:
                    await trio.to_thread.run_sync(file.write, part)
            if digest.hexdigest() != header.blob:
                raise failures.corrupt(
                    "the parts do not add up to the blob", operation="read", path=path
                )
        except BaseException:
            file.seek(start)
            file.truncate()
            raise

    async def _part(self, header: codec.Header, index: int, path: DocPath) -> bytes:
        name = codec.part_name(header, index)
        answer = await self._client.send(self.dialect.plan_read(name, path))
        if answer.code:
            raise failures.corrupt(f"part {index} is missing", operation="read", path=path)
        try:
            return codec.decode_part(
                answers.parse_file(answer.payload, name).content, header, index
            )
        except (answers.AnswerError, codec.DecodeError) as exc:
            raise failures.corrupt(str(exc), operation="read", path=path) from exc


def _corrupt(exc: Exception, name: str, path: DocPath | None) -> Corrupt:
    at = path if path is not None else name.encode("utf-8", "surrogatepass")
    return failures.corrupt(str(exc), operation="read", path=at)


def to_entry(header: codec.Header) -> Entry:
    """Return the entry that an envelope's header describes."""
    return Entry(header.mode, header.blob, header.size_bytes)


def _path_of(stored: codec.Stored | codec.Tombstone | None) -> DocPath | None:
    if stored is None:
        return None
    return stored.header.path if isinstance(stored, codec.Stored) else stored.path


def _is_object_id(text: str) -> bool:
    return len(text) == 40 and set(text) <= set("0123456789abcdef")


def _with_message(revision: Revision) -> Revision:
    return Revision(
        revision.id,
        texts.decode_message(revision.message),
        revision.author_name,
        revision.author_email,
        revision.time_ns,
        revision.parent,
    )
