"""pyfuse3's handlers: one short method a request, which says it in the terms of vfs.

Runs on the trio thread. The decorator turns errors into errnos; nothing here decides what a file
system is. What is not here (access, poll, fallocate) the kernel does itself or does without.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from caiafs.core.errors import NotPermitted, ReadOnly
from caiafs.core.metrics import OperationMetrics
from caiafs.core.types import ROOT_INODE, HandleId, InodeNo
from caiafs.fuse.boundary import handler
from caiafs.fuse.caia import CaiaDirectory
from caiafs.fuse.convert import Presentation, attribute_change, caller
from caiafs.state.database import WANTED_ROOM_BYTES, StateDatabase
from caiafs.vfs.attributes import Attributes
from caiafs.vfs.document_ids import ID_XATTR, DocumentIds
from caiafs.vfs.files import Files
from caiafs.vfs.inode import HAS_XATTRS, Inode
from caiafs.vfs.listing import Listings
from caiafs.vfs.namespace import NAME_MAX, Namespace
from caiafs.vfs.restore import OUR_XATTRS
from caiafs.vfs.table import InodeTable

DIRECTORY_XATTR = b"user.caia.dir"
"""On the root: the name that `.caia` answers to in this mount."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The file system that the handlers speak for."""

    table: InodeTable
    namespace: Namespace
    attributes: Attributes
    ids: DocumentIds
    files: Files
    listings: Listings
    state_dir: str
    db: StateDatabase


