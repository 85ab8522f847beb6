"""What a large content is made of: ranges of a spool file laid over a base blob.

Used by vfs.body (mount process, which changes them) and by the publisher (which only reads).
Pure: no I/O.

A spool file is append-only as far as a version refers to it: bytes below `sealed` are never written
again, so a version is the spool file plus this map at the time it was closed. Bytes after it may be
overwritten in place.
"""

import bisect
import struct
from dataclasses import dataclass
from typing import Self

from caiafs.core.errors import StateCorrupt
from caiafs.core.types import ObjectId

_HEADER = struct.Struct("<B20sQQQ")
_PIECE = struct.Struct("<QQQ")
_FORMAT = 1


@dataclass(slots=True)
class Piece:
    """Bytes [start, stop) of the content stand at `spool_offset` of the spool file."""

    start: int
    stop: int
    spool_offset: int


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes [start, stop) come from `origin` ("spool", "base" or "zero") at `offset`."""

    start: int
    stop: int
    origin: str
    offset: int


class Extents:
    """A map from content offsets to where the bytes are.

    Attributes:
        size: content length in bytes.
        base: blob below the pieces, None without.
        base_limit: bytes of the base that still show; a truncation lowers it for good.
        spool_end: where the next append goes.
        sealed: spool bytes below it belong to a closed version.
    """

    __slots__ = ("_pieces", "base", "base_limit", "sealed", "size", "spool_end")

    def __init__(self, *, base: ObjectId | None = None, base_size: int = 0) -> None:
        self.base = base
        self.base_limit = base_size
        self.size = base_size
        self.spool_end = 0
        self.sealed = 0
        self._pieces: list[Piece] = []

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The pieces, sorted, not overlapping."""
        return tuple(self._pieces)

    @property
    def is_plain_file(self) -> bool:
        """Whether the spool file, as it stands, is the content."""
        if self.size == 0 or len(self._pieces) != 1:
            return False
        piece = self._pieces[0]
        return (
            piece.start == 0
            and piece.stop == self.size == self.spool_end
            and not piece.spool_offset
        )

    def _first_ending_after(self, offset: int) -> int:
        """Index of the first piece that ends after `offset`."""
        return bisect.bisect_right(self._pieces, offset, key=lambda piece: piece.stop)

    def plan_place(self, start: int, length: int) -> int:
        """Return the spool offset that `place` would give these bytes; nothing changes."""
        index = self._first_ending_after(start)
        if index < len(self._pieces):
            piece = self._pieces[index]
            where = piece.spool_offset + start - piece.start
            if piece.start <= start and start + length <= piece.stop and where >= self.sealed:
                return where
        return self.spool_end

    def place(self, start: int, length: int) -> None:
        """Show `length` bytes at `start` that were just written where `plan_place` said."""
        where = self.plan_place(start, length)
        if where != self.spool_end:
            return
        self._replace(start, start + length, where)
        self.spool_end += length
        self.size = max(self.size, start + length)

    def _replace(self, start: int, stop: int, spool_offset: int | None) -> None:
        """Cut [start, stop) out of the pieces; put a new one there if `spool_offset` says where."""
        index = self._first_ending_after(start)
        new: list[Piece] = []
        end = index
        while end < len(self._pieces) and self._pieces[end].start < stop:
            old = self._pieces[end]
            if old.start < start:
                new.append(Piece(old.start, start, old.spool_offset))
            if old.stop > stop:
                new.append(Piece(stop, old.stop, old.spool_offset + stop - old.start))
            end += 1
        if spool_offset is not None:
            where = next((i for i, piece in enumerate(new) if piece.start >= stop), len(new))
            new.insert(where, Piece(start, stop, spool_offset))
        self._pieces[index:end] = new
        if spool_offset is not None:
            self._join_left(bisect.bisect_left(self._pieces, start, key=lambda piece: piece.start))

    def _join_left(self, index: int) -> None:
        """Make one piece of `index` and the one before it where both go on from each other."""
        if not index:
            return
        left, right = self._pieces[index - 1], self._pieces[index]
        goes_on = left.spool_offset + (left.stop - left.start) == right.spool_offset
        if left.stop == right.start and goes_on:
            left.stop = right.stop
            del self._pieces[index]

    def truncate(self, size: int) -> None:
        """Make the content `size` bytes long; what is added reads as zeros."""
        if size < self.size:
            self._replace(size, self.size, None)
            self.base_limit = min(self.base_limit, size)
        self.size = size

    def plan_read(self, start: int, stop: int) -> list[Source]:
        """Return where bytes [start, min(stop, size)) come from, in order and without gaps."""
        stop = min(stop, self.size)
        plan: list[Source] = []
        offset = start
        index = self._first_ending_after(start)
        while offset < stop:
            piece = self._pieces[index] if index < len(self._pieces) else None
            if piece is not None and piece.start <= offset:
                end = min(stop, piece.stop)
                plan.append(Source(offset, end, "spool", piece.spool_offset + offset - piece.start))
                index += 1
            else:
                limit = min(stop, piece.start) if piece is not None else stop
                end = min(limit, self.base_limit) if offset < self.base_limit else limit
                origin = "base" if offset < self.base_limit else "zero"
                plan.append(Source(offset, end, origin, offset))
            offset = end
        return plan

    def seal(self) -> None:
        """Close a version: what the spool file holds now is never overwritten."""
        self.sealed = self.spool_end

    def to_bytes(self) -> bytes:
        """Return the map as it stands in the state DB."""
        base = bytes.fromhex(self.base) if self.base else bytes(20)
        header = _HEADER.pack(_FORMAT, base, self.base_limit, self.size, self.spool_end)
        return header + b"".join(_PIECE.pack(p.start, p.stop, p.spool_offset) for p in self._pieces)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Self:
        """Return the map that `to_bytes` packed, sealed as a whole.

        Raises:
            StateCorrupt: these bytes are not one.
        """
        try:
            form, base, base_limit, size, spool_end = _HEADER.unpack_from(packed)
            pieces = [Piece(*fields) for fields in _PIECE.iter_unpack(packed[_HEADER.size :])]
        except struct.error as exc:
            raise StateCorrupt(f"not an extent map: {exc}") from exc
        if form != _FORMAT:
            raise StateCorrupt(f"extent map of format {form}, not {_FORMAT}")
        extents = cls(base=ObjectId(base.hex()) if any(base) else None, base_size=base_limit)
        extents.size = size
        extents.spool_end = extents.sealed = spool_end
        extents._pieces = pieces
        return extents
