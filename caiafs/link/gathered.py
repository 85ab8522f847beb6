"""The changes of one commit while their messages come in, packed: a commit may change 100,000 documents.

Used by `store_link`. As objects they take 560 bytes each; packed, some 80. Whoever goes through them has one piece of them
unpacked at a time.
"""

import marshal
import zlib
from collections.abc import Iterator, Sequence

from caiafs.core.types import Change, DocPath, Entry, ObjectId

_PIECE = 1000
_FAST = 1


class Gathered:
    """Changes in their order; may be gone through more than once."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def packed_bytes(self) -> int:
        """What they take."""
        return sum(map(len, self._pieces))

    def add(self, changes: Sequence[Change]) -> None:
        """Take more of them."""
        self._count += len(changes)
        for start in range(0, len(changes), _PIECE):
            rows = [
                (change.path, _pack(change.before), _pack(change.after))
                for change in changes[start : start + _PIECE]
            ]
            self._pieces.append(zlib.compress(marshal.dumps(rows), _FAST))

    def __iter__(self) -> Iterator[Change]:
        for piece in self._pieces:
            rows = marshal.loads(zlib.decompress(piece))  # noqa: S302  # our own bytes, from memory
            for path, before, after in rows:
                yield Change(DocPath(path), _unpack(before), _unpack(after))


def _pack(entry: Entry | None) -> tuple[int, bytes, int] | None:
    if entry is None:
        return None
    return int(entry.mode), bytes.fromhex(entry.oid), entry.size_bytes


def _unpack(packed: tuple[int, bytes, int] | None) -> Entry | None:
    if packed is None:
        return None
    mode, oid, size_bytes = packed
    return Entry(mode, ObjectId(oid.hex()), size_bytes)
