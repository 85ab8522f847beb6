"""metrics: the same figures in Prometheus' text format, from one table of metrics.

Pure. A metric that is marked stable keeps its name, labels and unit; an experimental one may change.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from caiafs.core.config import Config
from caiafs.core.metrics import OperationStatistics
from caiafs.link.report import Condition, RemoteReport, StoreReport
from caiafs.status.health import health
from caiafs.status.report import MountReport
from caiafs.status.stores import backend_of

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Reports:
    """What all metrics are read from."""

    mount: MountReport
    store: StoreReport | None
    config: Config


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: with its unit at the end, `_total` for a counter.
        unit: seconds, bytes, or what is counted.
        stability: "stable" or "experimental".
        samples: labels and value of each sample; none where nothing is known.
    """

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    stability: Literal["stable", "experimental"]
    help: str
    samples: Callable[[Reports], Iterable[Sample]]


def _one(value: Callable[[MountReport], float]) -> Callable[[Reports], Iterable[Sample]]:
    return lambda reports: [((), value(reports.mount))]


def _store(value: Callable[[StoreReport], float]) -> Callable[[Reports], Iterable[Sample]]:
    return lambda reports: [((), value(reports.store))] if reports.store else []


def _health(reports: Reports) -> Iterable[Sample]:
    status = health(reports.mount, reports.store, reports.config)["status"]
    for condition in (Condition.OK, Condition.DEGRADED, Condition.FAILED):
        yield (("status", condition.value),), float(status == condition.value)


def _info(reports: Reports) -> Iterable[Sample]:
    yield (("version", reports.mount.version),), 1


def _tasks(reports: Reports) -> Iterable[Sample]:
    yield (("process", "mount"),), reports.mount.tasks
    if reports.store is not None:
        yield (("process", "store"),), reports.store.tasks


def _backends(name: str) -> Callable[[Reports], Iterable[Sample]]:
    def samples(reports: Reports) -> Iterable[Sample]:
        for backend in ("govc", "git"):
            report = backend_of(reports.store, backend, reports.config)
            if report.configured and reports.store is not None:
                yield (("backend", backend),), float(getattr(report, name))

    return samples


def _up(reports: Reports) -> Iterable[Sample]:
    for backend in ("govc", "git"):
        report = backend_of(reports.store, backend, reports.config)
        if report.configured:
            usable = report.condition in {Condition.OK, Condition.DEGRADED}
            yield (("backend", backend),), float(usable)


def _remote(value: Callable[[RemoteReport], float]) -> Callable[[Reports], Iterable[Sample]]:
    def samples(reports: Reports) -> Iterable[Sample]:
        if reports.store is not None and reports.store.remote.configured:
            yield (), value(reports.store.remote)

    return samples


def _refused(reports: Reports) -> Iterable[Sample]:
    for backend in ("govc", "git"):
        report = backend_of(reports.store, backend, reports.config)
        if report.configured and reports.store is not None:
            yield (("backend", backend),), float(len(report.refused))


def _operations(reports: Reports) -> Iterable[tuple[Labels, OperationStatistics]]:
    for name, statistics in sorted(reports.mount.fuse.items()):
        yield (("backend", "fuse"), ("operation", name)), statistics
    if reports.store is None:
        return
    for backend, report in sorted(reports.store.backends.items()):
        for name, statistics in sorted(report.operations.items()):
            yield (("backend", backend), ("operation", name)), statistics
    for name, statistics in sorted(reports.store.remote.operations.items()):
        yield (("backend", "git_remote"), ("operation", name)), statistics


def _outcomes(reports: Reports) -> Iterable[Sample]:
    for labels, statistics in _operations(reports):
        yield (*labels, ("outcome", "success")), statistics.success
        yield (*labels, ("outcome", "failure")), statistics.failure


def _quantiles(reports: Reports) -> Iterable[Sample]:
    for labels, statistics in _operations(reports):
        for quantile, value in (
            ("0", statistics.min_s),
            ("0.5", statistics.p50_s),
            ("0.95", statistics.p95_s),
            ("0.99", statistics.p99_s),
            ("1", statistics.max_s),
        ):
            yield (*labels, ("quantile", quantile)), value


def _seconds_spent(reports: Reports) -> Iterable[Sample]:
    for labels, statistics in _operations(reports):
        yield labels, statistics.avg_s * statistics.count


