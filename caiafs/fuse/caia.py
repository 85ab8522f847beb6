"""The virtual directory `.caia` at the kernel's side: inode numbers, handles, rendered contents.

Used by fuse.operations. Each rendering has an inode number of its own and zero time-outs: under one
number the kernel's size and content of different renderings mix (tried: stats.json said 10 bytes
while 60 were read). cp(1) looks a file up twice and refuses one whose number changed in between, so
a rendering answers for half a second, unless something happened meanwhile; and a process that has
looked and not opened yet finds what it saw, unless something was changed through the mount. Nothing
here waits except a write to the control file and a read of a document's version.
"""

import logging
import os
import stat
import time
from collections.abc import Callable, Hashable

import pyfuse3

from caiafs.core.errors import CaiaError, IsADirectory, NotADirectory, NotFound, NotPermitted
from caiafs.virtual.nodes import (
    ControlFile,
    DocumentFile,
    LiveDirectory,
    Reader,
    VirtualDirectory,
    VirtualFile,
    VirtualNode,
)

log = logging.getLogger(__name__)

FIRST_INODE = 1 << 62
"""Above every inode number of a document, and below what a signed offset holds."""

FIRST_HANDLE = 1 << 62

_DIRECTORIES = (VirtualDirectory, LiveDirectory)
_ANSWERS_FOR_NS = 500_000_000
_LOOK_TO_OPEN_NS = 2_000_000_000
"""cp's way from its first lookup to its second is a few system calls; on a busy machine that takes a while."""
_AT_ONCE_NS = 1_000_000
"""Two lookups of one open(2) are this close, however busy the mount is."""


class _Shown:
    """A node as one lookup showed it."""

    __slots__ = (
        "content",
        "handles",
        "lookups",
        "node",
        "path",
        "pid",
        "rendered_ns",
        "size_bytes",
        "time_ns",
    )

    def __init__(self, node: VirtualNode, path: tuple[bytes, ...], pid: int) -> None:
        self.node = node
        self.path = path
        self.pid = pid
        """The process that looked first, 0 as soon as somebody has opened it."""
        self.content = node.render() if isinstance(node, VirtualFile) else b""
        self.size_bytes = node.size_bytes if isinstance(node, DocumentFile) else len(self.content)
        self.rendered_ns = time.monotonic_ns()
        self.time_ns = node.time_ns if isinstance(node, DocumentFile) else time.time_ns()
        self.lookups = 0
        self.handles = 0

    @property
    def age_ns(self) -> int:
        """How long ago this was rendered."""
        return time.monotonic_ns() - self.rendered_ns


class _Handle:
    """An open file or directory: what the lookup showed, and what was open()ed of it."""

    __slots__ = ("children", "ino", "reader", "shown", "uid")

    def __init__(self, ino: int, shown: _Shown, uid: int) -> None:
        self.ino = ino
        self.shown = shown
        self.uid = uid
        self.reader: Reader | None = None
        self.children: list[VirtualNode] = []


