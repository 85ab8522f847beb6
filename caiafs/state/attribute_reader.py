"""Read-only view of the state DB for saving attributes: which directories changed, and what is in them.

Used by `sync.attributes`, in one thread at a time. All queries between `begin` and `end` see the DB at one moment; the
WAL cannot be reset meanwhile, so that is a fraction of a second.
Raises StateCorrupt where SQLite does.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from caiafs.core.types import ROOT_INODE, DocPath, InodeNo, ObjectId
from caiafs.state.flags import InodeFlag
from caiafs.state.saved import SavedEntry
from caiafs.state.view import StateView

_PLAIN_MODES = (0o100644, 0o100755, 0o120777, 0o040755)
_KINDS = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)
_LOADED, _EXPLICIT = int(InodeFlag.LOADED), int(InodeFlag.EXPLICIT)
_IS_DIRECTORY = "i.mode & 0xf000 = 0x4000"

# What was imported and never touched has the whole second of its commit twice.
_CHANGED = f"""
SELECT ino, mode, flags, parent, nlink FROM inode WHERE round > ? AND NOT (
    mtime_ns = ctime_ns AND mtime_ns % 1000000000 = 0 AND uid = ? AND gid = ?
    AND mode IN {_PLAIN_MODES} AND NOT flags & {int(InodeFlag.HAS_XATTRS)})
"""  # noqa: S608  # constants of ours
_ENTRIES = f"""
SELECT d.name, i.ino, i.mode, i.uid, i.gid, i.mtime_ns, i.atime_ns, i.oid, i.flags, i.nlink,
    {_IS_DIRECTORY} AND i.flags & {_LOADED} AND NOT EXISTS (
        SELECT 1 FROM dentry c JOIN inode f ON f.ino = c.ino
        WHERE c.parent = i.ino AND f.mode & 0xf000 <> 0x4000)
