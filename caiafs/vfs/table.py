"""Inodes and names: which inode a name means, and where an inode is.

Used by the other vfs modules. Synchronous on purpose: a change is atomic between two checkpoints.

A directory's names are in memory, in the DB, or still in git: then the first look at it imports its
tree object, which gives every entry an inode number that lasts. Nothing below it is read.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from caiafs.core.errors import Corrupt, NotADirectory, NotFound
from caiafs.core.types import (
    EMPTY_TREE,
    ROOT_INODE,
    ROOT_PATH,
    DocPath,
    GitMode,
    InodeNo,
    ObjectId,
)
from caiafs.state.journal import Journal
from caiafs.vfs.inode import EXPLICIT, HAS_XATTRS, LOADED, Inode, storable_time
from caiafs.vfs.restore import Restorer, SavedDirectory

_INODE_COLUMNS = (
    "i.ino, i.mode, i.uid, i.gid, i.rdev, i.nlink, i.size, i.atime_ns, i.mtime_ns, i.ctime_ns, "
    "i.oid, i.content, i.flags, i.parent, i.name"
)
_GET = f"SELECT {_INODE_COLUMNS} FROM inode i WHERE i.ino=?"  # noqa: S608  # columns are ours
_GET_BELOW = f"SELECT {_INODE_COLUMNS} FROM dentry d JOIN inode i ON i.ino=d.ino WHERE d.parent=?"  # noqa: S608  # ours


_TRIM_AT = 10_000
"""Inodes in memory before `trim` looks for some to let go."""


class TreeEntry(Protocol):
    """A name in a git tree: raw bytes, git mode, object id."""

    @property
    def name(self) -> bytes:
        """One component, as the mount shows it."""
        ...

    @property
    def mode(self) -> int:
        """A GitMode."""
        ...

    @property
    def oid(self) -> ObjectId:
        """Blob, tree or commit."""
        ...


class ObjectSource(Protocol):
    """Where git objects come from; `app` supplies `backends.git.objects.ObjectReader`.

    All of it is synchronous and for small objects. Raises NotFound and Corrupt.
    """

    def read_tree(self, oid: ObjectId) -> Sequence[TreeEntry]:
        """Return the entries of a tree, names as they are in the mount."""
        ...

    def size(self, oid: ObjectId) -> int:
        """Return a blob's length in bytes, from its header."""
        ...

    def read_blob(self, oid: ObjectId) -> bytes:
        """Return a blob's content."""
        ...


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
            Corrupt, NotFound: git does not have its tree.
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
                directory.children = self._import(directory)
        return directory.children

    def find(self, directory: Inode, name: bytes) -> Inode | None:
        """Return what `name` means in `directory`, None where it means nothing."""
        ino = self.children(directory).get(name)
        return self.get(ino) if ino is not None else None

    def load_all(self, directory: Inode) -> None:
        """Bring every inode of a directory into memory with one query."""
        children = self.children(directory)
        known = self._inodes
        if sum(ino not in known for ino in children.values()) < 8:
            return
        self._journal.commit()
        for row in self._journal.db.rows(_GET_BELOW, directory.ino):
            if row[0] not in known:
                known[row[0]] = Inode.from_row(row)

    def link(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Give `inode` a name; whatever had it is unlinked by the caller first."""
        self.children(directory)[name] = inode.ino
        names = self.names(inode)
        for parent, other_name in names:
            self._journal.put_dentry(parent, other_name, inode.ino, shared=1)
        self._journal.put_dentry(directory.ino, name, inode.ino, shared=1 if names else 0)
        names.append((directory.ino, name))

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
        if inode.is_idle and inode.ino != ROOT_INODE and not self._journal.is_touched(inode.ino):
            self._inodes.pop(inode.ino, None)

    def trim(self) -> None:
        """Let go of what was imported or listed and never looked up by the kernel."""
        if len(self._inodes) < self._trim_at:
            return
        for inode in tuple(self._inodes.values()):
            self.release(inode)
        self._trim_at = max(_TRIM_AT, 2 * len(self._inodes))

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

    def _import(self, directory: Inode) -> dict[bytes, InodeNo]:
        """Give the entries of a directory's git tree inodes and names."""
        tree = directory.oid
        entries = self._objects.read_tree(tree) if tree and tree != EMPTY_TREE else ()
        children: dict[bytes, InodeNo] = {}
        saved = self._restorer.open(directory)
        directories = 0
        for entry in entries:
            size = self._size_of(entry)
            inode = self.imported(entry.mode, entry.oid, like=directory, size=size)
            if saved is not None:
                saved.apply(entry.name, inode)
            children[entry.name] = inode.ino
            inode.names = [(directory.ino, entry.name)]
            directories += inode.is_directory
            self._journal.put_dentry(directory.ino, entry.name, inode.ino)
        if saved is not None:
            directories += self._import_kept(directory, children, saved)
        directory.oid = None
        directory.flags |= LOADED
        directory.nlink = 2 + directories
        self._journal.touch(directory)
        self._journal.commit_within(0.5)
        return children

    def _import_kept(
        self, directory: Inode, children: dict[bytes, InodeNo], saved: SavedDirectory
    ) -> int:
        """Add the directories that git has nothing in; return how many."""
        kept = list(saved.kept(children))
        for name in kept:
            inode = self.imported(GitMode.DIRECTORY, EMPTY_TREE, like=directory)
            inode.flags |= EXPLICIT
            saved.apply(name, inode)
            children[name] = inode.ino
            inode.names = [(directory.ino, name)]
            self._journal.put_dentry(directory.ino, name, inode.ino)
        return len(kept)

    def imported(self, git_mode: int, oid: ObjectId, *, like: Inode, size: int = -1) -> Inode:
        """Return a new inode for what a git tree has, owned as `like` is, without a name."""
        is_document = git_mode not in {GitMode.DIRECTORY, GitMode.GITLINK}
        if is_document and size < 0:
            size = self._objects.size(oid)
        inode = self.new(_st_mode(git_mode), like.uid, like.gid)
        inode.atime_ns = inode.mtime_ns = inode.ctime_ns = self.import_time_ns
        if git_mode == GitMode.DIRECTORY:
            inode.oid = oid
            inode.flags &= ~LOADED
            inode.children = None
        elif is_document:
            inode.oid = oid
            inode.size = size
        return inode

    def _size_of(self, entry: TreeEntry) -> int:
        """Return a document's length, 0 for a directory; where its blob is missing or damaged, one byte that cannot be read.

        One such blob must not cost the directory; of no length, nobody would ask for it, and it would pass for empty.
        """
        if entry.mode in {GitMode.DIRECTORY, GitMode.GITLINK}:
            return 0
        try:
            return self._objects.size(entry.oid)
        except (NotFound, Corrupt):
            return 1


def _st_mode(git_mode: int) -> int:
    """Return the st_mode that an entry of a git tree shows."""
    if git_mode == GitMode.SYMLINK:
        return stat.S_IFLNK | 0o777
    if git_mode in {GitMode.DIRECTORY, GitMode.GITLINK}:
        return stat.S_IFDIR | 0o755
    return stat.S_IFREG | (0o755 if git_mode & 0o100 else 0o644)
