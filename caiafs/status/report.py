"""What the mount process knows of itself, as one value; `stats`, `health` and `prometheus` show it.

Filled by app from each part's `statistics()` when a virtual file is opened. Times are seconds unless the name says otherwise.
"""

from dataclasses import dataclass, field

from caiafs.core.metrics import OperationStatistics


@dataclass(frozen=True, slots=True)
class CacheReport:
    """Clean contents in memory."""

    entries: int = 0
    size_bytes: int = 0
    hits: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True)
class StateReport:
    """The state DB and what waits in it.

    Attributes:
        pending_ops: ops that no ref reaches yet.
        oldest_pending_s: age of the oldest of them, 0 without.
        oldest_pending_path: the document that it changed.
        pending_bytes: contents that they put.
        delay_s: how long closing a written file is held up, because too much waits or the disk is nearly full.
        read_only: the DB is damaged or full, and the mount takes no changes.
    """

    db_bytes: int = 0
    wal_bytes: int = 0
    spool_bytes: int = 0
    pending_ops: int = 0
    oldest_pending_s: float = 0.0
    oldest_pending_path: str = ""
    pending_bytes: int = 0
    delay_s: float = 0.0
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class StoreProcessReport:
    """The store process as the mount process sees it.

    Attributes:
        running: it answers.
        restarts: how often it was started again.
        reasons: why it is away, or was restarted lately; one sentence each.
    """

    running: bool = False
    restarts: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelReport:
    """Notifies to the kernel, and requests that a bug of ours broke."""

    notifies_sent: int = 0
    notifies_failed: int = 0
    broken_requests: int = 0


@dataclass(frozen=True, slots=True)
class MountReport:
    """The mount process.

    Attributes:
        mountpoint, repository, state_dir, log: absolute.
        fuse: per kernel request, by its name.
        dirty_bytes: written and not yet in the state DB.
        tasks: trio tasks that live.
        shadowed: stored documents that .caia hides.
        conflicts: open conflicts.
        reasons: what a person should know that belongs to no part, one sentence each.
    """

    version: str
    pid: int
    uptime_s: float
    mountpoint: str
    repository: str
    state_dir: str
    log: str = ""
    fuse: dict[str, OperationStatistics] = field(default_factory=dict)
    open_handles: int = 0
    inodes_in_memory: int = 0
    dirty_bytes: int = 0
    rss_bytes: int = 0
    tasks: int = 0
    cache: CacheReport = CacheReport()
    state: StateReport = StateReport()
    store_process: StoreProcessReport = StoreProcessReport()
    kernel: KernelReport = KernelReport()
    shadowed: tuple[str, ...] = ()
    conflicts: int = 0
    reasons: tuple[str, ...] = ()
