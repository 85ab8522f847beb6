"""One file, directory or link as the mount knows it.

Used by vfs only, on the trio thread; plain attributes, because a request touches a dozen of them.
"""

import stat
from typing import Any

from caiafs.core.types import InodeNo, ObjectId
from caiafs.state.flags import InodeFlag
from caiafs.state.journal import raw_id
from caiafs.vfs.body import Body

LOADED = int(InodeFlag.LOADED)
UNLOGGED = int(InodeFlag.UNLOGGED)
HAS_XATTRS = int(InodeFlag.HAS_XATTRS)
EXPLICIT = int(InodeFlag.EXPLICIT)
LOCAL = int(InodeFlag.LOCAL)
SUBMODULE = int(InodeFlag.SUBMODULE)
DAMAGED = int(InodeFlag.DAMAGED)
NOTED = int(InodeFlag.NOTED)


_NAMELESS = (None, None)
_TIME_MAX_NS = (1 << 63) - 1


def storable_time(time_ns: int) -> int:
    """Return the nearest time that 64 bits of ns hold: the years 1677 to 2262."""
    return max(-_TIME_MAX_NS - 1, min(time_ns, _TIME_MAX_NS))


class Inode:
    """State of one inode.

    Attributes:
        oid: of a file or link, the blob that the op log's end has for it (None: never logged; with
            LOCAL no path has it); of a directory that is not LOADED, its tree.
        content: row with bytes that are newer than `oid` or not in git yet; None where git has all.
        row_size: while dirty, the size that goes with what the DB has of the content.
        row_open: the content row belongs to no op yet and may be written again.
        unhashed: content row of the newest op when its id is still being computed.
        names: (directory, name) pairs; None: not asked the DB yet.
        children: name to inode number of a directory; None: not asked yet.
        body: the bytes, while a handle is open or something is dirty.
        dirty: `body` is newer than the content row.
        lookups: what the kernel owes us in forget.
        handles, writers: open handles, those of them that may write.
        author: uid and program of the newest writer.
        replaced, replaced_row: blob that stood at the name before this inode took it without an op,
            or its content row while that is hashed.
    """

    __slots__ = (
        "atime_ns",
        "author",
        "body",
        "children",
        "content",
        "ctime_ns",
        "dirty",
        "flags",
        "gid",
        "handles",
        "ino",
        "lookups",
        "mode",
        "mtime_ns",
        "names",
        "nlink",
        "oid",
        "rdev",
        "replaced",
        "replaced_row",
        "row_open",
        "row_size",
        "size",
        "uid",
        "unhashed",
        "writers",
        "xattrs",
    )

    def __init__(self, ino: InodeNo, mode: int, uid: int, gid: int, now_ns: int) -> None:
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = 0
        self.nlink = 1
        self.size = 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = now_ns
        self.oid: ObjectId | None = None
        self.content: int | None = None
        self.flags = 0
        self._init_volatile()

    def _init_volatile(self) -> None:
        self.names: list[tuple[InodeNo, bytes]] | None = None
        self.children: dict[bytes, InodeNo] | None = None
        self.body: Body | None = None
        self.xattrs: dict[bytes, bytes] | None = None
        self.author: tuple[int, str] | None = None
        self.replaced: ObjectId | None = None
        self.replaced_row: int | None = None
        self.row_size = 0
        self.dirty = False
        self.row_open = False
        self.unhashed: int | None = None
        self.lookups = self.handles = self.writers = 0

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> "Inode":
        """Return the inode that a row of `inode` describes."""
        self = cls.__new__(cls)
        ino, mode, uid, gid, rdev, nlink, size, atime, mtime, ctime, oid, content, flags = row[:13]
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.nlink = nlink
        self.size = size
        self.atime_ns = atime
        self.mtime_ns = mtime
        self.ctime_ns = ctime
        self.oid = ObjectId(oid.hex()) if oid is not None else None
        self.content = content
        self.flags = flags
        self._init_volatile()
        parent, name = row[13:]
        if parent is not None and (nlink == 1 or stat.S_ISDIR(mode)):
            self.names = [(parent, name)]
        # A row that no op refers to is known by the flag; see vfs.content.
        self.row_open = content is not None and bool(flags & UNLOGGED)
        return self

    def row(self) -> tuple[Any, ...]:
        """Return the columns of `inode`, in order, without `round`."""
        return (
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.rdev,
            self.nlink,
            # A crash before the next flush leaves the content that the DB has, with its size.
            self.row_size if self.dirty else self.size,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            raw_id(self.oid),
            self.content,
            self.flags,
            *(self.names[0] if self.names else _NAMELESS),
        )

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether this is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_publishable(self) -> bool:
        """Whether a store can hold it: files and symbolic links."""
        return stat.S_ISREG(self.mode) or stat.S_ISLNK(self.mode)

    @property
    def is_idle(self) -> bool:
        """Whether nothing but the DB needs to know it."""
        in_use = self.lookups or self.handles or self.dirty
        took_a_name = self.replaced is not None or self.replaced_row is not None
        return not (in_use or took_a_name or self.unhashed is not None)

    @property
    def is_logged(self) -> bool:
        """Whether the op log's end has this inode at its published paths."""
        known = self.oid is not None or self.unhashed is not None
        return known and not self.flags & LOCAL and not self.is_directory

    def __repr__(self) -> str:
        return f"<Inode {self.ino} {self.mode:o} {self.size} B nlink {self.nlink}>"