class CaiaOperations(pyfuse3.Operations):
    """The handlers."""

    supports_dot_lookup = True
    enable_writeback_cache = True
    enable_acl = False

    def __init__(
        self, parts: Parts, caia: CaiaDirectory, presentation: Presentation, *, read_only: bool
    ) -> None:
        super().__init__()
        self._table = parts.table
        self._namespace = parts.namespace
        self._attributes = parts.attributes
        self._ids = parts.ids
        self._files = parts.files
        self._listings = parts.listings
        self._state_dir = parts.state_dir
        self._caia = caia
        self._show = presentation.attributes
        self._presentation = presentation
        self._read_only = read_only
        self._db = parts.db
        self.broken_requests = 0
        self.changes = 0
        names = (
            name for name, method in vars(type(self)).items() if hasattr(method, "__wrapped__")
        )
        self.requests = {name: OperationMetrics() for name in names}

    @property
    def read_only(self) -> bool:
        """Whether changes are refused: asked for, or because the state DB is damaged."""
        return self._read_only or bool(self._db.damage)

    def reset_metrics(self) -> None:
        """Forget counts and latencies so far."""
        for metrics in self.requests.values():
            metrics.reset()

    def _entry(self, inode: Inode) -> EntryAttributes:
        """Return an inode's attributes and note that the kernel has one reference more."""
        inode.lookups += 1
        return self._show(inode)

    def _changing(self, parent: int, name: bytes) -> InodeNo:
        """Return `parent` if `name` in it may be changed."""
        if self.read_only:
            raise ReadOnly("the mount takes no changes")
        self.changes += 1
        if parent >= 1 << 62 or (parent == ROOT_INODE and name == self._caia.root.name):
            raise NotPermitted("the virtual directory cannot be changed")
        self._db.require_room()
        return InodeNo(parent)

    def _making(self, parent: int, name: bytes) -> InodeNo:
        """Return `parent` if a new name may be made in it; refused before anything is done."""
        directory = self._changing(parent, name)
        self._files.check_space()
        self._db.require_room(WANTED_ROOM_BYTES)
        return directory

    # --- names

    @handler
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        if CaiaDirectory.has_inode(parent_inode):
            return self._caia.lookup(parent_inode, name, ctx.pid)
        if parent_inode == ROOT_INODE and name == self._caia.root.name:
            return self._caia.show(self._caia.root, pid=ctx.pid)
        if not self._table.is_ready(InodeNo(parent_inode)):
            await self._table.prepare(InodeNo(parent_inode))
        inode = self._namespace.lookup(InodeNo(parent_inode), name)
        return self._entry(inode) if inode is not None else self._presentation.nothing()

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for ino, lookups in inode_list:
            if CaiaDirectory.has_inode(ino):
                self._caia.forget(ino, lookups)
            else:
                self._table.forget(InodeNo(ino), lookups)

    @handler
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._making(parent_inode, name)
        return self._entry(self._namespace.mknod(parent, name, mode, rdev, caller(ctx)))

    @handler
    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._making(parent_inode, name)
        return self._entry(self._namespace.mkdir(parent, name, mode, caller(ctx)))

    @handler
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._making(parent_inode, name)
        return self._entry(self._namespace.symlink(parent, name, target, caller(ctx)))

    @handler
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await self._namespace.readlink(InodeNo(inode)))

    @handler
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._making(new_parent_inode, new_name)
        return self._entry(self._namespace.link(InodeNo(inode), parent, new_name))

    @handler
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._namespace.unlink(self._changing(parent_inode, name), name, caller(ctx))

    @handler
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        parent = self._changing(parent_inode, name)
        directory = self._namespace.lookup(parent, name)
        if directory is not None:
            await self._table.prepare(directory.ino)
        self._namespace.rmdir(parent, name)

    @handler
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        source = (self._changing(parent_inode_old, name_old), bytes(name_old))
        target = (self._changing(parent_inode_new, name_new), bytes(name_new))
        self._namespace.rename(source, target, flags, caller(ctx))

    # --- attributes

    @handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        if CaiaDirectory.has_inode(inode):
            return self._caia.getattr(inode)
        return self._show(self._table.get(InodeNo(inode)))

    @handler
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        if CaiaDirectory.has_inode(inode):
            return self._set_virtual(inode, fields)
        ino = self._changing(inode, b"")
        change = attribute_change(attr, fields)
        return self._show(await self._attributes.set(ino, change, caller(ctx)))

    def _set_virtual(self, inode: int, fields: SetattrFields) -> EntryAttributes:
        """Take a truncation to 0, which `echo sync > control` asks for, and refuse the rest."""
        if (
            fields.update_mode
            or fields.update_uid
            or fields.update_gid
            or not self._caia.takes(inode)
        ):
            raise NotPermitted("a virtual file cannot be changed")
        return self._caia.getattr(inode)

    @handler
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        if CaiaDirectory.has_inode(inode):
            raise FUSEError(errno.ENODATA)
        if inode == ROOT_INODE and name == DIRECTORY_XATTR:
            return self._caia.root.name
        known = self._table.peek(InodeNo(inode))
        is_ours = name.startswith(OUR_XATTRS)
        if known is not None and not known.flags & HAS_XATTRS and not is_ours:
            # The kernel asks for security.capability before most writes, and remembers nothing.
            raise FUSEError(errno.ENODATA)
        if name == ID_XATTR:
            return await self._ids.id_of(InodeNo(inode))
        return self._attributes.get_xattr(InodeNo(inode), name)

    @handler
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        if CaiaDirectory.has_inode(inode):
            return []
        return [XAttrNameT(name) for name in self._attributes.list_xattrs(InodeNo(inode))]

    @handler
    async def setxattr(
        self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        self._attributes.set_xattr(self._changing(inode, b""), name, value)

    @handler
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        self._attributes.remove_xattr(self._changing(inode, b""), name)

    @handler
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        disk = os.statvfs(self._state_dir)
        result = StatvfsData()
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail"):
            setattr(result, name, getattr(disk, name))
        for name in ("f_files", "f_ffree", "f_favail"):
            setattr(result, name, getattr(disk, name))
        result.f_namemax = NAME_MAX
        return result

    # --- files

    @handler
    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> tuple[FileInfo, EntryAttributes]:
        parent = self._making(parent_inode, name)
        who = caller(ctx)
        if not flags & os.O_EXCL and self._namespace.lookup(parent, name) is not None:
            # Somebody else made it since the kernel looked, which looks again now and opens what is there.
            raise FUSEError(errno.ESTALE)
        inode = self._namespace.create(parent, name, mode, who)
        handle = self._files.attach(inode, who, writes=flags & os.O_ACCMODE != os.O_RDONLY)
        return FileInfo(fh=FileHandleT(handle), keep_cache=True), self._entry(inode)

    @handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if CaiaDirectory.has_inode(inode):
            return self._caia.open(inode, flags, ctx.uid)
        if self.read_only and flags & (os.O_ACCMODE | os.O_TRUNC):
            raise ReadOnly("the mount takes no changes")
        self.changes += flags & os.O_ACCMODE != os.O_RDONLY
        handle = self._files.open(InodeNo(inode), flags, caller(ctx))
        # What changes from outside gets a new inode, so the pages of this one stay right.
        return FileInfo(fh=FileHandleT(handle), keep_cache=True)

    @handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        if CaiaDirectory.has_handle(fh):
            return await self._caia.read(fh, off, size)
        return await self._files.read(HandleId(fh), off, size)

    @handler
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        if CaiaDirectory.has_handle(fh):
            self.changes += 1  # what health said before a command may be wrong after it
            return await self._caia.write(fh, buf)
        return await self._files.write(HandleId(fh), off, buf)

    @handler
    async def flush(self, fh: FileHandleT) -> None:
        if not CaiaDirectory.has_handle(fh):
            await self._files.flush(HandleId(fh))

    @handler
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:  # pyfuse3's signature
        if not CaiaDirectory.has_handle(fh):
            await self._files.fsync(HandleId(fh))

    @handler
    async def release(self, fh: FileHandleT) -> None:
        if CaiaDirectory.has_handle(fh):
            self._caia.release(fh)
        else:
            self._files.release(HandleId(fh))

    # --- directories

    @handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        if CaiaDirectory.has_inode(inode):
            return FileHandleT(self._caia.opendir(inode))
        await self._table.prepare(InodeNo(inode))
        return FileHandleT(self._listings.open(InodeNo(inode)))

    @handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        if CaiaDirectory.has_handle(fh):
            self._caia.readdir(fh, start_id, token)
            return
        hidden = self._caia.root.name
        for position, name, inode in self._listings.entries(HandleId(fh), start_id):
            if name == hidden and self._listings.is_root(HandleId(fh)):
                continue
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._show(inode), position):
                return
            inode.lookups += 1
        if self._caia.visible and self._listings.is_root(HandleId(fh)):
            self._list_caia(start_id, token)

    def _list_caia(self, start_id: int, token: ReaddirToken) -> None:
        """List the virtual directory behind everything else (caia_dir=visible)."""
        last = (1 << 62) - 1
        if start_id != last:
            entry = self._caia.show(self._caia.root)
            if not pyfuse3.readdir_reply(token, FileNameT(self._caia.root.name), entry, last):
                self._caia.forget(entry.st_ino, 1)

    @handler
    async def releasedir(self, fh: FileHandleT) -> None:
        if CaiaDirectory.has_handle(fh):
            self._caia.release(fh)
        else:
            directory = self._listings.release(HandleId(fh))
            if not directory.nlink and not directory.handles:
                self._namespace.end(directory)
            self._table.release(directory)

    @handler
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:  # as above
        await self._files.fsyncdir()
