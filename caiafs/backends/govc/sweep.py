"""Parts that no document has any more: which ones a commit leaves behind, where the server can list and delete.

Used by the writers. Parts are named after their content, so documents with the same content share them, and a part may
go only when no envelope on the server names its blob. Another client may be writing such an envelope meanwhile, and
nothing on the server can lock it out; hence two looks that close each other's gap. Who removed looks again after the
commit and puts back what is named by then (`named`); who sent parts looks after the commit whether they are still there (`lacks`).

v2 cannot delete: there parts stay for ever. So do those of documents below an eighth of a request, of a blob that is not here
any more, and of a commit that was cut off half-way.
"""

import logging
from collections.abc import Collection, Iterable

from caiafs.backends.govc import codec
from caiafs.backends.govc.answers import Listed
from caiafs.backends.govc.client import IN_FLIGHT
from caiafs.backends.govc.limits import Limits
from caiafs.backends.govc.paths import PARTS_DIR, encode_path, is_long
from caiafs.backends.govc.reader import Reader
from caiafs.backends.govc.tasks import for_each
from caiafs.core.errors import Absent, Corrupt, NotFound
from caiafs.core.types import ChangeSet, ContentSource, DocPath, GitMode, ObjectId

log = logging.getLogger(__name__)

_SMALLEST_SHARE = 8
"""JSON makes a content at most six times as large, so that smaller ones went whole."""


class Sweeper:
    """Knows which parts are in use in one repository."""

    def __init__(self, reader: Reader, source: ContentSource, limits: Limits) -> None:
        self._reader = reader
        self._source = source
        self._limits = limits

    async def unused(self, change_set: ChangeSet, refused: Collection[DocPath]) -> tuple[str, ...]:
        """Return the names of the parts that nobody needs once `change_set` is applied.

        Empty where the server does not show well enough what it holds: sweeping fails no commit.
        """
        dialect = self._reader.dialect
        if not dialect.capabilities.lists:
            return ()
        sizes = await self._replaced(change_set, refused)
        if not sizes:
            return ()
        done = (change.path for change in change_set.changes if change.path not in refused)
        replaced = {encode_path(path, dialect.rules) for path in done}
        try:
            listed = await self._reader.listed()
            others = [item for item in listed if item.name not in replaced]
            used = {header.blob for header in await self._named(others, sizes)}
        except (Absent, Corrupt) as exc:
            log.warning("parts of replaced documents stay in govc: %s", exc)
            return ()
        return tuple(item.name for item in listed if blob_of_part(item.name) in sizes.keys() - used)

    async def named(self, parts: Iterable[str]) -> tuple[codec.Header, ...]:
        """Return the headers on the server that name the content of one of these removed `parts`."""
        sizes: dict[ObjectId, int] = {}
        for name in parts:
            blob = blob_of_part(name)
            if blob is not None and blob not in sizes:
                sizes[blob] = await self._source.size(blob)
        if not sizes:
            return ()
        try:
            return tuple(await self._named(await self._reader.listed(), sizes))
        except (Absent, Corrupt) as exc:
            log.warning("govc does not show whether removed parts were needed: %s", exc)
            return ()

    async def lacks(self, header: codec.Header) -> bool:
        """Whether a part of a document that we sent has gone; the first and the last tell."""
        if not self._reader.dialect.capabilities.lists:
            return False
        for index in {0, header.part_count - 1}:
            if not await self._reader.holds(codec.part_name(header, index)):
                return True
        return False

    async def _replaced(
        self, change_set: ChangeSet, refused: Collection[DocPath]
    ) -> dict[ObjectId, int]:
        """Return the contents with parts on the server that the change set takes away, with their sizes."""
        kept = {change.after.oid for change in change_set.changes if change.after is not None}
        sizes: dict[ObjectId, int] = {}
        for change in change_set.changes:
            before = change.before
            if before is None or change.path in refused or before.mode == GitMode.GITLINK:
                continue
            if before.oid in kept or before.oid in sizes:
                continue
            try:
                # Not `before.size_bytes`: what is not here could not be put back.
                size = await self._source.size(before.oid)
            except (NotFound, Corrupt):
                continue
            large = size >= self._limits.request_bytes // _SMALLEST_SHARE
            if large and await self._has_parts(before.oid, size):
                sizes[before.oid] = size
        return sizes

    async def _has_parts(self, blob: ObjectId, size: int) -> bool:
        for part_bytes in codec.PART_SIZES:
            header = codec.Header(GitMode.FILE, blob, size, "parts", part_bytes)
            if await self._reader.holds(codec.part_name(header, 0)):
                return True
        return False

    async def _named(
        self, listed: Iterable[Listed], sizes: dict[ObjectId, int]
    ) -> list[codec.Header]:
        """Return the envelopes in `listed` that name one of the blobs in `sizes`.

        Raises:
            Absent: a name that may be such an envelope cannot be read.
        """
        found: list[codec.Header] = []

        async def look(item: Listed) -> None:
            try:
                stored = await self._reader.file(item.name, None)
            except Corrupt:
                return  # no document, so nobody's
            if isinstance(stored, codec.Stored) and _needs_parts(stored.header, sizes):
                found.append(stored.header)

        lengths = _envelope_lengths(sizes)
        worth = [
            item
            for item in listed
            if blob_of_part(item.name) is None
            and (item.size_bytes < 0 or item.size_bytes in lengths or is_long(item.name))
        ]
        await for_each(worth, look, width=IN_FLIGHT)
        return found


def blob_of_part(name: str) -> ObjectId | None:
    """Return the blob that a name on the server holds a part of, None for any other name."""
    first, _, rest = name.partition("/")
    return ObjectId(rest.partition("/")[0]) if first == PARTS_DIR else None


def _needs_parts(header: codec.Header, sizes: dict[ObjectId, int]) -> bool:
    return header.encoding == "parts" and header.blob in sizes


def _envelope_lengths(sizes: dict[ObjectId, int]) -> frozenset[int]:
    """Return how long envelopes of these contents are, where the name tells the path."""
    return frozenset(
        len(codec.encode_header(codec.Header(GitMode.FILE, blob, size, "parts", part_bytes)))
        for blob, size in sizes.items()
        for part_bytes in codec.PART_SIZES
    )
