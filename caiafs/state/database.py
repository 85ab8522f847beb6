"""The state DB as the mount process holds it: opened, checked, migrated, synced, checkpointed.

One connection on the trio thread for everything that changes it; checkpoints and fdatasync run in a
thread, on a connection and a descriptor of their own. Methods that are not async never yield.

The recipe (WAL, synchronous=NORMAL, no automatic checkpoint, our own fdatasync) was measured: see
README "Design". In this process only SQLite may open or close the database file and its -shm:
closing any other descriptor of them drops SQLite's locks. The -wal carries none.
"""

import contextlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import trio

from caiafs.core.durable import sync_path
from caiafs.core.errors import StateCorrupt, StateError, StateFull
from caiafs.core.machine import boot_id
from caiafs.state import paths
from caiafs.state.guard import check_private
from caiafs.state.room import LogRoom
from caiafs.state.schema import PRAGMAS, SCHEMA, SCHEMA_VERSION

log = logging.getLogger(__name__)

PASSIVE_WAL_BYTES = 4 * 1024 * 1024
"""A checkpoint starts when the WAL is this long; PASSIVE holds nobody up."""

RESTART_WAL_BYTES = 64 * 1024 * 1024
"""Above it the writer itself resets the WAL, when few frames are left to copy."""

RESTART_FRAMES = 1000

LEAST_ROOM_BYTES = 128 * 1024
"""Room in the log for one change that takes something away; `WANTED_ROOM_BYTES` for one that adds."""

WANTED_ROOM_BYTES = 512 * 1024
_CUT_INTERVAL_S = 1.0

_SYNCED_BY_CHECKPOINT = (
    "UPDATE meta SET value='' WHERE key='boot'"
    " AND NOT EXISTS (SELECT 1 FROM content WHERE spool NOT NULL)"
)

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY_TIMEOUT_S = 0.1


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """Sizes in bytes; counts since the mount."""

    db_bytes: int
    wal_bytes: int
    transactions: int
    checkpoints: int


