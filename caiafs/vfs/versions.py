"""Opens the versions of conflicts for reading: documents as they are now, and blobs.

Used by `virtual.conflicts` through app. Synchronous but for reads, which may wait for the store process.
"""

import os

from caiafs.core.errors import NotFound
from caiafs.core.types import HandleId, InodeNo, ObjectId
from caiafs.state.spool import SpoolFile
from caiafs.vfs.body import CachedBody
from caiafs.vfs.caller import this_process
from caiafs.vfs.conflicts import Conflict, Conflicts
from caiafs.vfs.contents import Contents
from caiafs.vfs.files import Files
from caiafs.vfs.inode import Inode
from caiafs.vfs.table import InodeTable


class OpenDocument:
    """A handle of our own; the version that it opened stays while it is open."""

    def __init__(self, files: Files, ino: InodeNo) -> None:
        self._files = files
        self._handle: HandleId = files.open(ino, os.O_RDONLY, this_process())

    async def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        return await self._files.read(self._handle, offset, length)

    def close(self) -> None:
        """Give the handle back."""
        self._files.release(self._handle)


class OpenBlob:
    """A blob, got when its first byte is asked for."""

    def __init__(self, contents: Contents, oid: ObjectId, size_bytes: int) -> None:
        self._contents = contents
        self._oid = oid
        self._size_bytes = size_bytes
        self._content: bytes | SpoolFile | None = None

    async def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        if self._content is None:
            self._content = await self._contents.base_file(self._oid)
        if isinstance(self._content, bytes):
            return self._content[offset : offset + length]
        return CachedBody(self._content, self._size_bytes).read(offset, length)

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self._content, SpoolFile):
            self._content.close()


class Versions:
    """What `virtual.conflicts` shows."""

    def __init__(
        self, conflicts: Conflicts, table: InodeTable, files: Files, contents: Contents
    ) -> None:
        self.conflicts = conflicts
        self._table = table
        self._files = files
        self._contents = contents

    def open_conflicts(self) -> list[Conflict]:
        """Return the open conflicts, sorted by path."""
        return self.conflicts.open()

    def inode(self, ino: InodeNo) -> Inode | None:
        """Return an inode, None where it is gone."""
        try:
            return self._table.get(ino)
        except NotFound:
            return None

    def blob_size(self, oid: ObjectId) -> int | None:
        """Return a blob's length, None where it is not here."""
        return self.conflicts.size_of(oid)

    def open_inode(self, ino: InodeNo) -> OpenDocument:
        """Open a document or a link; raises NotFound."""
        return OpenDocument(self._files, ino)

    def open_blob(self, oid: ObjectId) -> OpenBlob:
        """Open a blob."""
        return OpenBlob(self._contents, oid, self.conflicts.size_of(oid) or 0)
