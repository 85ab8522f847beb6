"""A directory of a git tree on its way into the table, slice by slice.

Used by `vfs.table`. Synchronous; the table decides whether a task yields between two slices. 100,000 entries cost about a
second, their sizes and rows most of it.

Until the last slice the directory is not LOADED, and what it has in the state DB so far means nothing. A mark in `meta`
says so; the next mount takes it away, should this one die in between (`remove_unfinished`).
"""

import itertools
import stat
from collections.abc import Iterator
from typing import Protocol

from caiafs.core.errors import Absent, Corrupt, NotFound
from caiafs.core.types import EMPTY_TREE, GitMode, InodeNo, ObjectId
from caiafs.state.journal import Journal
from caiafs.vfs.inode import EXPLICIT, LOADED, Inode
from caiafs.vfs.restore import Restorer

SLICE = 500
"""Entries imported at a time: some 5 ms."""

UNFINISHED = "importing:"
"""Begins the keys of marks in `meta`; the directory's inode number follows."""

_NAMES_BELOW = "SELECT ino FROM dentry WHERE parent=?"


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

    def iter_tree(self, oid: ObjectId) -> Iterator[TreeEntry]:
        """Read a tree now, and return its entries one by one, names as they are in the mount."""
        ...

    def size(self, oid: ObjectId) -> int:
        """Return a blob's length in bytes, from its header."""
        ...

    def read_blob(self, oid: ObjectId) -> bytes:
        """Return a blob's content."""
        ...


class Importer(Protocol):
    """Makes inodes: the table."""

    def imported(self, git_mode: int, oid: ObjectId, *, like: Inode, size: int = -1) -> Inode:
        """Return a new inode for what a git tree has, without a name."""
        ...

    def take_back(self, inode: InodeNo) -> None:
        """Remove an inode that `imported` made."""
        ...


class DirectoryImport:
    """One directory's import."""

    def __init__(
        self,
        table: Importer,
        journal: Journal,
        objects: ObjectSource,
        restorer: Restorer,
        directory: Inode,
    ) -> None:
        """Begin the import of `directory`.

        Raises:
            Absent, Corrupt: git does not have its tree, or not as a tree.
        """
        self._table = table
        self._journal = journal
        self._objects = objects
        self._restorer = restorer
        self._directory = directory
        self._entries = self._read_tree(directory.oid)
        self._saved = restorer.open(directory)
        self._children: dict[bytes, InodeNo] = {}
        self._directories = 0
        self._is_marked = False

    def _read_tree(self, tree: ObjectId | None) -> Iterator[TreeEntry]:
        if tree is None or tree == EMPTY_TREE:
            return iter(())
        try:
            return self._objects.iter_tree(tree)
        except NotFound as exc:
            # Not the caller's ENOENT: the directory is there.
            raise Absent(f"tree {tree} is missing in git", backend="git", operation="read") from exc

    def step(self) -> bool:
        """Import a slice; return whether it was the last, and the directory is loaded.

        What raises undoes the whole import.
        """
        try:
            if self._saved is not None and self._saved.parse_more():
                return False
            entries = list(itertools.islice(self._entries, SLICE))
            for entry in entries:
                self._add(entry.name, entry.mode, entry.oid, self._size_of(entry))
        except BaseException:
            self._undo()
            raise
        if len(entries) < SLICE:
            self._finish()
            return True
        if not self._is_marked:
            self._journal.put_meta(f"{UNFINISHED}{self._directory.ino}", 1)
            self._is_marked = True
        return False

    def _add(self, name: bytes, mode: int, oid: ObjectId, size: int) -> Inode:
        directory = self._directory
        inode = self._table.imported(mode, oid, like=directory, size=size)
        if self._saved is not None:
            self._saved.apply(name, inode)
        self._children[name] = inode.ino
        inode.names = [(directory.ino, name)]
        self._directories += inode.is_directory
        self._journal.put_dentry(directory.ino, name, inode.ino)
        return inode

    def _finish(self) -> None:
        directory = self._directory
        if self._saved is not None:
            # Those that git has nothing in.
            for name in tuple(self._saved.kept(self._children)):
                self._add(name, GitMode.DIRECTORY, EMPTY_TREE, 0).flags |= EXPLICIT
        self._restorer.forget(directory.ino)
        if self._is_marked:
            self._drop_mark()
            # What was restored slice by slice may have been saved again half-way: now it has changed (sync.attributes).
            directory.ctime_ns += self._saved is not None
        directory.children = self._children
        directory.oid = None
        directory.flags |= LOADED
        directory.nlink = 2 + self._directories
        self._journal.touch(directory)

    def _undo(self) -> None:
        for name, ino in self._children.items():
            self._journal.drop_dentry(self._directory.ino, name)
            self._table.take_back(ino)
        self._drop_mark()

    def _drop_mark(self) -> None:
        key = f"{UNFINISHED}{self._directory.ino}"
        self._journal.run_sql("DELETE FROM meta WHERE key=?", key)

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


def remove_unfinished(journal: Journal) -> None:
    """Take away what an import left that the death of a mount interrupted."""
    marks = journal.db.rows("SELECT key FROM meta WHERE key GLOB ?", f"{UNFINISHED}*")
    for (key,) in marks:
        directory = int(key.removeprefix(UNFINISHED))
        flags = journal.db.rows("SELECT flags FROM inode WHERE ino=?", directory)
        if flags and not flags[0][0] & LOADED:
            for table in ("xattr", "saved", "inode"):
                journal.run_sql(f"DELETE FROM {table} WHERE ino IN ({_NAMES_BELOW})", directory)  # noqa: S608  # ours
            journal.run_sql("DELETE FROM dentry WHERE parent=?", directory)
        journal.run_sql("DELETE FROM meta WHERE key=?", key)
    journal.commit()


def shown_mode(git_mode: int) -> int:
    """Return the st_mode that an entry of a git tree shows."""
    if git_mode == GitMode.SYMLINK:
        return stat.S_IFLNK | 0o777
    if git_mode in {GitMode.DIRECTORY, GitMode.GITLINK}:
        return stat.S_IFDIR | 0o755
    return stat.S_IFREG | (0o755 if git_mode & 0o100 else 0o644)
