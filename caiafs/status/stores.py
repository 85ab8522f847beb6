"""What is known of the stores, and what every file in .caia says of them alike. Pure."""

from typing import Any

from caiafs.core.config import Config
from caiafs.core.remote_url import mask
from caiafs.link.report import BackendReport, RemoteReport, StoreReport


def backend_of(store: StoreReport | None, name: str, config: Config) -> BackendReport:
    """Return what is known of the store `name`, also before its first report."""
    if store is not None and name in store.backends:
        return store.backends[name]
    return BackendReport(configured=name == "git" or config.use_govc)


def remote_of(store: StoreReport | None, config: Config) -> RemoteReport:
    """Return what is known of the git remote, also before the first report."""
    if store is not None:
        return store.remote
    return RemoteReport(configured=bool(config.git_remote), url=mask(config.git_remote or ""))


def backend_fields(report: BackendReport) -> dict[str, Any]:
    """Return how a store is."""
    return {
        "configured": report.configured,
        "condition": report.condition.value,
        "implementation": report.implementation,
        "breaker": report.breaker,
        "documents": report.documents,
        "behind": report.behind,
        "listing": report.listing,
        "last_error": report.last_error,
        "last_error_age_s": report.last_error_age_s,
    }


def remote_fields(report: RemoteReport) -> dict[str, Any]:
    """Return how the git remote is."""
    return {
        "configured": report.configured,
        "condition": report.condition.value,
        "url": report.url,
        "branch": report.branch,
        "ahead": report.ahead,
        "behind": report.behind,
        "documents_left": report.documents_left,
        "last_fetch_s": round(report.last_fetch_ns / 1e9, 3),
        "last_push_s": round(report.last_push_ns / 1e9, 3),
        "last_error": report.last_error,
        "last_error_age_s": report.last_error_age_s,
    }
