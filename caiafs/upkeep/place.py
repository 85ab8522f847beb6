"""A repository as upkeep finds it: opened, held against mounts, and what of it waits in the state DB.

Used by the other modules here. Nothing is made that is not there.
"""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import trio

from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.repository import Repository, RepositoryUnusable, open_repository
from caiafs.core import locations
from caiafs.core.config import Config
from caiafs.core.errors import StateCorrupt
from caiafs.core.types import DocPath, ObjectId
from caiafs.state import paths
from caiafs.state.flags import InodeFlag
from caiafs.state.lock import RepositoryLock
from caiafs.state.view import open_state
from caiafs.store.trailers import writer_of
from caiafs.sync.recovery import find_settled
from caiafs.vfs.local_names import LocalNames

_CAIA_SEARCH = 10_000
_STORE_WAIT_S = 10.0
_UNLOGGED = "SELECT ino, parent, name FROM inode WHERE flags & ? AND nlink > 0"


@dataclass(frozen=True, slots=True)
class Place:
    """A repository and its state directory, which may not exist."""

    repository: Repository
    state_dir: Path
    config: Config

    @property
    def has_state(self) -> bool:
        """Whether it was ever mounted here."""
        return paths.database(self.state_dir).exists()


def open_place(config: Config) -> Place:
    """Open the repository that `config` names.

    Raises:
        ConfigError: it is not there, or cannot be used; the message names the way out.
    """
    if not locations.is_repository(config.repository):
        raise RepositoryUnusable(f"{config.repository}: there is no repository")
    directory = locations.object_directory(config)
    object_dir = directory if directory is not None and directory.is_dir() else None
    repository = open_repository(
        config.repository, branch=config.branch, create=False, object_dir=object_dir
    )
    return Place(repository, locations.state_directory(config), config)


def is_caia(repository: Repository) -> bool:
    """Whether a mount ever committed to the branch."""
    history = CommitLog(repository.new_reader())
    newest = zip(range(_CAIA_SEARCH), history.newest(repository.head_commit()), strict=False)
    return any(writer_of(record.message) for _, record in newest)


@contextlib.asynccontextmanager
async def held(state_dir: Path) -> AsyncIterator[None]:
    """Keep mounts away while the block runs.

    Raises:
        StateBusy: it is mounted; names the process.
    """
    if not await trio.Path(state_dir).is_dir():
        yield
        return
    # The store process of a mount that was just killed takes a moment to end.
    waits = ((paths.mount_lock(state_dir), 0.0), (paths.store_lock(state_dir), _STORE_WAIT_S))
    with contextlib.ExitStack() as stack:
        for file, timeout_s in waits:
            lock = await RepositoryLock.acquire(file, timeout_s=timeout_s)
            stack.callback(lock.release)
        yield


@dataclass(frozen=True, slots=True)
class Pending:
    """What no store has yet: changes in the op log, and files whose last save is not logged yet."""

    ops: int = 0
    files: int = 0

    def __bool__(self) -> bool:
        return bool(self.ops or self.files)

    def __str__(self) -> str:
        count = self.ops + self.files
        return f"{count} change{'' if count == 1 else 's'}"


def count_pending(place: Place) -> Pending:
    """Return what the state DB holds that the branch does not.

    Raises:
        StateCorrupt: it cannot be read; `caiafs fsck` says more.
    """
    if not place.has_state:
        return Pending()
    try:
        with contextlib.closing(open_state(place.state_dir)) as db:
            return _count(db, place)
    except sqlite3.Error as exc:
        raise StateCorrupt(
            f"the state database cannot be read ({exc}); caiafs fsck {place.config.repository} says more"
        ) from exc


def _count(db: sqlite3.Connection, place: Place) -> Pending:
    meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
    settled = settled_seq(place.repository, meta)
    ops = db.execute("SELECT count(*) FROM op WHERE seq>?", (settled,)).fetchone()[0]
    local = LocalNames(place.config.local_patterns)
    files = sum(
        not local.match(path)
        for ino, parent, name in db.execute(_UNLOGGED, (int(InodeFlag.UNLOGGED),))
        for path in (path_of(db, parent, name),)
        if path is not None
    )
    return Pending(ops, files)


def settled_seq(repository: Repository, meta: dict[str, object]) -> int:
    """Return the newest op that the branch holds, as `meta` of the state DB and the commits say."""
    writer, known = meta.get("writer_id"), meta.get("known_commit")
    newest = meta.get("settled_seq")
    settled = newest if isinstance(newest, int) else 0
    if isinstance(writer, str):
        history = CommitLog(repository.new_reader())
        found = find_settled(
            history,
            repository.head_commit(),
            ObjectId(known) if isinstance(known, str) else None,
            writer,
        )
        settled = max(settled, found)
    return settled


def path_of(db: sqlite3.Connection, parent: int | None, name: bytes | None) -> DocPath | None:
    """Return the path of a name in the state DB, None for one that hangs nowhere."""
    parts: list[bytes] = []
    while parent is not None and name:
        parts.append(name)
        if parent == 1:
            return DocPath(b"/".join(reversed(parts)))
        if len(parts) > 4096:
            return None
        row = db.execute("SELECT parent, name FROM inode WHERE ino=?", (parent,)).fetchone()
        parent, name = row if row is not None else (None, None)
    return None
