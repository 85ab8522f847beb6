"""The bytes of a file while somebody uses them.

Used by vfs only. Synchronous: a body never awaits. Reading a range of a base that is not on this
machine yet raises `BaseMissing`; the caller loads it and reads again, holding nothing meanwhile.

    SmallBody    whole content in memory; clean until the first write
    SpoolBody    a spool file laid over a base, for what is larger
    CachedBody   a large clean blob as a plain file of the disk cache
"""

import os

from caiafs.core.errors import StateCorrupt
from caiafs.core.types import ObjectId
from caiafs.state.extents import Extents
from caiafs.state.reader import read_spooled
from caiafs.state.spool import SpoolFile


class BaseMissing(Exception):
    """The blob under a spooled content has to be loaded first."""

    def __init__(self, oid: ObjectId) -> None:
        super().__init__(oid)
        self.oid = oid


class SmallBody:
    """A content in memory. `content` is bytes while clean, a bytearray once written to."""

    __slots__ = ("content",)

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return bytes(self.content[offset : offset + length])

    def write(self, content: bytes, offset: int) -> None:
        """Put `content` at `offset`; a gap before it reads as zeros."""
        own = self._own()
        end = len(own)
        if offset == end:
            own += content
            return
        if offset > end:
            own.extend(bytes(offset - end))
        own[offset : offset + len(content)] = content

    def truncate(self, size: int) -> None:
        """Make the content `size` bytes long."""
        own = self._own()
        if size < len(own):
            del own[size:]
        else:
            own.extend(bytes(size - len(own)))

    def _own(self) -> bytearray:
        if isinstance(self.content, bytes):
            self.content = bytearray(self.content)
        return self.content

    def close(self) -> None:
        """Nothing to release."""


class SpoolBody:
    """A large content that is being written, or that git does not have yet."""

    __slots__ = ("_base", "extents", "spool")

    def __init__(self, spool: SpoolFile, extents: Extents) -> None:
        self.spool = spool
        self.extents = extents
        self._base: bytes | SpoolFile | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.extents.size

    def give_base(self, base: "bytes | SpoolFile") -> None:
        """Take the base, in memory or as a file, to read through."""
        self._base = base

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`.

        Raises:
            BaseMissing: the range needs the base, and `give_base` was not called.
        """
        extents = self.extents
        pieces = extents.plan_read(offset, offset + length)
        if len(pieces) == 1 and pieces[0].origin == "spool":
            return _read_all(self.spool, pieces[0].offset, pieces[0].stop - offset)
        base = self._base
        if base is None and any(piece.origin == "base" for piece in pieces):
            assert extents.base is not None
            raise BaseMissing(extents.base)
        if isinstance(base, bytes):
            return b"".join(
                self._part(piece.origin, piece.offset, piece.stop - piece.start, base)
                for piece in pieces
            )
        fd = base.fd if base is not None else None
        return read_spooled(self.spool.fd, fd, extents, range(offset, offset + length))

    def _part(self, origin: str, offset: int, length: int, base: bytes) -> bytes:
        if origin == "spool":
            return _read_all(self.spool, offset, length)
        return base[offset : offset + length] if origin == "base" else bytes(length)

    def write(self, content: bytes, offset: int) -> None:
        """Put `content` at `offset`.

        Raises:
            StateFull: no space; the content is as before.
        """
        # Written first, shown after: on a full disk no map may promise bytes that are missing.
        self.spool.write(content, self.extents.plan_place(offset, len(content)))
        self.extents.place(offset, len(content))

    def truncate(self, size: int) -> None:
        """Make the content `size` bytes long."""
        self.extents.truncate(size)

    def close(self) -> None:
        """Close the base; the spool file may be shared and closes with its last user."""
        if isinstance(self._base, SpoolFile):
            self._base.close()
        self._base = None


def _read_all(file: SpoolFile, offset: int, length: int) -> bytes:
    try:
        content = os.pread(file.fd, length, offset)
    except OSError as exc:
        raise StateCorrupt(f"spool file {file.name} cannot be read: {exc.strerror}") from exc
    if len(content) != length:
        # The kernel would show zeros.
        raise StateCorrupt(f"spool file {file.name} ends at {offset + len(content)} bytes")
    return content


class CachedBody:
    """A large clean blob in the disk cache."""

    __slots__ = ("file", "size")

    def __init__(self, file: SpoolFile, size: int) -> None:
        self.file = file
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return _read_all(self.file, offset, max(0, min(length, self.size - offset)))

    def close(self) -> None:
        """Close the file."""
        self.file.close()


Body = SmallBody | SpoolBody | CachedBody
