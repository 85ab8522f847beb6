"""The values every part speaks in: ids, paths, tree entries, change sets.

Used by all packages. Everything here is immutable and pure; nothing waits and nothing reads the
system.
"""

import enum
import hashlib
import stat
from dataclasses import dataclass
from typing import NewType, Protocol

InodeNo = NewType("InodeNo", int)
"""A file's identity while mounted; never reused while the kernel may hold it."""

HandleId = NewType("HandleId", int)
"""One open()."""

ObjectId = NewType("ObjectId", str)
"""A git object id: 40 lower-case hexadecimal digits (SHA-1)."""

DocPath = NewType("DocPath", bytes)
"""Where a document is in the tree: components joined by b"/", none empty, no leading slash.

The root is b"". Bytes are as the kernel gave them; a store escapes what it cannot hold.
"""

ROOT_PATH = DocPath(b"")
ROOT_INODE = InodeNo(1)

NO_OBJECT = ObjectId("0" * 40)
"""Stands for "no such object" in a compare-and-swap, as git has it."""

EMPTY_TREE = ObjectId("4b825dc642cb6eb9a060e54bf8d69288fbee4904")
EMPTY_BLOB = ObjectId("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")


class GitMode(enum.IntEnum):
    """The modes that a git tree holds."""

    FILE = 0o100644
    EXECUTABLE = 0o100755
    SYMLINK = 0o120000
    DIRECTORY = 0o040000
    GITLINK = 0o160000


def git_mode(st_mode: int) -> GitMode | None:
    """Return the git mode of a file with `st_mode`, or None for what git cannot hold."""
    if stat.S_ISREG(st_mode):
        return GitMode.EXECUTABLE if st_mode & 0o100 else GitMode.FILE
    if stat.S_ISLNK(st_mode):
        return GitMode.SYMLINK
    if stat.S_ISDIR(st_mode):
        return GitMode.DIRECTORY
    return None


def blob_id(content: bytes | bytearray | memoryview) -> ObjectId:
    """Return the id that git gives a blob with this content."""
    digest = hashlib.sha1(b"blob %d\0" % len(content))
    digest.update(content)
    return ObjectId(digest.hexdigest())


def join_path(parent: DocPath, name: bytes) -> DocPath:
    """Return the path of `name` in directory `parent`."""
    return DocPath(parent + b"/" + name) if parent else DocPath(name)


def split_path(path: DocPath) -> tuple[DocPath, bytes]:
    """Return the directory and the last component of `path`."""
    parent, _, name = path.rpartition(b"/")
    return DocPath(parent), name


def display(path: bytes) -> str:
    """Return `path` for logs and messages; bytes that are not UTF-8 show as escapes."""
    return path.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a path holds in a store.

    Attributes:
        mode: a GitMode, never DIRECTORY: directories are implied by their documents.
        oid: blob id of the content.
        size_bytes: content length; -1 where the store did not say.
    """

    mode: int
    oid: ObjectId
    size_bytes: int = -1

    def same_content(self, other: "Entry | None") -> bool:
        """Whether both are the same document version; sizes follow from the id."""
        return other is not None and self.oid == other.oid and self.mode == other.mode


@dataclass(frozen=True, slots=True)
class Change:
    """One path's step from one tree to another.

    Attributes:
        path: the document.
        before: what is replaced, None where the path is new.
        after: what is there afterwards, None where the path is deleted.
    """

    path: DocPath
    before: Entry | None
    after: Entry | None


@dataclass(frozen=True, slots=True)
class Signature:
    """Who made a change, and when (ns since the epoch, offset from UTC in minutes)."""

    name: str
    email: str
    time_ns: int
    utc_offset_min: int = 0


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """What one commit does: a diff of two trees with its provenance.

    Attributes:
        operation_id: unique for ever; a store that already has it changes nothing.
        author: who saved.
        message: whole commit message, trailers included.
        changes: at most one per path, sorted by path.
    """

    operation_id: str
    author: Signature
    message: str
    changes: tuple[Change, ...]


class ContentSource(Protocol):
    """Where a backend gets the bytes of a blob that it is told to store."""

    async def read(self, oid: ObjectId) -> bytes:
        """Return the whole content.

        Raises:
            NotFound: the blob is not here.
            Corrupt: what is here does not match its id.
        """
        ...

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the content, without reading the rest where possible."""
        ...

    async def size(self, oid: ObjectId) -> int:
        """Return the length of the content in bytes."""
        ...
