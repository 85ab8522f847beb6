"""Where things are in the state directory.

    state.db, state.db-wal, state.db-shm   the state database (SQLite)
    spool/<name>                           bytes of large contents, append-only
    cache/<xx>/<oid>                       large blobs as plain files; losing them loses nothing
    damaged/<name>.json, <name>.content    versions that could not be read, set aside (state.damaged)
    ref-locks/<reference>                  second names of locks of references that the store process holds
    lock.mount, lock.store                 held while the two processes live
    log, log.store                         the logs of the two processes, rotated
    last_unmount.json                      what the last mount left behind

Used by both processes. Nothing here is absolute in the database, so the directory can be moved.
"""

from pathlib import Path

from caiafs.core.types import ObjectId

DIRECTORY_NAME = "caiafs"
"""Inside the repository's git directory, unless --state-dir names another place."""


def database(state_dir: Path) -> Path:
    """Return the state database's file."""
    return state_dir / "state.db"


def spool(state_dir: Path) -> Path:
    """Return the directory of spool files."""
    return state_dir / "spool"


def cache(state_dir: Path) -> Path:
    """Return the directory of the disk cache."""
    return state_dir / "cache"


def cached_blob(state_dir: Path, oid: ObjectId) -> Path:
    """Return where the disk cache keeps blob `oid`."""
    return cache(state_dir) / oid[:2] / oid


def damaged(state_dir: Path) -> Path:
    """Return the directory of versions that were set aside."""
    return state_dir / "damaged"


def mount_lock(state_dir: Path) -> Path:
    """Return the lock file of the mount process."""
    return state_dir / "lock.mount"


def store_lock(state_dir: Path) -> Path:
    """Return the lock file of the store process."""
    return state_dir / "lock.store"