def translate(exc: sqlite3.Error) -> StateError:
    """Return the error that SQLite's `exc` is to the rest of us."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return StateFull(f"the state database cannot grow: {exc}")
    return StateCorrupt(f"the state database is damaged or in use: {exc}")


class StateDatabase:
    """The state DB of one repository."""

    def __init__(
        self, state_dir: Path, db: sqlite3.Connection, *, is_new: bool, rebooted: bool
    ) -> None:
        self.state_dir = state_dir
        self.rebooted = rebooted
        """The kernel started again, and the last mount did not end in order: what it had not synced may be lost."""
        self.damage = ""
        """What SQLite said when it first met a page that makes no sense; nothing is changed then."""
        self.is_new = is_new
        self._db = db
        self._file = paths.database(state_dir)
        self._wal = self._file.with_name(self._file.name + "-wal")
        self._wal_fd = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
        self._room = LogRoom(self._wal_fd)
        self._cut_s = -_CUT_INTERVAL_S
        self._limiter = trio.CapacityLimiter(1)
        self._transactions = 0
        self._checkpoints = 0
        self._committed = trio.Event()

    @classmethod
    def open(cls, state_dir: Path) -> Self:
        """Open the database in `state_dir`, made with mode 0700 where it is missing.

        Raises:
            StateCorrupt: it is damaged, newer than this program, or somebody else's.
            StateFull: no space to create it.
        """
        make_private(state_dir)
        file = paths.database(state_dir)
        is_new = not file.exists()
        try:
            # A RESTART checkpoint must not wait for a reader: the kernel waits for this thread.
            db = sqlite3.connect(
                file, isolation_level=None, cached_statements=256, timeout=_BUSY_TIMEOUT_S
            )
            for pragma in PRAGMAS:
                db.execute(pragma)
            if is_new:
                file.chmod(0o600)
            is_new = _migrate(db)
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('opened', ?)", (secrets.token_hex(4),))
            last = db.execute("SELECT value FROM meta WHERE key='boot'").fetchone()
            db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot_id(),))
            db.execute("COMMIT")  # the -wal exists from here on
        except sqlite3.Error as exc:
            raise translate(exc) from exc
        if is_new:
            sync_path(state_dir)
        return cls(state_dir, db, is_new=is_new, rebooted=last not in {None, ("",), (boot_id(),)})

    def check(self) -> None:
        """Read the whole database and see whether it holds together.

        Raises:
            StateCorrupt: it does not.
        """
        rows = self.rows("PRAGMA quick_check(1)")
        if rows != [("ok",)]:
            raise StateCorrupt(f"the state database is damaged: {rows[0][0]}")

    def rows(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Run a query and return all its rows."""
        try:
            return self._db.execute(sql, arguments).fetchall()
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: sqlite3.Error) -> StateError:
        """Return our error, and remember damage, which no later call takes back."""
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DAMAGED and not self.damage:
            self.damage = str(exc)
            log.error("the state database is damaged, the mount takes no more changes: %s", exc)
        return translate(exc)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it. The block must not await."""
        try:
            self._db.execute("BEGIN")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as exc:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._failed(exc) from exc
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._transactions += 1
        self._committed.set()

    def require_room(self, size_bytes: int = LEAST_ROOM_BYTES) -> None:
        """Return if a change of so many bytes will fit; called before anything of it is done.

        Raises:
            StateFull: it might not.
        """
        if self._room.has(size_bytes):
            return
        now_s = time.monotonic()
        if now_s - self._cut_s >= _CUT_INTERVAL_S:
            self._cut_s = now_s
            with contextlib.suppress(StateError):
                self.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            self._room.forget()
            if self._room.has(size_bytes):
                return
        raise StateFull("the disk of the state directory is full")

    def meta(self, key: str) -> Any:
        """Return a value of `meta`, None where it is not set."""
        rows = self.rows("SELECT value FROM meta WHERE key=?", key)
        return rows[0][0] if rows else None

    def set_meta(self, key: str, value: str | int | None) -> None:
        """Set a value of `meta` in a transaction of its own."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    async def sync(self) -> None:
        """Return when every committed transaction is on the disk (fdatasync of the WAL)."""
        try:
            await trio.to_thread.run_sync(os.fdatasync, self._wal_fd)
        except OSError as exc:
            raise StateFull(f"the state database could not be synced: {exc}") from exc

    @property
    def wal_bytes(self) -> int:
        """Length of the WAL."""
        return os.fstat(self._wal_fd).st_size

    @property
    def disk_free_bytes(self) -> int:
        """Room on its disk for who is not root. By descriptor: the directory may have been moved."""
        free = os.fstatvfs(self._wal_fd)
        return free.f_bavail * free.f_frsize

    async def run(self) -> None:
        """Keep the WAL short, until cancelled."""
        while True:
            await self._committed.wait()
            self._committed = trio.Event()
            if self.wal_bytes >= PASSIVE_WAL_BYTES:
                await self._checkpoint()
            await trio.sleep(0.2)

    async def _checkpoint(self) -> None:
        frames, copied = await trio.to_thread.run_sync(
            _checkpoint_passive, self._file, limiter=self._limiter
        )
        self._checkpoints += 1
        if self.wal_bytes < RESTART_WAL_BYTES or frames - copied > RESTART_FRAMES:
            return
        try:
            self.rows("PRAGMA wal_checkpoint(RESTART)")
        except StateError as exc:
            log.warning("the log of the state database goes on growing: %s", exc)

    def statistics(self) -> DatabaseStatistics:
        """Return sizes and counts."""
        try:
            db_bytes = self._file.stat().st_size
        except FileNotFoundError:  # the directory was moved; the open database goes on
            db_bytes = 0
        return DatabaseStatistics(
            db_bytes=db_bytes,
            wal_bytes=self.wal_bytes,
            transactions=self._transactions,
            checkpoints=self._checkpoints,
        )

    def close(self) -> None:
        """Check point, mark the stop as clean, close. Safe to call twice."""
        if self._wal_fd < 0:
            return
        with contextlib.suppress(sqlite3.Error):
            self._db.execute(_SYNCED_BY_CHECKPOINT)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        os.close(self._wal_fd)
        self._wal_fd = -1


def make_private(state_dir: Path) -> None:
    """Make the state directory, or refuse one that is not ours alone."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(state_dir)
        for directory in (paths.spool(state_dir), paths.cache(state_dir)):
            directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise StateFull(f"cannot make the state directory {state_dir}: {exc.strerror}") from exc


def _migrate(db: sqlite3.Connection) -> bool:
    """Bring the schema up to date; return whether the database is a new one."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StateCorrupt(
            f"the state database has schema {version}, this caiafs knows {SCHEMA_VERSION}: "
            "mount with the newer caiafs that wrote it"
        )
    if version == SCHEMA_VERSION:
        return False
    db.executescript(f"BEGIN; {SCHEMA}; PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    return True


def _checkpoint_passive(file: Path) -> tuple[int, int]:
    """Copy what can be copied without waiting; return frames in the WAL and frames copied."""
    try:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
            _, frames, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as exc:
        log.warning("checkpoint of the state database failed: %s", exc)
        return (0, 0)
    return int(frames), int(copied)
