"""health.json: ok, degraded or failed, and in sentences why.

Pure. Whatever is unknown is said: without the store process the answer is degraded with a reason, never empty.
"""

from typing import Any

from caiafs.core.config import BackendName, Config
from caiafs.link.report import BackendReport, Condition, RemoteReport, StoreReport
from caiafs.status.report import MountReport
from caiafs.status.stores import backend_fields, backend_of, remote_fields, remote_of

_NAMED_MAX = 20


def health(mount: MountReport, store: StoreReport | None, config: Config) -> dict[str, Any]:
    """Return the content of health.json.

    failed: changes are refused. degraded: everything goes on, and a person should know something. ok: neither.
    """
    backends = {name.value: backend_of(store, name.value, config) for name in BackendName}
    reasons = _reasons(mount, store, backends) + _limits(mount, config)
    return {
        "status": _status(mount, backends, reasons).value,
        "mode": store.mode if store and store.mode else _mode(config),
        "reasons": reasons,
        "information": _information(backends),
        "backends": {name: _backend(report) for name, report in backends.items()},
        "remote": _remote(remote_of(store, config)),
        "listing": backends["govc"].listing if backends["govc"].configured else "complete",
        "conflicts": mount.conflicts,
        "pending_ops": mount.state.pending_ops,
        "oldest_pending_s": round(mount.state.oldest_pending_s, 3),
        "oldest_pending_path": mount.state.oldest_pending_path,
        "pending_bytes": mount.state.pending_bytes,
    }


def _mode(config: Config) -> str:
    return "hybrid" if config.use_govc else "git only"


def _reasons(
    mount: MountReport, store: StoreReport | None, backends: dict[str, BackendReport]
) -> list[str]:
    reasons = list(mount.reasons)
    if mount.state.read_only:
        reasons.append(
            f"the state DB in {mount.state_dir} takes no changes; the mount is read-only"
        )
    reasons += mount.store_process.reasons
    if not mount.store_process.running:
        reasons.append("the store process is not running; saves are kept and published later")
    elif store is None:
        reasons.append("the store process has not reported yet")
    if mount.kernel.broken_requests:
        reasons.append(f"{mount.kernel.broken_requests} requests met a bug of caiafs; see the log")
    if mount.shadowed:
        reasons.append(f"stored documents are hidden by .caia: {', '.join(mount.shadowed[:5])}")
    if store is not None:
        reasons += store.reasons
    for name, report in backends.items():
        if report.configured:
            reasons += _backend_reasons(name, report)
    if store is not None:
        reasons += [f"git remote: {reason}" for reason in store.remote.reasons]
    return list(dict.fromkeys(reasons))


def _information(backends: dict[str, BackendReport]) -> list[str]:
    """Return what is as somebody set it, and still good to know."""
    return [
        f"{found.path} is not in {name}: {found.reason}"
        for name, report in backends.items()
        for found in report.too_large[:_NAMED_MAX]
    ]


def _limits(mount: MountReport, config: Config) -> list[str]:
    state = mount.state
    reasons = []
    if state.oldest_pending_s > config.pending_max_age_s:
        reasons.append(
            f"{state.oldest_pending_path} waits to be published for {state.oldest_pending_s / 60:.0f} min"
        )
    if state.delay_s:
        reasons.append(
            f"closing a written file takes {state.delay_s:.1f} s longer: {state.pending_bytes} bytes wait for a"
            " store, or the disk of the state directory is nearly full"
        )
    return reasons


def _backend_reasons(name: str, report: BackendReport) -> list[str]:
    reasons = [f"{name}: {reason}" for reason in report.reasons]
    if report.refused and not report.reasons:
        first = report.refused[0]
        reasons.append(
            f"{name}: refuses {len(report.refused)} documents, {first.path}: {first.reason}"
        )
    if report.condition in {Condition.DEGRADED, Condition.FAILED} and not reasons:
        reasons.append(f"{name}: {report.last_error or f'is {report.condition.value}'}")
    return reasons


def _status(
    mount: MountReport, backends: dict[str, BackendReport], reasons: list[str]
) -> Condition:
    if mount.state.read_only:
        return Condition.FAILED
    configured = [report for report in backends.values() if report.configured]
    if configured and all(report.condition is Condition.FAILED for report in configured):
        return Condition.FAILED
    if any(report.condition in {Condition.DEGRADED, Condition.FAILED} for report in configured):
        return Condition.DEGRADED
    # A sentence that nobody need act on does not exist: whatever has a reason is degraded.
    return Condition.DEGRADED if reasons else Condition.OK


def _backend(report: BackendReport) -> dict[str, Any]:
    return backend_fields(report) | {
        "reasons": list(report.reasons),
        "refused": len(report.refused),
    }


def _remote(report: RemoteReport) -> dict[str, Any]:
    return remote_fields(report) | {"reasons": list(report.reasons)}
