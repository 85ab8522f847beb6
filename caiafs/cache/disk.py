"""The disk cache's bound: large blobs as plain files, least recently used first out.

`DiskCache.run` is one task of the mount process; the files are written by the store process and by
the spool that hands its own over. Losing one loses nothing: a reader has it loaded again.
"""

import contextlib
import logging
import os
from pathlib import Path

import trio

log = logging.getLogger(__name__)

_TRIM_TO = 0.8
"""Share of the bound that is left after a trim, so that not every blob costs one."""


class DiskCache:
    """Keeps a directory of cached blobs below a number of bytes."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._grew = trio.Event()
        self._grew.set()
        self.size_bytes = 0

    def note_growth(self) -> None:
        """Have the size looked at soon."""
        self._grew.set()

    async def run(self) -> None:
        """Trim after growth, and once at the start, until cancelled."""
        while True:
            await self._grew.wait()
            self._grew = trio.Event()
            self.size_bytes = await trio.to_thread.run_sync(
                trim, self._directory, self._max_bytes, abandon_on_cancel=True
            )


def trim(directory: Path, max_bytes: int) -> int:
    """Remove the files used longest ago if all are more than `max_bytes`; return what is left.

    A file counts as used when it was read (atime, as far as the disk keeps it) or written.
    """
    files = []
    for path in directory.glob("*/*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            files.append((max(status.st_atime_ns, status.st_mtime_ns), status.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= max_bytes:
        return total
    for _, size, path in sorted(files):
        if total <= max_bytes * _TRIM_TO:
            break
        try:
            os.unlink(path)
        except OSError as exc:
            log.warning("the disk cache cannot be trimmed: %s", exc)
            break
        total -= size
    return total


def empty(directory: Path) -> None:
    """Remove every cached blob."""
    for path in directory.glob("*/*"):
        with contextlib.suppress(OSError):
            path.unlink()