class CaiaDirectory:
    """The directory, its files and their handles."""

    def __init__(
        self,
        root: VirtualDirectory,
        *,
        visible: bool,
        changes: Callable[[], Hashable],
        news: Callable[[], Hashable],
    ) -> None:
        """Serve `root`; a rendering may answer once more while nothing happened.

        Args:
            root: the directory.
            visible: it is listed.
            changes: differs when something was done through the mount.
            news: differs when something was heard from elsewhere.
        """
        self.root = root
        self.visible = visible
        self._changes = changes
        self._news = news
        self._newest: dict[tuple[bytes, ...], tuple[int, Hashable, Hashable]] = {}
        self._shown: dict[int, _Shown] = {}
        self._handles: dict[int, _Handle] = {}
        self._next_inode = FIRST_INODE
        self._next_handle = FIRST_HANDLE

    @staticmethod
    def has_inode(ino: int) -> bool:
        """Whether this inode number is one of ours."""
        return ino >= FIRST_INODE

    @staticmethod
    def has_handle(fh: int) -> bool:
        """Whether this handle is one of ours."""
        return fh >= FIRST_HANDLE

    def _get(self, ino: int) -> _Shown:
        try:
            return self._shown[ino]
        except KeyError:
            raise NotFound("no such virtual file") from None

    def show(
        self, node: VirtualNode, above: tuple[bytes, ...] = (), *, pid: int = 0
    ) -> pyfuse3.EntryAttributes:
        """Return attributes of `node` in the directory `above` to process `pid`, under a number that the kernel will forget."""
        path = (*above, node.name)
        ino, _, _ = self._newest.get(path, (0, None, None))
        shown = self._shown.get(ino)
        if shown is None or shown.age_ns > self._answers_for_ns(shown, pid):
            ino = self._next_inode
            self._next_inode += 1
            shown = self._shown[ino] = _Shown(node, path, pid)
            self._newest[path] = (ino, self._changes(), self._news())
        shown.lookups += 1
        return _attributes(ino, shown)

    def _answers_for_ns(self, shown: _Shown, pid: int) -> int:
        """Return how old the newest rendering of a path may be to answer process `pid`."""
        _, changes, news = self._newest[shown.path]
        if changes != self._changes():
            return _AT_ONCE_NS
        if pid and shown.pid == pid:
            return _LOOK_TO_OPEN_NS
        return _ANSWERS_FOR_NS if news == self._news() else _AT_ONCE_NS

    def lookup(self, parent: int, name: bytes, pid: int) -> pyfuse3.EntryAttributes:
        """Return what `name` means to process `pid` in one of our directories."""
        shown = self._get(parent)
        if not isinstance(shown.node, _DIRECTORIES):
            raise NotADirectory("a virtual file has no names in it")
        child = shown.node.children.get(name)
        if child is None:
            raise NotFound("no such virtual file")
        return self.show(child, shown.path, pid=pid)

    def getattr(self, ino: int) -> pyfuse3.EntryAttributes:
        """Return attributes."""
        return _attributes(ino, self._get(ino))

    def takes(self, ino: int) -> bool:
        """Whether this is a file that can be written to."""
        return isinstance(self._get(ino).node, ControlFile)

    def forget(self, ino: int, lookups: int) -> None:
        """Take back references that the kernel had."""
        shown = self._shown.get(ino)
        if shown is None:
            return
        shown.lookups -= lookups
        self._drop_unused(ino, shown)

    def _drop_unused(self, ino: int, shown: _Shown) -> None:
        if shown.lookups > 0 or shown.handles:
            return
        self._shown.pop(ino, None)
        if self._newest.get(shown.path, (0, None, None))[0] == ino:
            del self._newest[shown.path]

    def open(self, ino: int, flags: int, uid: int) -> pyfuse3.FileInfo:
        """Open a file; only the control file can be written, and what it takes user `uid` says."""
        shown = self._get(ino)
        if isinstance(shown.node, _DIRECTORIES):
            raise IsADirectory("it is a directory")
        is_control = isinstance(shown.node, ControlFile)
        if flags & os.O_ACCMODE != os.O_RDONLY and not is_control:
            raise NotPermitted("a virtual file cannot be changed")
        # Without the page cache EINVAL for a bad command comes from write(2) itself.
        reader = shown.node.open() if isinstance(shown.node, DocumentFile) else None
        fh = self._attach(ino, shown, uid)
        self._handles[fh].reader = reader
        shown.pid = 0
        handle = pyfuse3.FileHandleT(fh)
        return pyfuse3.FileInfo(fh=handle, direct_io=is_control, keep_cache=False)

    def opendir(self, ino: int) -> int:
        """Open a directory; what it lists does not change while it is open."""
        shown = self._get(ino)
        node = shown.node
        children = list(node.children.values()) if isinstance(node, _DIRECTORIES) else []
        handle = self._attach(ino, shown, 0)
        self._handles[handle].children = children
        return handle

    def _attach(self, ino: int, shown: _Shown, uid: int) -> int:
        handle = self._next_handle
        self._next_handle += 1
        shown.handles += 1
        self._handles[handle] = _Handle(ino, shown, uid)
        return handle

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """Return bytes of what was rendered at the lookup, or of a document."""
        handle = self._handles[fh]
        if handle.reader is not None:
            length = max(0, min(length, handle.shown.size_bytes - offset))
            return await handle.reader.read(offset, length)
        return handle.shown.content[offset : offset + length]

    async def write(self, fh: int, content: bytes) -> int:
        """Run a command; one that fails is the caller's to handle, the errno says why."""
        handle = self._handles[fh]
        node = handle.shown.node
        assert isinstance(node, ControlFile), "only the control file opens for writing"
        try:
            await node.write(bytes(content), handle.uid)
        except CaiaError as exc:
            log.info("control: %s", exc)
            raise pyfuse3.FUSEError(exc.errno) from exc
        return len(content)

    def readdir(self, fh: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        """List one of our directories."""
        handle = self._handles[fh]
        for position, child in enumerate(handle.children):
            if position < start:
                continue
            entry = self.show(child, handle.shown.path)
            if not pyfuse3.readdir_reply(token, child.name, entry, position + 1):
                self.forget(entry.st_ino, 1)
                return

    def release(self, fh: int) -> None:
        """Close a file or directory."""
        handle = self._handles.pop(fh)
        if handle.reader is not None:
            handle.reader.close()
        handle.shown.handles -= 1
        self._drop_unused(handle.ino, handle.shown)


def _attributes(ino: int, shown: _Shown) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    is_directory = isinstance(shown.node, _DIRECTORIES)
    entry.st_ino = pyfuse3.InodeT(ino)
    entry.st_mode = pyfuse3.ModeT(
        (stat.S_IFDIR if is_directory else stat.S_IFREG) | shown.node.mode
    )
    entry.st_nlink = 2 if is_directory else 1
    entry.st_uid = os.geteuid()
    entry.st_gid = os.getegid()
    entry.st_size = shown.size_bytes
    entry.st_blksize = 4096
    entry.st_blocks = (shown.size_bytes + 511) >> 9
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = shown.time_ns
    entry.entry_timeout = entry.attr_timeout = 0.0
    return entry
