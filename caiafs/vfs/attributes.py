"""Attributes of inodes: mode, owner, times, size, extended attributes.

Used by fuse.operations, on the trio thread. `set` awaits only where a large content has to be
loaded to be cut.
"""

import stat
import time
from dataclasses import dataclass

from caiafs.core.errors import (
    FileTooLarge,
    InvalidArgument,
    NoAttribute,
    NotPermitted,
    NotSupported,
)
from caiafs.core.types import InodeNo, git_mode
from caiafs.state.journal import BACKGROUND_DELAY_S, Journal
from caiafs.vfs.caller import Caller
from caiafs.vfs.contents import Contents
from caiafs.vfs.inode import HAS_XATTRS, UNLOGGED, Inode, storable_time
from caiafs.vfs.notes import KINDS, Notes
from caiafs.vfs.publication import Publication
from caiafs.vfs.restore import OUR_XATTRS
from caiafs.vfs.table import InodeTable

STATE_XATTR = OUR_XATTRS + b"state"
"""How far a document has come. Answered and not listed, so that no copy takes it along."""


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """What a setattr asks for; None leaves an attribute as it is. Times in ns, size in bytes."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None

    @property
    def is_times_only(self) -> bool:
        """Whether nothing but times changes."""
        return self.mode is self.uid is self.gid is self.size is None


class Attributes:
    """Operations on attributes."""

    def __init__(
        self,
        journal: Journal,
        table: InodeTable,
        contents: Contents,
        publication: Publication,
        *,
        notes: Notes,
        max_file_bytes: int,
    ) -> None:
        self._journal = journal
        self._table = table
        self._contents = contents
        self._publication = publication
        self._notes = notes
        self._max_file_bytes = max_file_bytes

    async def set(self, ino: InodeNo, change: AttributeChange, caller: Caller) -> Inode:
        """Change attributes. What is more than times survives `kill -9`.

        Raises:
            FileTooLarge: the size is above Config.max_file_bytes.
            StoreError: a large content could not be loaded to be cut.
        """
        inode = self._table.get(ino)
        if change.size is not None and change.size != inode.size:
            await self._resize(inode, change.size, caller)
        if change.mode is not None:
            old_mode = inode.mode
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(change.mode)
            if git_mode(old_mode) != git_mode(inode.mode) and not inode.writers:
                inode.author = (caller.uid, caller.program())
            self._publication.mode_changed(inode, old_mode)
        if change.uid is not None:
            inode.uid = change.uid
        if change.gid is not None:
            inode.gid = change.gid
        if change.atime_ns is not None:
            inode.atime_ns = storable_time(change.atime_ns)
        if change.mtime_ns is not None:
            inode.mtime_ns = storable_time(change.mtime_ns)
        ctime_ns = change.ctime_ns if change.ctime_ns is not None else time.time_ns()
        inode.ctime_ns = storable_time(ctime_ns)
        self._journal.touch(inode)
        if change.is_times_only or (inode.dirty and inode.writers):
            # Of a file that is being written the flush makes all durable, attributes too.
            self._journal.commit_within(BACKGROUND_DELAY_S)
        else:
            self._journal.commit()
        return inode

    async def _resize(self, inode: Inode, size: int, caller: Caller) -> None:
        if size > self._max_file_bytes:
            raise FileTooLarge(f"{size} bytes, at most {self._max_file_bytes}")
        if not inode.is_file:
            raise InvalidArgument("only a regular file has a size to set")
        if size == 0:
            self._contents.replace_with_nothing(inode)
        else:
            body = await self._contents.writable(inode)
            self._contents.truncate(inode, body, size)
        inode.mtime_ns = time.time_ns()
        if not inode.writers:
            # truncate(2) without a handle: no release will follow, so this is the save.
            inode.author = (caller.uid, caller.program())
            self._contents.journal(inode)
            self._publication.due(inode)
            self._contents.let_go(inode)

    # --- extended attributes

    def _xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        if inode.xattrs is None:
            self._journal.commit()
            sql = "SELECT name, value FROM xattr WHERE ino=?"
            inode.xattrs = dict(self._journal.db.rows(sql, inode.ino))
        return inode.xattrs

    def get_xattr(self, ino: InodeNo, name: bytes) -> bytes:
        """Return an extended attribute.

        Raises:
            NoAttribute: there is none of that name.
        """
        inode = self._table.get(ino)
        if name == STATE_XATTR:
            return self._state(inode)
        if name in KINDS:
            return self._notes.get(inode, KINDS[name])
        if inode.flags & HAS_XATTRS:
            value = self._xattrs(inode).get(name)
            if value is not None:
                return value
        raise NoAttribute("no such attribute")

    def _state(self, inode: Inode) -> bytes:
        """Return how far an inode's content has come: `local`, `pending` or `published`."""
        if inode.is_directory:
            if any(map(self._publication.is_local_directory, self._table.paths(inode))):
                return b"local"
            raise NoAttribute("a directory is published with its documents")
        if not self._publication.is_published(inode):
            return b"local"
        is_unlogged = inode.dirty or inode.flags & UNLOGGED or inode.unhashed is not None
        waits = is_unlogged or self._journal.newest_op(inode.ino)
        return b"pending" if waits else b"published"

    def list_xattrs(self, ino: InodeNo) -> list[bytes]:
        """Return the names of all extended attributes."""
        inode = self._table.get(ino)
        return list(self._xattrs(inode)) if inode.flags & HAS_XATTRS else []

    def set_xattr(self, ino: InodeNo, name: bytes, value: bytes) -> None:
        """Set an extended attribute.

        Raises:
            NotSupported: a POSIX ACL; callers then fall back to the mode.
            NotPermitted: a name that caiafs answers itself.
            InvalidArgument: no text for a commit.
        """
        if name.startswith(b"system."):
            raise NotSupported("POSIX ACLs are not kept")
        inode = self._table.get(ino)
        if name in KINDS:
            self._notes.set(inode, KINDS[name], value)
            self._journal.commit()
            return
        _refuse_ours(name)
        self._xattrs(inode)[name] = value
        inode.flags |= HAS_XATTRS
        inode.ctime_ns = time.time_ns()
        self._journal.touch(inode)
        self._journal.run_sql("INSERT OR REPLACE INTO xattr VALUES (?,?,?)", ino, name, value)
        self._journal.commit()

    def remove_xattr(self, ino: InodeNo, name: bytes) -> None:
        """Remove an extended attribute.

        Raises:
            NoAttribute: there is none of that name.
            NotPermitted: a name that caiafs answers itself.
        """
        inode = self._table.get(ino)
        if name in KINDS:
            self._notes.remove(inode, KINDS[name])
            self._journal.commit()
            return
        _refuse_ours(name)
        xattrs = self._xattrs(inode) if inode.flags & HAS_XATTRS else {}
        if name not in xattrs:
            raise NoAttribute("no such attribute")
        del xattrs[name]
        if not xattrs:
            inode.flags &= ~HAS_XATTRS
        inode.ctime_ns = time.time_ns()
        self._journal.touch(inode)
        self._journal.run_sql("DELETE FROM xattr WHERE ino=? AND name=?", ino, name)
        self._journal.commit()


def _refuse_ours(name: bytes) -> None:
    if name.startswith(OUR_XATTRS):
        raise NotPermitted("names in user.caia. belong to caiafs")
