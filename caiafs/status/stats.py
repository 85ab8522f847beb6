"""stats.json: figures of the mount process and of the stores, in the shape that CAIA's tools know, and more.

Pure. `storage_stats.config` and `storage_stats.govc` keep the names and units of the CAIA documents.
"""

from dataclasses import asdict
from typing import Any

from caiafs.core.config import Config
from caiafs.core.metrics import OperationStatistics
from caiafs.link.report import BackendReport, RemoteReport, StoreReport
from caiafs.status.report import MountReport
from caiafs.status.stores import backend_fields, backend_of, remote_fields, remote_of


def stats(mount: MountReport, store: StoreReport | None, config: Config) -> dict[str, Any]:
    """Return the content of stats.json; without a report of the store process its figures are zero."""
    return {
        "version": mount.version,
        "mount": _mount(mount),
        "state": asdict(mount.state),
        "limits": {
            "pending_max_versions": config.pending_max_versions,
            "pending_max_per_document": config.pending_max_per_document,
            "pending_max_bytes": config.pending_max_bytes,
            "pending_max_age_s": config.pending_max_age_s,
            "reserve_bytes": config.reserve_bytes,
            "group_max_documents": config.group_max_documents,
            "group_max_bytes": config.group_max_bytes,
        },
        "cache": _cache(mount),
        "kernel": asdict(mount.kernel),
        "fuse": operations(mount.fuse),
        "store_process": _store_process(mount, store),
        "storage_stats": _storage(store, config),
    }


def operations(by_name: dict[str, OperationStatistics]) -> dict[str, Any]:
    """Return the statistics of each operation, by name."""
    return {name: asdict(statistics) for name, statistics in sorted(by_name.items())}


def _mount(mount: MountReport) -> dict[str, Any]:
    return {
        "pid": mount.pid,
        "uptime_s": round(mount.uptime_s, 3),
        "mountpoint": mount.mountpoint,
        "repository": mount.repository,
        "state_dir": mount.state_dir,
        "log": mount.log,
        "open_handles": mount.open_handles,
        "inodes_in_memory": mount.inodes_in_memory,
        "dirty_bytes": mount.dirty_bytes,
        "rss_bytes": mount.rss_bytes,
        "tasks": mount.tasks,
        "shadowed": list(mount.shadowed),
    }


def _cache(mount: MountReport) -> dict[str, Any]:
    asked = mount.cache.hits + mount.cache.misses
    return asdict(mount.cache) | {"hit_rate": round(mount.cache.hits / asked, 4) if asked else 0.0}


def _store_process(mount: MountReport, store: StoreReport | None) -> dict[str, Any]:
    told = store or StoreReport(mode="", backends={})
    return {
        "running": mount.store_process.running,
        "restarts": mount.store_process.restarts,
        "reported": store is not None,
        "uptime_s": round(told.uptime_s, 3),
        "rss_bytes": told.rss_bytes,
        "tasks": told.tasks,
        "branch": told.branch,
        "commit": told.commit,
        "tree": told.tree,
        "settled_seq": told.settled_seq,
        "last_seq": told.last_seq,
        "pending_ops": told.pending_ops,
        "groups": told.groups,
        "documents_published": told.documents_published,
        "conflicts": told.conflicts,
        "comparisons": told.comparisons,
        "comparison_left": told.comparison_left,
        "repaired": told.repaired,
    }


def _storage(store: StoreReport | None, config: Config) -> dict[str, Any]:
    govc = backend_of(store, "govc", config)
    git = backend_of(store, "git", config)
    return {
        "config": {
            "primary_backend": config.primary_backend.value,
            "enable_fallback": config.enable_fallback,
            "operation_timeout": round(config.operation_timeout_s * 1e9),
            "enable_sync": config.enable_sync,
            "sync_interval": round(config.sync_interval_s * 1e9),
        },
        "govc": {
            "documents_in_memory": govc.documents,
            "govc_integrated": govc.configured and govc.implementation != "none",
            **_backend(govc),
        },
        "git": _backend(git),
        "git_remote": _remote(remote_of(store, config)),
    }


def _backend(report: BackendReport) -> dict[str, Any]:
    return backend_fields(report) | {
        "head": report.head,
        "refused": [asdict(document) for document in report.refused],
        "operations": operations(report.operations),
    }


def _remote(report: RemoteReport) -> dict[str, Any]:
    return remote_fields(report) | {
        "head": report.head,
        "merges": report.merges,
        "operations": operations(report.operations),
    }