FROM dentry d JOIN inode i ON i.ino = d.ino WHERE d.parent = ?
"""  # noqa: S608  # as above
_DIRECTORIES = f"""
SELECT d.name, d.ino, i.flags, s.tree FROM dentry d JOIN inode i ON i.ino = d.ino
LEFT JOIN saved s ON s.ino = d.ino WHERE d.parent = ? AND {_IS_DIRECTORY}
"""  # noqa: S608  # as above


@dataclass(frozen=True, slots=True)
class ChildDirectory:
    """A directory in a directory.

    Attributes:
        is_loaded: its names are in the DB; otherwise `saved` is all that is known of them.
        saved: tree of what was saved for a directory that is not loaded.
    """

    name: bytes
    ino: InodeNo
    is_loaded: bool
    saved: ObjectId | None


class AttributeReader(StateView):
    """Reads attributes in the state DB of a mount that is running."""

    @property
    def version(self) -> int:
        """A number that changes when the mount has committed something."""
        return int(self._rows("PRAGMA data_version")[0][0])

    @contextlib.contextmanager
    def moment(self) -> Iterator[None]:
        """See the DB as it is now until the block ends."""
        self._rows("BEGIN")
        try:
            yield
        finally:
            self._rows("COMMIT")

    def newest_round(self) -> int:
        """Return the highest round of a row, 0 where there is none."""
        return int(self._rows("SELECT max(round) FROM inode")[0][0] or 0)

    def has_saved(self) -> bool:
        """Whether something saved earlier waits for its directory to be loaded."""
        return bool(self._rows("SELECT 1 FROM saved LIMIT 1"))

    def changed_directories(self, after_round: int) -> set[InodeNo]:
        """Return the loaded directories with a name, or the attributes of one, changed since."""
        found: set[InodeNo] = set()
        for ino, mode, flags, parent, nlink in self._rows(
            _CHANGED, after_round, os.geteuid(), os.getegid()
        ):
            if parent is not None:
                found.add(parent)
            if stat.S_ISDIR(mode):
                if flags & _LOADED and nlink:
                    found.add(ino)
            elif nlink > 1:
                sql = "SELECT parent FROM dentry WHERE ino=? AND shared"
                found.update(InodeNo(row[0]) for row in self._rows(sql, ino))
        return found

    def parent(self, directory: InodeNo) -> InodeNo | None:
        """Return a directory's parent, None for the root and for what was removed."""
        rows = self._rows("SELECT parent FROM inode WHERE ino=? AND nlink>0", directory)
        return rows[0][0] if rows else None

    def directories(self, directory: InodeNo) -> list[ChildDirectory]:
        """Return the directories in a directory."""
        return [
            ChildDirectory(
                name,
                InodeNo(ino),
                bool(flags & _LOADED),
                ObjectId(tree.hex()) if tree is not None else None,
            )
            for name, ino, flags, tree in self._rows(_DIRECTORIES, directory)
        ]

    def entries(self, directory: InodeNo) -> list[SavedEntry]:
        """Return what is to be saved of the names in a directory; special files are not."""
        xattrs = self._xattrs(directory)
        found = []
        for name, ino, mode, uid, gid, mtime, atime, oid, flags, nlink, bare in self._rows(
            _ENTRIES, directory
        ):
            if stat.S_IFMT(mode) not in _KINDS:
                continue
            is_directory = stat.S_ISDIR(mode)
            found.append(
                SavedEntry(
                    name=name,
                    mode=mode,
                    uid=uid,
                    gid=gid,
                    mtime_ns=mtime,
                    atime_ns=atime,
                    oid=ObjectId(oid.hex()) if oid is not None and not is_directory else None,
                    explicit=is_directory and bool(flags & _EXPLICIT),
                    keep=is_directory and bool(bare),
                    nlink=nlink if is_directory else 0,
                    xattrs=xattrs.get(ino, {}),
                )
            )
        return found

    def root_entry(self) -> SavedEntry | None:
        """Return what is to be saved of the root itself, under an empty name; None without a root."""
        sql = "SELECT mode, uid, gid, mtime_ns, atime_ns FROM inode WHERE ino=?"
        rows = self._rows(sql, ROOT_INODE)
        if not rows:
            return None
        mode, uid, gid, mtime, atime = rows[0]
        own = self._rows("SELECT name, value FROM xattr WHERE ino=?", ROOT_INODE)
        return SavedEntry(b"", mode, uid, gid, mtime, atime, xattrs=dict(own))

    def _xattrs(self, directory: InodeNo) -> dict[int, dict[bytes, bytes]]:
        if not self._rows("SELECT 1 FROM xattr LIMIT 1"):
            return {}
        sql = (
            "SELECT x.ino, x.name, x.value FROM dentry d JOIN xattr x ON x.ino = d.ino"
            " WHERE d.parent=?"
        )
        found: dict[int, dict[bytes, bytes]] = {}
        for ino, name, value in self._rows(sql, directory):
            found.setdefault(ino, {})[name] = value
        return found

    def link_groups(self) -> list[list[DocPath]]:
        """Return the paths of every file that has several names."""
        sql = (
            "SELECT d.ino, d.parent, d.name FROM dentry d JOIN inode i ON i.ino = d.ino"
            " WHERE d.shared AND i.nlink > 1 AND i.mode & 0xf000 IN (0x8000, 0xa000)"
        )
        groups: dict[int, list[DocPath]] = {}
        known: dict[int, DocPath | None] = {ROOT_INODE: DocPath(b"")}
        for ino, parent, name in self._rows(sql):
            above = self._path(parent, known)
            if above is not None:
                groups.setdefault(ino, []).append(DocPath(above + b"/" + name if above else name))
        return [sorted(group) for group in groups.values() if len(group) > 1]

    def _path(self, directory: int, known: dict[int, DocPath | None]) -> DocPath | None:
        names: list[tuple[int, bytes]] = []
        while directory not in known:
            rows = self._rows("SELECT parent, name FROM inode WHERE ino=?", directory)
            if not rows or rows[0][0] is None:
                known[directory] = None
                break
            names.append((directory, rows[0][1]))
            directory = rows[0][0]
        path = known[directory]
        for ino, name in reversed(names):
            if path is not None:
                path = DocPath(path + b"/" + name if path else name)
            known[ino] = path
        return path