# fmt: off
METRICS: tuple[Metric, ...] = (
    Metric("caiafs_info", "gauge", "1", "stable", "Version of the mount process.", _info),
    Metric("caiafs_health", "gauge", "1", "stable", "1 for the status that health.json shows.", _health),
    Metric("caiafs_uptime_seconds", "gauge", "seconds", "stable", "Age of the mount process.",
           _one(lambda m: m.uptime_s)),
    Metric("caiafs_pending_ops", "gauge", "ops", "stable", "Saved changes that no store has settled.",
           _one(lambda m: m.state.pending_ops)),
    Metric("caiafs_oldest_pending_seconds", "gauge", "seconds", "stable", "Age of the oldest of them.",
           _one(lambda m: m.state.oldest_pending_s)),
    Metric("caiafs_pending_bytes", "gauge", "bytes", "stable", "Contents that they put.",
           _one(lambda m: m.state.pending_bytes)),
    Metric("caiafs_close_delay_seconds", "gauge", "seconds", "experimental",
           "How long closing a written file is held up.", _one(lambda m: m.state.delay_s)),
    Metric("caiafs_dirty_bytes", "gauge", "bytes", "stable", "Written and not yet in the state DB.",
           _one(lambda m: m.dirty_bytes)),
    Metric("caiafs_open_handles", "gauge", "handles", "stable", "Open files.",
           _one(lambda m: m.open_handles)),
    Metric("caiafs_inodes_in_memory", "gauge", "inodes", "experimental", "Inodes held in memory.",
           _one(lambda m: m.inodes_in_memory)),
    Metric("caiafs_resident_bytes", "gauge", "bytes", "experimental", "Memory of the mount process.",
           _one(lambda m: m.rss_bytes)),
    Metric("caiafs_tasks", "gauge", "tasks", "experimental", "Tasks of each process' event loop.", _tasks),
    Metric("caiafs_cache_bytes", "gauge", "bytes", "stable", "Clean contents in memory.",
           _one(lambda m: m.cache.size_bytes)),
    Metric("caiafs_cache_entries", "gauge", "contents", "stable", "Clean contents in memory.",
           _one(lambda m: m.cache.entries)),
    Metric("caiafs_cache_hits_total", "counter", "lookups", "stable", "Contents found in memory.",
           _one(lambda m: m.cache.hits)),
    Metric("caiafs_cache_misses_total", "counter", "lookups", "stable", "Contents not found in memory.",
           _one(lambda m: m.cache.misses)),
    Metric("caiafs_state_db_bytes", "gauge", "bytes", "experimental", "Size of the state DB.",
           _one(lambda m: m.state.db_bytes)),
    Metric("caiafs_state_wal_bytes", "gauge", "bytes", "experimental", "Size of its write-ahead log.",
           _one(lambda m: m.state.wal_bytes)),
    Metric("caiafs_state_spool_bytes", "gauge", "bytes", "experimental", "Large contents that wait.",
           _one(lambda m: m.state.spool_bytes)),
    Metric("caiafs_conflicts_open", "gauge", "conflicts", "stable", "Conflicts that nobody has ended.",
           _one(lambda m: m.conflicts)),
    Metric("caiafs_broken_requests_total", "counter", "requests", "stable", "Requests that met a bug.",
           _one(lambda m: m.kernel.broken_requests)),
    Metric("caiafs_kernel_notifies_total", "counter", "notifies", "experimental", "Sent to the kernel.",
           _one(lambda m: m.kernel.notifies_sent)),
    Metric("caiafs_kernel_notifies_failed_total", "counter", "notifies", "experimental", "Of them failed.",
           _one(lambda m: m.kernel.notifies_failed)),
    Metric("caiafs_store_process_up", "gauge", "1", "stable", "1 while the store process answers.",
           _one(lambda m: m.store_process.running)),
    Metric("caiafs_store_process_restarts_total", "counter", "restarts", "stable", "Times it was restarted.",
           _one(lambda m: m.store_process.restarts)),
    Metric("caiafs_groups_total", "counter", "commits", "stable", "Groups published by this store process.",
           _store(lambda s: s.groups)),
    Metric("caiafs_documents_published_total", "counter", "documents", "stable", "Documents in them.",
           _store(lambda s: s.documents_published)),
    Metric("caiafs_conflicts_total", "counter", "documents", "stable", "Conflict copies made.",
           _store(lambda s: s.conflicts)),
    Metric("caiafs_backend_up", "gauge", "1", "stable", "1 while the store is usable.", _up),
    Metric("caiafs_backend_documents", "gauge", "documents", "stable", "Documents that the store holds.",
           _backends("documents")),
    Metric("caiafs_backend_behind_documents", "gauge", "documents", "stable", "Documents that it lacks.",
           _backends("behind")),
    Metric("caiafs_backend_refused_documents", "gauge", "documents", "stable", "Documents that it refuses.",
           _refused),
    Metric("caiafs_remote_up", "gauge", "1", "stable", "1 while the git remote is level or can be made so.",
           _remote(lambda r: r.condition is Condition.OK)),
    Metric("caiafs_remote_ahead_commits", "gauge", "commits", "stable", "Commits that the git remote lacks.",
           _remote(lambda r: r.ahead)),
    Metric("caiafs_remote_behind_commits", "gauge", "commits", "stable", "Commits of it that are not here.",
           _remote(lambda r: r.behind)),
    Metric("caiafs_remote_last_fetch_timestamp_seconds", "gauge", "seconds", "stable",
           "When the git remote was last looked at, 0 for never.", _remote(lambda r: r.last_fetch_ns / 1e9)),
    Metric("caiafs_remote_last_push_timestamp_seconds", "gauge", "seconds", "stable",
           "When it last took something, 0 for never.", _remote(lambda r: r.last_push_ns / 1e9)),
    Metric("caiafs_remote_merges_total", "counter", "commits", "stable", "Merges with it.",
           _remote(lambda r: r.merges)),
    Metric("caiafs_operations_total", "counter", "operations", "stable", "Operations by outcome.", _outcomes),
    Metric("caiafs_operation_seconds_total", "counter", "seconds", "stable", "Time spent in them.",
           _seconds_spent),
    Metric("caiafs_operation_latency_seconds", "gauge", "seconds", "stable",
           "Latency by quantile since the start; 0 is the least, 1 the most.", _quantiles),
)
# fmt: on


def prometheus(mount: MountReport, store: StoreReport | None, config: Config) -> str:
    """Return the content of `metrics` in text exposition format 0.0.4."""
    reports = Reports(mount, store, config)
    lines = []
    for metric in METRICS:
        samples = list(metric.samples(reports))
        if not samples:
            continue
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines += [f"{metric.name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
