"""Spool files: bytes of contents that are too large for a row, until git has them.

Used by vfs only, on the trio thread; nothing here awaits except `sync`. Names are random, so that a
name is never used twice, and relative, so that the directory can move.
"""

import contextlib
import errno
import os
import secrets
from pathlib import Path

import trio

from caiafs.core.durable import sync_path
from caiafs.core.errors import StateCorrupt, StateError, StateFull
from caiafs.core.types import ObjectId
from caiafs.state import paths
from caiafs.state.guard import spool_file

DAMAGE = {errno.ENOENT, errno.EIO, errno.EUCLEAN, errno.ENODATA}
"""What a file that is gone or on a bad disk answers; anything else (too many open files) may pass."""


class SpoolFile:
    """An open spool file. `fd` is owned by this object; `close` ends it."""

    __slots__ = ("fd", "name")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd

    def write(self, content: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of `content` at `offset`.

        Raises:
            StateFull: no space; nothing refers to what was written of it.
        """
        view = memoryview(content)
        try:
            while view:
                written = os.pwrite(self.fd, view, offset)
                view = view[written:]
                offset += written
        except OSError as exc:
            raise StateFull(f"the spool cannot grow: {exc.strerror}") from exc

    def close(self) -> None:
        """Close the descriptor. Safe to call twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


class Spool:
    """The directory of spool files and the disk cache beside it."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._directory = paths.spool(state_dir)

    def create(self) -> SpoolFile:
        """Make a new, empty spool file."""
        name = secrets.token_hex(8)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return SpoolFile(name, os.open(self._directory / name, flags, 0o600))
        except OSError as exc:
            raise StateFull(f"cannot make a spool file: {exc.strerror}") from exc

    def open(self, name: str) -> SpoolFile:
        """Open a spool file that a content row names.

        Raises:
            StateCorrupt: it is gone.
        """
        file = spool_file(self._state_dir, name)
        try:
            return SpoolFile(name, os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
        except OSError as exc:
            message = f"spool file {name} cannot be opened: {exc.strerror}"
            kind = StateCorrupt if exc.errno in DAMAGE else StateError
            raise kind(message) from exc

    def open_cached(self, oid: ObjectId, size: int) -> SpoolFile | None:
        """Open blob `oid` in the disk cache, None where it is not there; one of another length is removed."""
        file = paths.cached_blob(self._state_dir, oid)
        try:
            opened = SpoolFile(oid, os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            if os.fstat(opened.fd).st_size == size:
                return opened
            file.unlink()
        except OSError:
            pass
        return None

    def adopt(self, name: str, oid: ObjectId) -> None:
        """Move a spool file that is just blob `oid` into the disk cache."""
        file = paths.cached_blob(self._state_dir, oid)
        try:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            spool_file(self._state_dir, name).rename(file)
        except (OSError, StateCorrupt):
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a spool file that no content row names any more."""
        # A name that is none of ours may be anybody's file.
        with contextlib.suppress(OSError, StateCorrupt):
            spool_file(self._state_dir, name).unlink()

    def names(self) -> set[str]:
        """Return the names of all spool files."""
        return set(os.listdir(self._directory))

    async def sync(self, file: SpoolFile) -> None:
        """Return when the file and its name are on the disk."""
        await trio.to_thread.run_sync(_sync, file.fd, self._directory)


def _sync(fd: int, directory: Path) -> None:
    try:
        os.fdatasync(fd)
        sync_path(directory)
    except OSError as exc:
        raise StateFull(f"a spool file could not be synced: {exc.strerror}") from exc
