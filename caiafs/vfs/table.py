"""Inodes and names: which inode a name means, and where an inode is.

Used by the other vfs modules. Synchronous on purpose, but for `prepare`: a change is atomic between two checkpoints.

A directory's names are in memory, in the DB, or still in git: then the first look at it imports its
tree object (`vfs.importing`), which gives every entry an inode number that lasts. Nothing below it is read.
Requests `prepare` a directory that may be large.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence

import trio

from caiafs.core.errors import NotADirectory, NotFound
from caiafs.core.types import (
    ROOT_INODE,
    ROOT_PATH,
    DocPath,
    GitMode,
    InodeNo,
    ObjectId,
)
from caiafs.state.journal import BACKGROUND_DELAY_S, Journal
from caiafs.vfs.importing import DirectoryImport, ObjectSource, shown_mode
from caiafs.vfs.inode import HAS_XATTRS, LOADED, SUBMODULE, Inode, storable_time
from caiafs.vfs.restore import Restorer

_INODE_COLUMNS = (
    "i.ino, i.mode, i.uid, i.gid, i.rdev, i.nlink, i.size, i.atime_ns, i.mtime_ns, i.ctime_ns, "
    "i.oid, i.content, i.flags, i.parent, i.name"
)
_GET = f"SELECT {_INODE_COLUMNS} FROM inode i WHERE i.ino=?"  # noqa: S608  # columns are ours

LOAD_MAX = 128
"""Inodes that `load_many` takes at a time."""

_GET_MANY = f"SELECT {_INODE_COLUMNS} FROM inode i WHERE i.ino IN ({','.join('?' * LOAD_MAX)})"  # noqa: S608  # ours
_FEW = 8

_NAMES_AFTER = "SELECT name, ino FROM dentry WHERE parent=? AND name>? ORDER BY name LIMIT ?"
_NAMES_SLICE = 5000
_TRIM_AT = 2_000
"""Inodes in memory before `trim` looks for some to let go."""


class InodeTable:
    """All inodes and names of the mount."""

    def __init__(
        self,
        journal: Journal,
        objects: ObjectSource,
        restorer: Restorer,
        *,
        now_ns: Callable[[], int],
    ) -> None:
        self._journal = journal
        self._objects = objects
        self._restorer = restorer
        self._now_ns = now_ns
        self._inodes: dict[InodeNo, Inode] = {}
        self._imports: dict[InodeNo, DirectoryImport] = {}
        self._trim_at = _TRIM_AT
        # Whole seconds, as git has them: so is told what nobody has changed here (sync.attributes).
        self._import_time_ns = now_ns() // 1_000_000_000 * 1_000_000_000

    @property
    def import_time_ns(self) -> int:
        """Time that imported documents show: that of the commit that they come from."""
        return self._import_time_ns

    @import_time_ns.setter
    def import_time_ns(self, time_ns: int) -> None:
        self._import_time_ns = storable_time(time_ns)  # whoever made the commit chose it

    def __len__(self) -> int:
        return len(self._inodes)

    def in_memory(self) -> Iterator[Inode]:
        """All inodes that are in memory."""
        return iter(self._inodes.values())

    def make_root(self, tree: ObjectId) -> Inode:
        """Make the root directory of a new DB, showing git tree `tree`."""
        now_ns = self.import_time_ns
        root = Inode(ROOT_INODE, stat.S_IFDIR | 0o755, os.geteuid(), os.getegid(), now_ns)
        root.nlink = 2
        root.oid = tree
        self._journal.touch(root)
        return self._inodes.setdefault(ROOT_INODE, root)

    def get(self, ino: InodeNo) -> Inode:
        """Return an inode.

        Raises:
            NotFound: there is none.
        """
        inode = self._inodes.get(ino)
        if inode is not None:
            return inode
        rows = self._journal.db.rows(_GET, ino)
        if not rows:
            raise NotFound(f"no inode {ino}")
        inode = Inode.from_row(rows[0])
        self._inodes[ino] = inode
        return inode

    def peek(self, ino: InodeNo) -> Inode | None:
        """Return an inode if it is in memory."""
        return self._inodes.get(ino)

    def new(self, mode: int, uid: int, gid: int) -> Inode:
        """Return a new inode without a name."""
        inode = Inode(self._journal.new_inode_number(), mode, uid, gid, self._now_ns())
        inode.names = []
        if inode.is_directory:
            inode.children = {}
            inode.nlink = 2
            inode.flags = LOADED
        self._inodes[inode.ino] = inode
        self._journal.touch(inode)
        return inode

    # --- names

    def children(self, directory: Inode) -> dict[bytes, InodeNo]:
        """Return a directory's names; the dictionary is the directory, change it by `link` only.

        Raises:
            NotADirectory: it is none.
            Absent, Corrupt: git does not have its tree.
        """
        if directory.children is None:
            if not directory.is_directory:
                raise NotADirectory(f"inode {directory.ino} is not a directory")
            if directory.flags & LOADED:
                rows = self._journal.db.rows(
                    "SELECT name, ino FROM dentry WHERE parent=?", directory.ino
                )
                directory.children = dict(rows)
            else:
                self._import(directory)
        assert directory.children is not None, "it is loaded"
        return directory.children

    def is_ready(self, ino: InodeNo) -> bool:
        """Whether `children` of a directory would answer from memory."""
        directory = self._inodes.get(ino)
        return directory is not None and directory.children is not None

    async def prepare(self, ino: InodeNo) -> None:
        """Have a directory's names in memory, letting others go on between the slices of a large one.

        Whoever asks for `children` meanwhile, which does not wait, does the rest at once.

        Raises:
            NotFound: there is no such inode.
            Absent, Corrupt: git does not have its tree.
        """
        directory = self.get(ino)
        while directory.is_directory and not directory.flags & LOADED:
            self._import_slice(directory)
            await trio.lowlevel.checkpoint()
        if directory.is_directory and directory.children is None:
            await self._load_names(directory)

    async def _load_names(self, directory: Inode) -> None:
        names: dict[bytes, InodeNo] = {}
        rows: list[tuple[bytes, InodeNo]] = [(b"", ROOT_INODE)]
        while rows:
            rows = self._journal.db.rows(_NAMES_AFTER, directory.ino, rows[-1][0], _NAMES_SLICE)
            names.update(rows)
            await trio.lowlevel.checkpoint()
            if directory.children is not None:
                return  # whoever changes a directory has loaded it first
        directory.children = names

    def finish_imports(self) -> None:
        """Do the rest of what `prepare` has begun: before a change from outside, which must find all or nothing."""
        for ino in tuple(self._imports):
            self._import(self.get(ino))

    def _import(self, directory: Inode) -> None:
        """Give the entries of a directory's git tree inodes and names."""
        while not directory.flags & LOADED:
            self._import_slice(directory)

    def _import_slice(self, directory: Inode) -> None:
        under_way = self._imports.get(directory.ino)
        if under_way is None:
            under_way = DirectoryImport(
                self, self._journal, self._objects, self._restorer, directory
            )
            self._imports[directory.ino] = under_way
        try:
            is_last = under_way.step()
        except BaseException:
            del self._imports[directory.ino]
            raise
        if is_last:
            del self._imports[directory.ino]
            self._journal.commit_within(BACKGROUND_DELAY_S)
        else:
            self._journal.commit_if_possible()

    def find(self, directory: Inode, name: bytes) -> Inode | None:
        """Return what `name` means in `directory`, None where it means nothing."""
        ino = self.children(directory).get(name)
        return self.get(ino) if ino is not None else None

    def load_many(self, inos: Sequence[InodeNo]) -> None:
        """Bring up to LOAD_MAX inodes into memory with one query."""
        missing = [ino for ino in inos if ino not in self._inodes]
        if len(missing) < _FEW:
            return
        # What is not in memory has nothing to be written; 0 is no inode.
        for row in self._journal.db.rows(_GET_MANY, *missing, *[0] * (LOAD_MAX - len(missing))):
            self._inodes[row[0]] = Inode.from_row(row)

    def link(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Give `inode` a name; whatever had it is unlinked by the caller first."""
        self.children(directory)[name] = inode.ino
        names = self.names(inode)
        for parent, other_name in names:
            self._journal.put_dentry(parent, other_name, inode.ino, shared=1)
        self._journal.put_dentry(directory.ino, name, inode.ino, shared=1 if names else 0)
        names.append((directory.ino, name))
        if directory.flags & SUBMODULE:  # somebody put a directory in its place
            directory.flags &= ~SUBMODULE
            self._journal.touch(directory)

    def unlink(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Take a name away from `inode`."""
        names = self.names(inode)
        del self.children(directory)[name]
        if (directory.ino, name) in names:
            names.remove((directory.ino, name))
        self._journal.drop_dentry(directory.ino, name)

    def names(self, inode: Inode) -> list[tuple[InodeNo, bytes]]:
        """Return the (directory, name) pairs of an inode."""
        if inode.names is None:
            self._journal.commit()
            sql = "SELECT parent, name FROM dentry WHERE ino=? AND shared"
            rows = self._journal.db.rows(sql, inode.ino)
            inode.names = [(InodeNo(parent), name) for parent, name in rows]
        return inode.names

    def path(self, directory: Inode, name: bytes = b"") -> DocPath:
        """Return the path of a directory, or of `name` in it."""
        parts = [name] if name else []
        while directory.ino != ROOT_INODE:
            parent, own_name = self.names(directory)[0]
            parts.append(own_name)
            directory = self.get(parent)
        return DocPath(b"/".join(reversed(parts)))

    def paths(self, inode: Inode) -> list[DocPath]:
        """Return every path of an inode."""
        if inode.ino == ROOT_INODE:
            return [ROOT_PATH]
        return [self.path(self.get(parent), name) for parent, name in self.names(inode)]

    def parent(self, directory: Inode) -> Inode:
        """Return a directory's parent; the root is its own."""
        if directory.ino == ROOT_INODE:
            return directory
        names = self.names(directory)
        return self.get(names[0][0]) if names else directory

    def is_below(self, directory: Inode, ancestor: Inode) -> bool:
        """Whether `directory` is `ancestor` or lies in it."""
        while directory.ino != ancestor.ino:
            if directory.ino == ROOT_INODE:
                return False
            directory = self.parent(directory)
        return True

    # --- memory

    def forget(self, ino: InodeNo, lookups: int) -> None:
        """Take back `lookups` references that the kernel had."""
        inode = self._inodes.get(ino)
        if inode is None:
            return
        inode.lookups = max(0, inode.lookups - lookups)
        self.release(inode)

    def release(self, inode: Inode) -> None:
        """Let go of an inode that nothing but the DB needs to know."""
        in_use = inode.ino == ROOT_INODE or inode.ino in self._imports
        if inode.is_idle and not in_use and not self._journal.is_touched(inode.ino):
            self._inodes.pop(inode.ino, None)

    def trim(self) -> None:
        """Let go of what was imported or listed and never looked up by the kernel."""
        if len(self._inodes) < self._trim_at:
            return
        for inode in tuple(self._inodes.values()):
            self.release(inode)
        self._trim_at = max(_TRIM_AT, 2 * len(self._inodes))

    def take_back(self, inode: InodeNo) -> None:
        """Remove an inode that `imported` made."""
        self._journal.drop_inode(inode)
        self._journal.run_sql("DELETE FROM xattr WHERE ino=?", inode)
        self._restorer.forget(inode)
        self._inodes.pop(inode, None)

    def make_empty(self, directory: Inode) -> None:
        """Forget the names of a directory that was removed: whoever is in it sees nothing there."""
        directory.children = {}
        directory.oid = None
        directory.flags |= LOADED

    def drop(self, inode: Inode) -> None:
        """Remove an inode for good; its content is the caller's."""
        self._journal.drop_inode(inode.ino)
        if inode.flags & HAS_XATTRS:
            self._journal.run_sql("DELETE FROM xattr WHERE ino=?", inode.ino)
        if not inode.lookups:
            self._inodes.pop(inode.ino, None)

    # --- git

    def imported(self, git_mode: int, oid: ObjectId, *, like: Inode, size: int = -1) -> Inode:
        """Return a new inode for what a git tree has, owned as `like` is, without a name."""
        is_document = git_mode not in {GitMode.DIRECTORY, GitMode.GITLINK}
        if is_document and size < 0:
            size = self._objects.size(oid)
        inode = self.new(shown_mode(git_mode), like.uid, like.gid)
        inode.atime_ns = inode.mtime_ns = inode.ctime_ns = self.import_time_ns
        if git_mode == GitMode.DIRECTORY:
            inode.oid = oid
            inode.flags &= ~LOADED
            inode.children = None
        elif is_document:
            inode.oid = oid
            inode.size = size
        else:
            inode.flags |= SUBMODULE
        return inode
