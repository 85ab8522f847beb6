"""Ids of the documents of the published branch, as far as they do not follow from the paths.

Used by `sync.publisher`, which plans a group's ids and notes them, and by a task of its own that follows what others
committed. A database of its own in the state directory; the mount process reads it (`vfs.document_ids`). It may be lost:
then `refs/caia/meta` has it (`sync.attributes`), and the commits since then, or all of them, tell the rest.

The rules: what is at a path before and after a commit is the same document. What a rename brought to a path that was free
keeps its id. What was renamed to a name that is not published, as an editor's backup, gives its id back to what comes to
its old path, or takes it along when it is published again. Anything else is new: it has its path's own id, unless another
document had that before.
"""

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from caiafs.core.document_ids import FILE_NAME, DocumentId, first_id, later_id
from caiafs.core.errors import StateCorrupt
from caiafs.core.types import Change, DocPath, ObjectId
from caiafs.state.ops import Op, OpKind
from caiafs.state.saved_documents import format_documents
from caiafs.sync.document_trailers import Origins, Told, is_below, undone
from caiafs.sync.side_file import SideFile

log = logging.getLogger(__name__)

_LENT_S = 3600.0
_MARK_EVERY = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS document (path BLOB PRIMARY KEY, id TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS document_id ON document (id);
CREATE TABLE IF NOT EXISTS spent (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lent (
    path BLOB PRIMARY KEY, id TEXT NOT NULL, ino INTEGER NOT NULL, time_s REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Documents:
    """The ids of one branch.

    `document` has ids by path, `spent` the ids of paths that had a document before, `lent` what is not published for now.
    """

    def __init__(self, state_dir: Path) -> None:
        self._side = SideFile(state_dir / FILE_NAME, _SCHEMA)
        self.commit: ObjectId | None = self._side.state("commit")
        """The commit that the database tells of; None: it knows nothing yet."""
        self.is_ready: bool = self._side.state("ready") == 1
        """Whether it knows all that there is to know of that commit."""
        self._unmarked = 0
        self._version = 0
        self._saved: tuple[int, dict[bytes, bytes]] | None = None
        self._look()

    def _look(self) -> None:
        """See which tables have anything: most repositories need none, and nothing is asked then."""
        self._has_lent = bool(self._side.rows("SELECT 1 FROM lent LIMIT 1"))
        self._has_spent = bool(self._side.rows("SELECT 1 FROM spent LIMIT 1"))
        self._has_ids = bool(self._side.rows("SELECT 1 FROM document LIMIT 1"))

    def close(self) -> None:
        """Close the database."""
        with contextlib.suppress(StateCorrupt):
            self._mark()
        self._side.close()

    # --- asking

    def id_of(self, path: DocPath) -> DocumentId:
        """Return the id of the document at `path`."""
        return self._told(path) or first_id(path)

    def _told(self, path: DocPath) -> DocumentId | None:
        if not self._has_ids:
            return None
        rows = self._side.rows("SELECT id FROM document WHERE path=?", path)
        return rows[0][0] if rows else None

    def told(self, changes: Iterable[Change]) -> tuple[str, ...]:
        """Return the trailers that a store has to be given with documents that are new to it."""
        if not self._has_ids:
            return ()
        new = [c.path for c in changes if c.before is None and c.after is not None]
        ids = {path: found for path in new if (found := self._told(path)) is not None}
        return Told(ids).trailers()

    # --- a group of ours

    def plan(self, ops: Sequence[Op], changes: Sequence[Change], operation: str) -> Told:
        """Return what the commit of a group has to tell."""
        added = [c.path for c in changes if c.before is None and c.after is not None]
        if not added:
            return Told()
        moves = [op for op in ops if op.target is not None]
        if not (moves or self._has_spent or self._has_lent or self._has_ids):
            return Told()
        removed = {c.path for c in changes if c.after is None}
        origins = Origins(moves)
        inodes = {op.path: op.ino for op in ops if op.kind is OpKind.PUT} if self._has_lent else {}
        ids: dict[DocPath, DocumentId] = {}
        used_moves = False
        for path in added:
            origin = origins.of(path)
            if origin == path or origin not in removed:
                found = self._new(path, inodes.get(path, 0), operation)
                if found != first_id(path):
                    ids[path] = found
            elif undone(path, origins.moved) == origin:
                used_moves = True
            else:
                ids[path] = self.id_of(origin)
        return Told(ids, tuple(origins.moved) if used_moves else ())

    def _new(self, path: DocPath, ino: int, operation: str) -> DocumentId:
        own = first_id(path)
        if self._has_lent:
            sql = (
                "SELECT id FROM lent WHERE path=? AND time_s>? OR ino=? AND ino>0"
                " ORDER BY path=? DESC LIMIT 1"
            )
            rows = self._side.rows(sql, path, time.time() - _LENT_S, ino, path)
            if rows:
                return DocumentId(rows[0][0])
        is_spent = self._has_spent and self._side.rows("SELECT 1 FROM spent WHERE id=?", own)
        is_held = self._has_ids and self._side.rows("SELECT 1 FROM document WHERE id=?", own)
        return later_id(path, operation) if is_spent or is_held else own

    def note_group(
        self, commit: ObjectId, ops: Sequence[Op], changes: Sequence[Change], told: Told
    ) -> None:
        """Note what a commit of ours, one after what is known, did."""
        aside = [op for op in ops if op.aside and op.kind is OpKind.REMOVE]
        lent = self._find_lent(aside, changes) if aside else {}
        self.note(commit, changes, told, lent=lent)

    def _find_lent(
        self, aside: Sequence[Op], changes: Sequence[Change]
    ) -> dict[DocPath, tuple[DocumentId, int]]:
        files = {op.path: op.ino for op in aside}
        found: dict[DocPath, tuple[DocumentId, int]] = {}
        for change in changes:
            path = change.path
            if change.after is not None:
                continue
            if path in files:
                found[path] = (self.id_of(path), files[path])
            elif any(is_below(path, directory) for directory in files):
                found[path] = (self.id_of(path), 0)
        return found

    # --- what was committed, by whomever

    def note(
        self,
        commit: ObjectId | None,
        changes: Sequence[Change],
        told: Told,
        *,
        lent: Mapping[DocPath, tuple[DocumentId, int]] | None = None,
    ) -> None:
        """Note what `commit` did to the documents, one after what is known."""
        ids, removed = self._outcome(changes, told)
        self.commit = commit
        if not ids and not removed:
            self._unmarked += 1
            if self._unmarked >= _MARK_EVERY:
                self._mark()
            return
        lent = lent or {}
        given_back = set(ids.values())
        with self._side.transaction() as db:
            db.executemany("DELETE FROM document WHERE path=?", [(path,) for path in removed])
            db.executemany(
                "INSERT OR IGNORE INTO spent VALUES (?)", [(first_id(path),) for path in removed]
            )
            db.executemany("INSERT OR REPLACE INTO document VALUES (?,?)", list(ids.items()))
            if self._has_lent:
                new = [c.path for c in changes if c.before is None and c.after is not None]
                db.executemany("DELETE FROM lent WHERE path=?", [(path,) for path in new])
                db.executemany("DELETE FROM lent WHERE id=?", [(oid,) for oid in given_back])
            now_s = time.time()
            db.executemany(
                "INSERT OR REPLACE INTO lent VALUES (?,?,?,?)",
                [(path, oid, ino, now_s) for path, (oid, ino) in lent.items()],
            )
            db.execute("INSERT OR REPLACE INTO state VALUES ('commit', ?)", (commit,))
        self._version += 1
        self._has_lent = self._has_lent or bool(lent)
        self._has_spent = self._has_spent or bool(removed)
        self._has_ids = self._has_ids or bool(ids)
        self._unmarked = 0

    def _outcome(
        self, changes: Sequence[Change], told: Told
    ) -> tuple[dict[DocPath, DocumentId], list[DocPath]]:
        removed = {c.path for c in changes if c.after is None}
        ids = {path: oid for path, oid in told.ids.items() if path not in removed}
        for change in changes:
            path = change.path
            if change.after is not None and change.before is None and path not in ids:
                origin = undone(path, told.moved)
                if origin != path and origin in removed:
                    ids[path] = self.id_of(origin)
        return ids, sorted(removed)

    def _mark(self) -> None:
        """Write down how far the database tells, where nothing else had to be written."""
        with self._side.transaction() as db:
            db.execute("INSERT OR REPLACE INTO state VALUES ('commit', ?)", (self.commit,))
        self._unmarked = 0

    # --- saving and restoring

    def everything(self) -> tuple[list[tuple[bytes, str]], list[str]]:
        """Return all ids by path, and the spent ones."""
        ids = self._side.rows("SELECT path, id FROM document ORDER BY path")
        return [(path, oid) for path, oid in ids], [
            oid for (oid,) in self._side.rows("SELECT id FROM spent ORDER BY id")
        ]

    def to_save(self) -> Mapping[bytes, bytes]:
        """Return what is written down in git; empty as long as nothing is known."""
        if self.commit is None or not self.is_ready:
            return {}
        if self._saved is None or self._saved[0] != self._version:
            ids, spent = self.everything()
            self._saved = (self._version, format_documents(ids, spent, self.commit))
        head = format_documents((), (), self.commit)
        return {**self._saved[1], **head}

    def restore(
        self, ids: Iterable[tuple[bytes, str]], spent: Iterable[str], commit: ObjectId | None
    ) -> None:
        """Begin with what was saved when the branch was at `commit`, None for a branch without one."""
        with self._side.transaction() as db:
            db.execute("DELETE FROM document")
            db.execute("DELETE FROM spent")
            db.executemany("INSERT OR REPLACE INTO document VALUES (?,?)", ids)
            db.executemany("INSERT OR IGNORE INTO spent VALUES (?)", [(oid,) for oid in spent])
            db.execute("INSERT OR REPLACE INTO state VALUES ('commit', ?)", (commit,))
            db.execute("INSERT OR REPLACE INTO state VALUES ('ready', 1)")
        self.commit = commit
        self.is_ready = True
        self._version += 1
        self._look()
