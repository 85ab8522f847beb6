"""Attributes that come back from git when the state DB is lost, or was never there.

Used by `vfs.table` when a directory of a git tree is given inodes, and once by the mount process, for the root and for
hard links. Synchronous; nothing here awaits.

What is saved lies in a tree that mirrors the documents'. A directory that is not loaded keeps, beside its git tree, the
tree that was saved for it (table `saved`), so that it may be moved meanwhile, and so that what comes to `refs/caia/meta`
later cannot get between. Hard links alone are restored at once, for the whole tree: were they joined when a directory is
looked at, a write through one name before that would leave the other behind.

Git decides what there is: names, contents, the executable bit. Saved are the rest, and directories without a document.
Of a content that changed since only the times and the setuid and setgid bits are not taken: they belong to what was there.
"""

import logging
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from caiafs.core.errors import CaiaError
from caiafs.core.types import (
    ROOT_INODE,
    DocPath,
    InodeNo,
    ObjectId,
    display,
    git_mode,
    split_path,
)
from caiafs.state.journal import Journal, raw_id
from caiafs.state.saved import SavedEntry, parse_entries, parse_links
from caiafs.vfs.inode import EXPLICIT, HAS_XATTRS, Inode

log = logging.getLogger(__name__)

SAVED_HERE = "saved_here"
"""Key of `meta`: whether what the table `saved` has was written by this user on this machine."""

OUR_XATTRS = b"user.caia."
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID


class SavedSource(Protocol):
    """Where saved attributes come from; `app` supplies `backends.git.attribute_trees`.

    Raises NotFound and Corrupt.
    """

    def read(self, tree: ObjectId) -> tuple[Sequence[bytes], Mapping[bytes, ObjectId]]:
        """Return a directory's attribute blobs, and its subtrees by name."""
        ...

    def read_links(self, tree: ObjectId) -> bytes | None:
        """Return what tells of hard links."""
        ...


