"""The virtual directory `.caia` at the kernel's side: inode numbers, handles, rendered contents.

Used by fuse.operations. Each rendering has an inode number of its own and zero time-outs: under one
number the kernel's size and content of different renderings mix (tried: stats.json said 10 bytes
while 60 were read). cp(1) looks a file up twice and refuses one whose number changed in between, so
a rendering answers for half a second, unless something happened meanwhile. Nothing here waits
except a write to the control file.
"""

import logging
import os
import stat
import time
from collections.abc import Callable, Hashable

import pyfuse3

from caiafs.core.errors import CaiaError, IsADirectory, NotADirectory, NotFound, NotPermitted
from caiafs.virtual.nodes import ControlFile, VirtualDirectory, VirtualFile, VirtualNode

log = logging.getLogger(__name__)

FIRST_INODE = 1 << 62
"""Above every inode number of a document, and below what a signed offset holds."""

FIRST_HANDLE = 1 << 62

_ANSWERS_FOR_NS = 500_000_000
_AT_ONCE_NS = 1_000_000
"""Two lookups of one open(2) are this close, however busy the mount is."""


class _Shown:
    """A node as one lookup showed it."""

    __slots__ = ("content", "handles", "lookups", "node", "time_ns")

    def __init__(self, node: VirtualNode) -> None:
        self.node = node
        self.content = node.render() if isinstance(node, VirtualFile) else b""
        self.time_ns = time.time_ns()
        self.lookups = 0
        self.handles = 0

    @property
    def age_ns(self) -> int:
        """How long ago this was rendered."""
        return time.time_ns() - self.time_ns


class CaiaDirectory:
    """The directory, its files and their handles."""

    def __init__(
        self, root: VirtualDirectory, *, visible: bool, moment: Callable[[], Hashable]
    ) -> None:
        """Serve `root`; while `moment` returns the same, a rendering may answer once more."""
        self.root = root
        self.visible = visible
        self._moment = moment
        self._newest: dict[bytes, tuple[int, Hashable]] = {}
        self._shown: dict[int, _Shown] = {}
        self._handles: dict[int, tuple[int, _Shown]] = {}
        self._openers: dict[int, int] = {}
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

    def show(self, node: VirtualNode) -> pyfuse3.EntryAttributes:
        """Return attributes of `node`, under an inode number that the kernel will forget."""
        moment = self._moment()
        ino, when = self._newest.get(node.name, (0, None))
        shown = self._shown.get(ino)
        answers_for_ns = _ANSWERS_FOR_NS if when == moment else _AT_ONCE_NS
        if shown is None or shown.age_ns > answers_for_ns:
            ino = self._next_inode
            self._next_inode += 1
            shown = self._shown[ino] = _Shown(node)
            self._newest[node.name] = (ino, moment)
        shown.lookups += 1
        return _attributes(ino, shown)

    def lookup(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        """Return what `name` means in one of our directories."""
        node = self._get(parent).node
        if not isinstance(node, VirtualDirectory):
            raise NotADirectory("a virtual file has no names in it")
        if name not in node.children:
            raise NotFound("no such virtual file")
        return self.show(node.children[name])

    def getattr(self, ino: int) -> pyfuse3.EntryAttributes:
        """Return attributes."""
        return _attributes(ino, self._get(ino))

    def forget(self, ino: int, lookups: int) -> None:
        """Take back references that the kernel had."""
        shown = self._shown.get(ino)
        if shown is None:
            return
        shown.lookups -= lookups
        if shown.lookups <= 0 and not shown.handles:
            del self._shown[ino]

    def open(self, ino: int, flags: int, uid: int) -> pyfuse3.FileInfo:
        """Open a file; only the control file can be written, and what it takes user `uid` says."""
        shown = self._get(ino)
        if isinstance(shown.node, VirtualDirectory):
            raise IsADirectory("it is a directory")
        is_control = isinstance(shown.node, ControlFile)
        if flags & os.O_ACCMODE != os.O_RDONLY and not is_control:
            raise NotPermitted("a virtual file cannot be changed")
        # Without the page cache EINVAL for a bad command comes from write(2) itself.
        handle = pyfuse3.FileHandleT(self._attach(ino, shown))
        if is_control:
            self._openers[handle] = uid
        return pyfuse3.FileInfo(fh=handle, direct_io=is_control, keep_cache=False)

    def opendir(self, ino: int) -> int:
        """Open a directory."""
        return self._attach(ino, self._get(ino))

    def _attach(self, ino: int, shown: _Shown) -> int:
        handle = self._next_handle
        self._next_handle += 1
        shown.handles += 1
        self._handles[handle] = (ino, shown)
        return handle

    def read(self, fh: int, offset: int, length: int) -> bytes:
        """Return bytes of what was rendered at the lookup."""
        return self._handles[fh][1].content[offset : offset + length]

    async def write(self, fh: int, content: bytes) -> int:
        """Run a command; one that fails is the caller's to handle, the errno says why."""
        node = self._handles[fh][1].node
        assert isinstance(node, ControlFile), "only the control file opens for writing"
        try:
            await node.write(bytes(content), self._openers[fh])
        except CaiaError as exc:
            log.info("control: %s", exc)
            raise pyfuse3.FUSEError(exc.errno) from exc
        return len(content)

    def readdir(self, fh: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        """List one of our directories."""
        node = self._handles[fh][1].node
        assert isinstance(node, VirtualDirectory), "opendir is for directories"
        for position, child in enumerate(node.children.values()):
            if position < start:
                continue
            entry = self.show(child)
            if not pyfuse3.readdir_reply(token, child.name, entry, position + 1):
                self.forget(entry.st_ino, 1)
                return

    def release(self, fh: int) -> None:
        """Close a file or directory."""
        ino, shown = self._handles.pop(fh)
        self._openers.pop(fh, None)
        shown.handles -= 1
        if shown.lookups <= 0 and not shown.handles:
            self._shown.pop(ino, None)


def _attributes(ino: int, shown: _Shown) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    is_directory = isinstance(shown.node, VirtualDirectory)
    entry.st_ino = pyfuse3.InodeT(ino)
    entry.st_mode = pyfuse3.ModeT(
        (stat.S_IFDIR if is_directory else stat.S_IFREG) | shown.node.mode
    )
    entry.st_nlink = 2 if is_directory else 1
    entry.st_uid = os.geteuid()
    entry.st_gid = os.getegid()
    entry.st_size = len(shown.content)
    entry.st_blksize = 4096
    entry.st_blocks = (len(shown.content) + 511) >> 9
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = shown.time_ns
    entry.entry_timeout = entry.attr_timeout = 0.0
    return entry
