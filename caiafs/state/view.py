"""The state DB opened for reading only, beside the mount that writes it.

Closing is the caller's. Synchronous; an open snapshot stops the WAL from being reset, so transactions are short.
"""

import sqlite3
from pathlib import Path
from typing import Any, Self

from caiafs.core.errors import StateCorrupt
from caiafs.state import paths

_BUSY_TIMEOUT_S = 5.0


def open_state(state_dir: Path) -> sqlite3.Connection:
    """Open the state DB, which a mount may go on writing.

    Raises:
        sqlite3.Error: it is not there, or no database.
    """
    uri = f"{paths.database(state_dir).absolute().as_uri()}?mode=ro"
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S
    )


class StateView:
    """Answers queries on the state DB of a mount that is running. Raises StateCorrupt where SQLite does."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        try:
            self._db = open_state(state_dir)
        except sqlite3.Error as exc:
            raise StateCorrupt(f"cannot open the state database for reading: {exc}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def meta(self, key: str) -> object | None:
        """Return a value of `meta`, None where it is not set."""
        rows = self._rows("SELECT value FROM meta WHERE key=?", key)
        return rows[0][0] if rows else None

    def _rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as exc:
            raise StateCorrupt(f"cannot read the state database: {exc}") from exc
