"""A database of its own beside the state DB, for what may be lost: a damaged one is made anew.

Used by `documents` and `export_record`, each in one thread at a time.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caiafs.core.errors import StateCorrupt

log = logging.getLogger(__name__)

_STATE = "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;"


class SideFile:
    """An open database with a table `state` of keys and values, and those of `schema`. Raises StateCorrupt where SQLite does."""

    def __init__(self, file: Path, schema: str) -> None:
        self._file = file
        try:
            self._db = _open(file, schema)
        except sqlite3.Error as exc:
            log.warning("%s is damaged and made anew: %s", file, exc)
            for leftover in file.parent.glob(file.name + "*"):
                leftover.unlink()
            self._db = _open(file, schema)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Run a query and return all its rows."""
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def state(self, key: str) -> Any:
        """Return a value of `state`, None where it is not set."""
        rows = self.rows("SELECT value FROM state WHERE key=?", key)
        return rows[0][0] if rows else None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it. The block must not await."""
        try:
            self._db.execute("BEGIN")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as exc:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.Error):
                raise self._failed(exc) from exc
            raise

    def _failed(self, exc: sqlite3.Error) -> StateCorrupt:
        return StateCorrupt(f"{self._file}: {exc}")


def _open(file: Path, schema: str) -> sqlite3.Connection:
    with contextlib.ExitStack() as stack:
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        stack.callback(db.close)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        file.chmod(0o600)
        db.executescript(_STATE + schema)
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
        stack.pop_all()
    return db
