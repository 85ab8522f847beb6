"""What the mount process says of itself in `.caia/`: gathered from the parts when somebody looks.

Used by app. Synchronous, from memory and two small queries.
"""

import contextlib
import os
import time
from pathlib import Path

import trio

from caiafs import __version__
from caiafs.core import locations
from caiafs.core.errors import CaiaError, StateError
from caiafs.core.types import ROOT_INODE, display
from caiafs.fuse.operations import CaiaOperations
from caiafs.mount_process import MountProcess
from caiafs.state import paths
from caiafs.status.report import (
    CacheReport,
    KernelReport,
    MountReport,
    StateReport,
    StoreProcessReport,
)
from caiafs.store_link import StoreLink
from caiafs.virtual.tree import directory_name

_STATM = Path("/proc/self/statm")


class Reporter:
    """Makes the report of a mount. `operations` is set as soon as there are some."""

    def __init__(self, mount: MountProcess, link: StoreLink) -> None:
        self._mount = mount
        self._link = link
        self._began = time.monotonic()
        self.operations: CaiaOperations | None = None

    def report(self) -> MountReport:
        """Return how the mount process is now."""
        mount, operations = self._mount, self.operations
        assert operations is not None, "reports begin with the mount"
        return MountReport(
            version=__version__,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._began,
            mountpoint=str(mount.config.mountpoint),
            repository=str(mount.config.repository),
            state_dir=str(mount.db.state_dir),
            log=str(locations.log_file(mount.config)),
            fuse={name: metrics.statistics() for name, metrics in operations.requests.items()},
            open_handles=len(mount.files) + len(mount.listings),
            inodes_in_memory=len(mount.table),
            dirty_bytes=mount.files.dirty_bytes,
            rss_bytes=_rss_bytes(),
            tasks=trio.lowlevel.current_statistics().tasks_living,
            cache=self._cache(),
            state=self._state(),
            store_process=self._process(),
            kernel=KernelReport(
                notifies_sent=mount.kernel.sent,
                notifies_failed=mount.kernel.failed,
                broken_requests=operations.broken_requests,
            ),
            shadowed=self._shadowed(),
            conflicts=len(mount.conflicts.open()),
            reasons=self._reasons(),
        )

    def _cache(self) -> CacheReport:
        cache = self._mount.cache.statistics()
        return CacheReport(
            entries=cache.entries,
            size_bytes=cache.size_bytes,
            hits=cache.hits,
            misses=cache.misses,
        )

    def _state(self) -> StateReport:
        mount = self._mount
        db = mount.db.statistics()
        oldest: list[tuple[int, bytes]] = []
        with contextlib.suppress(StateError):  # of a damaged DB the rest is still to be told
            oldest = mount.db.rows("SELECT time_ns, path FROM op ORDER BY seq LIMIT 1")
        return StateReport(
            db_bytes=db.db_bytes,
            wal_bytes=db.wal_bytes,
            spool_bytes=_find_bytes(paths.spool(mount.db.state_dir)),
            pending_ops=self._link.pending_ops,
            oldest_pending_s=max(0.0, (time.time_ns() - oldest[0][0]) / 1e9) if oldest else 0.0,
            oldest_pending_path=display(oldest[0][1]) if oldest else "",
            pending_bytes=mount.journal.waiting_bytes,
            delay_s=round(mount.files.delay_s, 3),
            read_only=bool(mount.db.damage),
        )

    def _process(self) -> StoreProcessReport:
        process = self._link.process.statistics()
        return StoreProcessReport(
            running=process.ready,
            restarts=process.restarts,
            reasons=(process.reason,) if process.reason else (),
        )

    def _shadowed(self) -> tuple[str, ...]:
        """Return the stored document that the virtual directory hides, if there is one."""
        name = directory_name(self._mount.config)
        root = self._mount.table.get(ROOT_INODE)
        try:
            is_hidden = name in self._mount.table.children(root)
        except CaiaError:  # where the root cannot be read the rest is still to be told
            return ()
        return (name.decode("utf-8", "backslashreplace"),) if is_hidden else ()

    def _reasons(self) -> tuple[str, ...]:
        error = self._mount.journal.last_error
        reasons = [f"changes wait in memory: {error}"] if error is not None else []
        reasons += self._mount.transactions.reasons()
        with contextlib.suppress(StateError):  # of a damaged DB the rest is still to be told
            reasons += self._mount.damage.reasons()
        return tuple(reasons)


def _rss_bytes() -> int:
    pages = int(_STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _find_bytes(directory: Path) -> int:
    """Return how much the files in a directory hold; 0 where it was moved away."""
    try:
        with os.scandir(directory) as entries:
            return sum(entry.stat().st_size for entry in entries)
    except FileNotFoundError:
        return 0