class Links(Protocol):
    """The names of a mount, as far as hard links need them: the inode table."""

    def children(self, directory: Inode) -> dict[bytes, InodeNo]:
        """Return a directory's names."""
        ...

    def find(self, directory: Inode, name: bytes) -> Inode | None:
        """Return what a name means."""
        ...

    def link(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Give an inode a name."""
        ...

    def unlink(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Take a name away."""
        ...

    def drop(self, inode: Inode) -> None:
        """Remove an inode."""
        ...


class SavedDirectory:
    """What is saved for the names of one directory."""

    def __init__(
        self,
        restorer: "Restorer",
        directory: Inode,
        blobs: Sequence[bytes],
        subtrees: Mapping[bytes, ObjectId],
    ) -> None:
        self._restorer = restorer
        self._directory = directory
        self._blobs = list(reversed(blobs))
        self._entries: dict[bytes, SavedEntry] = {}
        self._subtrees = subtrees

    def parse_more(self) -> bool:
        """Parse one of the parts in which it was saved; return whether there are more. Before all else."""
        if self._blobs:
            self._entries |= self._restorer.parse(self._blobs.pop())
        if self._blobs:
            return True
        if self._directory.ino == ROOT_INODE and b"" in self._entries:
            self._restorer.apply(self._entries.pop(b""), self._directory)
        return False

    def apply(self, name: bytes, inode: Inode) -> None:
        """Give an inode that was just imported as `name` what is saved for it."""
        entry = self._entries.get(name)
        if inode.is_directory and name in self._subtrees:
            self._restorer.note(inode, self._subtrees[name])
        if entry is not None:
            self._restorer.apply(entry, inode)

    def kept(self, present: Mapping[bytes, InodeNo]) -> Iterator[bytes]:
        """Yield the directories that git has nothing in; `present` are those that it has."""
        for name, entry in self._entries.items():
            stays = stat.S_ISDIR(entry.mode) and (entry.keep or entry.explicit)
            if name and stays and name not in present:
                yield name


class Restorer:
    """Gives imported inodes their saved attributes."""

    def __init__(self, journal: Journal, source: SavedSource, *, trust: bool) -> None:
        self._journal = journal
        self._source = source
        self._trusted = trust or bool(journal.db.meta(SAVED_HERE))
        self._trust = trust
        rows = journal.db.rows("SELECT ino, tree FROM saved")
        self._trees = {InodeNo(ino): ObjectId(tree.hex()) for ino, tree in rows}
        self._warned = False

    def begin(self, root: Inode, tree: ObjectId, *, here: bool) -> None:
        """Let a new state DB begin with `tree`, which this user on this machine wrote, or not."""
        self._trusted = here or self._trust
        self._journal.put_meta(SAVED_HERE, int(here))
        self.note(root, tree)

    def note(self, directory: Inode, tree: ObjectId) -> None:
        """Keep what is saved for a directory until it is loaded."""
        self._trees[directory.ino] = tree
        self._journal.run_sql(
            "INSERT OR REPLACE INTO saved VALUES (?,?)", directory.ino, raw_id(tree)
        )

    def open(self, directory: Inode) -> SavedDirectory | None:
        """Return what is saved for a directory that is being loaded, None where nothing is; `forget` it afterwards."""
        tree = self._trees.get(directory.ino)
        if tree is None:
            return None
        try:
            blobs, subtrees = self._source.read(tree)
        except CaiaError as exc:
            self._warn(str(exc))
            return None
        return SavedDirectory(self, directory, blobs, subtrees)

    def parse(self, blob: bytes) -> dict[bytes, SavedEntry]:
        """Return what a part of a directory's attributes says; nothing where it makes no sense."""
        try:
            found, bad = parse_entries(blob)
        except CaiaError as exc:
            self._warn(str(exc))
            return {}
        if bad:
            self._warn(f"{bad} lines make no sense")
        return found

    def forget(self, directory: InodeNo) -> None:
        """A directory is loaded, so that what was saved for it is in the state DB now, or it is gone."""
        if self._trees.pop(directory, None) is not None:
            self._journal.run_sql("DELETE FROM saved WHERE ino=?", directory)

    def _warn(self, reason: str) -> None:
        """Say once that saved attributes are left out: a hostile repository could fill the log."""
        if not self._warned:
            log.warning("attributes saved in git are left out: %s", reason)
        self._warned = True

    def apply(self, entry: SavedEntry, inode: Inode) -> None:
        """Give `inode` the attributes of `entry`, as far as it is still that and they are trusted."""
        if stat.S_IFMT(entry.mode) != stat.S_IFMT(inode.mode):
            return
        same = inode.is_directory or entry.oid == inode.oid
        trusted = self._trusted
        if inode.is_file:
            inode.mode = _file_mode(entry.mode, inode.mode, keep_special=same and trusted)
        elif inode.is_directory:
            dropped = 0 if trusted else _SPECIAL_BITS
            inode.mode = stat.S_IFDIR | (stat.S_IMODE(entry.mode) & ~dropped)
            inode.flags |= EXPLICIT if entry.explicit else 0
            inode.nlink = max(inode.nlink, entry.nlink)  # loading it counts
        if trusted:
            inode.uid, inode.gid = entry.uid, entry.gid
        # Not that of a commit, by which is told what nothing is to be saved of (sync.attributes).
        inode.ctime_ns += 1
        if same:
            inode.mtime_ns, inode.atime_ns = entry.mtime_ns, entry.atime_ns
        for name, value in entry.xattrs.items():
            if _is_welcome(name, trusted=trusted):
                inode.flags |= HAS_XATTRS
                self._journal.run_sql(
                    "INSERT OR REPLACE INTO xattr VALUES (?,?,?)", inode.ino, name, value
                )
        self._journal.touch(inode)

    def join_links(self, root: Inode, table: Links, tree: ObjectId) -> None:
        """Make one inode of all names that one file had; those that differ by now stay apart."""
        try:
            data = self._source.read_links(tree)
            groups, bad = parse_links(data) if data is not None else ([], 0)
        except CaiaError as exc:
            self._warn(str(exc))
            return
        if bad:
            self._warn(f"{bad} lines make no sense")
        for group in groups:
            try:
                _join(root, table, group)
            except CaiaError as exc:
                self._warn(f"{display(group[0])}: {exc}")


def _join(root: Inode, table: Links, group: Sequence[DocPath]) -> None:
    first: Inode | None = None
    for path in dict.fromkeys(group):
        above, name = split_path(path)
        directory = _walk(root, table, above)
        inode = table.find(directory, name) if directory is not None else None
        if directory is None or inode is None or not inode.is_publishable or inode.nlink > 1:
            continue
        if first is None:
            first = inode
            continue
        same = (inode.oid, git_mode(inode.mode)) == (first.oid, git_mode(first.mode))
        if inode is first or not same:
            continue
        table.unlink(directory, name, inode)
        table.drop(inode)
        table.link(directory, name, first)
        first.nlink += 1


def _walk(root: Inode, table: Links, path: DocPath) -> Inode | None:
    directory: Inode | None = root
    for name in path.split(b"/") if path else ():
        if directory is None or not directory.is_directory:
            return None
        directory = table.find(directory, name)
    return directory if directory is not None and directory.is_directory else None


def _file_mode(saved: int, imported: int, *, keep_special: bool) -> int:
    """Return a file's mode: the saved one, but for the executable bit, which git has."""
    permissions = stat.S_IMODE(saved)
    if not keep_special:
        permissions &= ~_SPECIAL_BITS
    if imported & 0o100 and not permissions & 0o100:
        permissions |= (permissions & 0o444) >> 2 | 0o100
    elif permissions & 0o100 and not imported & 0o100:
        permissions &= ~0o111
    return stat.S_IFREG | permissions


def _is_welcome(name: bytes, *, trusted: bool) -> bool:
    """Whether an extended attribute is taken; those of `security` and `trusted` from ours alone."""
    if name.startswith(OUR_XATTRS):
        return False
    return name.startswith(b"user.") or (trusted and name.startswith((b"trusted.", b"security.")))
