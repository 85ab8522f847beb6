"""Directory handles: a listing is what the directory held when it was opened or rewound.

Used by fuse.operations, on the trio thread. Offsets are positions in the snapshot, so names that
come or go meanwhile move nothing: an entry that stays is returned exactly once.
"""

from collections.abc import Iterator

from caiafs.core.types import ROOT_INODE, HandleId, InodeNo
from caiafs.vfs.inode import Inode
from caiafs.vfs.table import LOAD_MAX, InodeTable


class Listings:
    """Open directories."""

    def __init__(self, table: InodeTable) -> None:
        self._table = table
        self._handles: dict[HandleId, tuple[Inode, list[bytes] | None]] = {}
        self._next_handle = 1

    def __len__(self) -> int:
        return len(self._handles)

    def open(self, ino: InodeNo) -> HandleId:
        """Open a directory."""
        inode = self._table.get(ino)
        self._table.children(inode)
        inode.handles += 1
        handle = HandleId(self._next_handle)
        self._next_handle += 1
        self._handles[handle] = (inode, None)
        return handle

    def entries(self, handle: HandleId, start: int) -> Iterator[tuple[int, bytes, Inode]]:
        """Yield (next position, name, inode) from position `start` on; 0 looks again."""
        directory, names = self._handles[handle]
        if names is None or start == 0:
            names = list(self._table.children(directory))
            self._handles[handle] = (directory, names)
        children = self._table.children(directory)
        for position in range(start, len(names)):
            if not (position - start) % LOAD_MAX:  # the caller stops when its answer is full
                window = names[position : position + LOAD_MAX]
                self._table.load_many([children[name] for name in window if name in children])
            inode = self._table.find(directory, names[position])
            if inode is not None:
                yield position + 1, names[position], inode

    def is_root(self, handle: HandleId) -> bool:
        """Whether this is the root of the mount."""
        return self._handles[handle][0].ino == ROOT_INODE

    def release(self, handle: HandleId) -> Inode:
        """Close a directory."""
        inode, _ = self._handles.pop(handle)
        inode.handles -= 1
        return inode
