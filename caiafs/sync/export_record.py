"""What of the attributes was saved last: the trees of all directories, by inode number.

Used by `sync.attributes`, in one thread at a time. A file of its own in the state directory: with it the next save
composes changed directories only, and a directory that was moved takes its tree along. It may be lost, or be of another
commit than the reference or of another state DB: then everything is saved anew.
"""

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caiafs.core.errors import StateCorrupt
from caiafs.core.types import InodeNo, ObjectId

FILE_NAME = "saved.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS directory (ino INTEGER PRIMARY KEY, own BLOB, tree BLOB) STRICT;
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """A directory as it was saved: its own blobs as a raw tree, and its tree with those below."""

    own: bytes
    tree: ObjectId


class ExportRecord:
    """The record of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / FILE_NAME
        try:
            self._db = self._open()
        except sqlite3.Error:
            for leftover in state_dir.glob(FILE_NAME + "*"):
                leftover.unlink()
            self._db = self._open()
        self.owner: str | None = self._get("owner")
        self.commit: ObjectId | None = self._get("commit")
        self.round: int = self._get("round") or -1

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        self._file.chmod(0o600)
        db.executescript(_SCHEMA)
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        return db

    def _get(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM state WHERE key=?", (key,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def get(self, directory: InodeNo) -> Exported | None:
        """Return a directory as it was saved, None where it was not.

        Raises:
            StateCorrupt: the file is damaged.
        """
        try:
            row = self._db.execute(
                "SELECT own, tree FROM directory WHERE ino=?", (directory,)
            ).fetchone()
        except sqlite3.Error as exc:
            raise StateCorrupt(f"{self._file}: {exc}") from exc
        return Exported(row[0], ObjectId(row[1].hex())) if row else None

    def is_of(self, owner: str, commit: ObjectId | None) -> bool:
        """Whether this is what state DB `owner` saved as `commit`."""
        return commit is not None and (self.owner, self.commit) == (owner, commit)

    def forget(self) -> None:
        """Have everything saved anew; raises as `update`."""
        if self.commit is None:
            return
        self.update({}, "", None, -1)
        self._change([("DELETE FROM directory", [()])])

    def update(
        self,
        directories: Mapping[InodeNo, Exported],
        owner: str,
        commit: ObjectId | None,
        newest_round: int,
    ) -> None:
        """Note what state DB `owner` saved as `commit`.

        Raises:
            StateCorrupt: the file cannot be written.
        """
        rows = [(ino, item.own, bytes.fromhex(item.tree)) for ino, item in directories.items()]
        state = [("owner", owner), ("commit", commit), ("round", newest_round)]
        self._change(
            [
                ("INSERT OR REPLACE INTO directory VALUES (?,?,?)", rows),
                ("INSERT OR REPLACE INTO state VALUES (?,?)", state),
            ]
        )
        self.owner, self.commit, self.round = owner, commit, newest_round

    def _change(self, statements: Sequence[tuple[str, Sequence[tuple[object, ...]]]]) -> None:
        try:
            self._db.execute("BEGIN")
            for sql, rows in statements:
                self._db.executemany(sql, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as exc:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise StateCorrupt(f"{self._file}: {exc}") from exc
