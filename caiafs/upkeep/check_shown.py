"""Checks that the state DB shows what git has and the op log says: a flipped bit in a row is none to SQLite.

Used by `fsck`, where the tables fit together. The mount shows the tree of the commit that it took in last with the ops laid over it;
a document may also be as the branch has it by now, where a mount died while it was being told. Only directories that the DB has
the names of are looked at.
"""

import contextlib
import sqlite3

from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.objects import ObjectReader
from caiafs.core.errors import CaiaError
from caiafs.core.types import (
    ROOT_INODE,
    ROOT_PATH,
    DocPath,
    ObjectId,
    display,
    join_path,
    split_path,
)
from caiafs.state.flags import InodeFlag
from caiafs.state.ops import Op, OpKind
from caiafs.state.reader import to_op
from caiafs.state.view import open_state
from caiafs.sync.replay import Merging, replay
from caiafs.upkeep.check_govc import documents_of
from caiafs.upkeep.findings import Finding, Kind
from caiafs.upkeep.place import Place

_SHOWN = 20
_OPS = (
    "SELECT seq, kind, path, target, mode, oid, size, content, replaced, ino, uid, program, time_ns, aside"
    " FROM op ORDER BY seq"
)
_NAMES = (
    "SELECT d.parent, d.name, i.ino, i.mode, i.oid, i.flags, r.ino FROM dentry d JOIN inode i ON i.ino = d.ino"
    " LEFT JOIN replaced r ON r.ino = i.ino"
)
_UNTOLD = int(InodeFlag.LOCAL | InodeFlag.DAMAGED)
_LOADED = int(InodeFlag.LOADED)


def check_shown(place: Place) -> list[Finding]:
    """Return the documents that the DB shows otherwise than git and the op log have them."""
    if not place.has_state:
        return []
    try:
        with contextlib.closing(open_state(place.state_dir)) as db:
            known = db.execute("SELECT value FROM meta WHERE key='known_commit'").fetchone()
            ops = [to_op(row) for row in db.execute(_OPS)]
            if known is None or any(op.kind is OpKind.PUT and op.oid is None for op in ops):
                return []  # not begun, or not everything is hashed
            shown = _Shown(db)
        return _compare(place, shown, ops, known[0])
    except (sqlite3.Error, CaiaError):
        return []  # other checks tell of it


class _Shown:
    """What the DB shows.

    Attributes:
        documents: blob by path, None for what no store is to know.
        loaded: directories that the DB has the names of.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.documents: dict[DocPath, ObjectId | None] = {}
        self.loaded: set[DocPath] = set()
        self._directories: dict[int, tuple[int, bytes, bool]] = {}
        self._paths: dict[int, DocPath] = {ROOT_INODE: ROOT_PATH}
        files = self._read(db)
        for ino, (_, _, is_loaded) in self._directories.items():
            path = self._path(ino)
            if path is not None and is_loaded:
                self.loaded.add(path)
        for parent, name, blob in files:
            above = self._path(parent)
            if above is not None:
                self.documents[join_path(above, name)] = blob

    def _read(self, db: sqlite3.Connection) -> list[tuple[int, bytes, ObjectId | None]]:
        """Note the directories, and return the files."""
        root = db.execute("SELECT flags FROM inode WHERE ino=?", (ROOT_INODE,)).fetchone()
        if root is not None and root[0] & _LOADED:
            self.loaded.add(ROOT_PATH)
        files = []
        for parent, name, ino, mode, oid, flags, replaced in db.execute(_NAMES):
            if mode & 0xF000 == 0x4000:
                self._directories[ino] = (parent, name, bool(flags & _LOADED))
            else:
                is_told = oid is not None and not flags & _UNTOLD and replaced is None
                files.append((parent, name, ObjectId(oid.hex()) if is_told else None))
        return files

    def _path(self, ino: int) -> DocPath | None:
        chain: list[int] = []
        while ino not in self._paths:
            if ino not in self._directories or len(chain) > len(self._directories):
                return None
            chain.append(ino)
            ino = self._directories[ino][0]
        for below in reversed(chain):
            parent, name, _ = self._directories[below]
            self._paths[below] = join_path(self._paths[parent], name)
            ino = below
        return self._paths[ino]


def _compare(place: Place, shown: _Shown, ops: list[Op], known: str | None) -> list[Finding]:
    repository = place.repository
    reader = repository.new_reader()
    tree = repository.tree_of(None)
    if known is not None:
        tree = CommitLog(reader).commit(ObjectId(known)).tree
    expected = _documents(reader, tree)
    plain = Merging(lambda _: None, lambda *_: None, lambda path, *_: path, lambda *_: 0)
    for change in replay(ops, reader, tree, plain).changes:
        expected[change.path] = change.after.oid if change.after is not None else None
    head = _documents(reader, repository.tree_of(repository.head_commit()))
    found = []
    for path in sorted({*expected, *shown.documents}):
        if split_path(path)[0] not in shown.loaded:
            continue
        if path in shown.documents and shown.documents[path] is None:
            continue
        blob = shown.documents.get(path)
        if blob not in {expected.get(path), head.get(path)}:
            found.append(_differs(path, blob, expected.get(path)))
    return found[:_SHOWN]


def _documents(reader: ObjectReader, tree: ObjectId) -> dict[DocPath, ObjectId | None]:
    return {path: entry.oid for path, entry in documents_of(reader, tree).items()}


def _differs(path: DocPath, blob: ObjectId | None, expected: ObjectId | None) -> Finding:
    what = f"it shows {blob or 'nothing'} there, and git and the changes since have {expected or 'nothing'}"
    return Finding(
        Kind.DATABASE,
        display(path),
        what,
        "the mount would show another version than the stores have",
        "publishes what can be read of it, sets it aside and begins anew from git",
        subject="shown",
    )
