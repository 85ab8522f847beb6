"""What the store process tells of itself.

`status` makes stats.json, health.json and metrics from it. Travels as JSON inside `messages.Report`.
Times are seconds unless the name says otherwise.
"""

import enum
from dataclasses import dataclass, field

from caiafs.core.metrics import OperationStatistics


class Condition(enum.StrEnum):
    """How a part is."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class RefusedDocument:
    """A document that a store will not hold, in the store's words."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class BackendReport:
    """One store.

    Attributes:
        configured: False: never contacted.
        implementation: see `backends.base.Capabilities`; "none" before the first answer.
        condition: ok, degraded (breaker half-open, misconfigured, refused documents), failed, off.
        breaker: "closed", "open" or "half-open".
        reasons: what a person should know, one sentence each, empty when ok.
        head: the store's newest commit as last seen.
        documents: how many documents it holds as far as known.
        behind: documents that differ from our published tree.
        listing: "complete" or "partial".
        too_large: documents above a limit that somebody set: nothing is wrong with that.
        operations: per operation name.
        last_error: the newest error's text, with its age.
    """

    configured: bool
    implementation: str = "none"
    condition: Condition = Condition.OFF
    breaker: str = "closed"
    reasons: tuple[str, ...] = ()
    head: str | None = None
    documents: int = 0
    behind: int = 0
    listing: str = "complete"
    refused: tuple[RefusedDocument, ...] = ()
    too_large: tuple[RefusedDocument, ...] = ()
    operations: dict[str, OperationStatistics] = field(default_factory=dict)
    last_error: str = ""
    last_error_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class RemoteReport:
    """The git remote.

    Attributes:
        configured: False: nothing is ever sent anywhere.
        url: its address, secrets masked.
        branch: the branch there.
        condition: ok, degraded (away, refuses, never met), off.
        reasons: what a person should know, one sentence each.
        head: its newest commit as last seen.
        ahead, behind: commits that it lacks, and that we lack.
        documents_left: documents that it lacks, or has other contents of.
        last_fetch_ns, last_push_ns: when it was last looked at, and when it last took something; 0: never.
        merges: merges with it since the process started.
        operations: per operation name: look, fetch, merge, push.
        last_error: the newest error's text, with its age.
    """

    configured: bool = False
    url: str = ""
    branch: str = ""
    condition: Condition = Condition.OFF
    reasons: tuple[str, ...] = ()
    head: str | None = None
    ahead: int = 0
    behind: int = 0
    documents_left: int = 0
    last_fetch_ns: int = 0
    last_push_ns: int = 0
    merges: int = 0
    operations: dict[str, OperationStatistics] = field(default_factory=dict)
    last_error: str = ""
    last_error_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class StoreReport:
    """The store process.

    Attributes:
        mode: "hybrid", "git only" or "govc only".
        remote: the git remote.
        reasons: reasons that belong to no backend.
        settled_seq, last_seq: newest op settled, newest op known to be due.
        pending_ops: ops due and not settled.
        oldest_pending_s: age of the oldest of them, 0 without.
        groups, documents_published: since the process started.
        conflicts: conflict copies made since the process started.
        comparisons: full comparisons of the stores that came to their end.
        comparison_left: documents that the running one has still to look at, 0 without one.
        repaired: documents that the running or last one sent again.
        uptime_s: of the store process; `restarts` is counted by the mount process.
        rss_bytes: resident memory.
        tasks: trio tasks that live.
    """

    mode: str
    backends: dict[str, BackendReport]
    remote: RemoteReport = field(default_factory=RemoteReport)
    reasons: tuple[str, ...] = ()
    settled_seq: int = 0
    last_seq: int = 0
    pending_ops: int = 0
    oldest_pending_s: float = 0.0
    groups: int = 0
    documents_published: int = 0
    conflicts: int = 0
    comparisons: int = 0
    comparison_left: int = 0
    repaired: int = 0
    commit: str | None = None
    tree: str | None = None
    branch: str = ""
    uptime_s: float = 0.0
    rss_bytes: int = 0
    tasks: int = 0
