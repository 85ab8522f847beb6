"""Gathers what the parts of the store process say of themselves into one report.

Used by `sync.assembly` for the reporter. From memory only, a few times a second.
"""

import time

import trio

from caiafs.link.report import RemoteReport, StoreReport
from caiafs.store.comparison import ComparisonReport
from caiafs.sync.attributes import AttributeSaver
from caiafs.sync.parts import Parts
from caiafs.sync.publisher import Publisher
from caiafs.sync.reporter import rss_bytes, uptime_s


def compose_report(parts: Parts, publisher: Publisher, saver: AttributeSaver | None) -> StoreReport:
    """Return how the store process is now."""
    done = publisher.statistics()
    published = parts.published
    reasons = [done.reason] if done.reason else []
    if done.coalescing:
        reasons.append("too many versions wait: several may go into one commit")
    if parts.pushes.replaced:
        reasons.append(parts.pushes.replaced)
    if saver is not None and saver.reason:
        reasons.append(f"attributes are not saved in git: {saver.reason}")
    compared = parts.comparison.statistics() if parts.comparison else ComparisonReport()
    oldest_s = (time.time_ns() - done.oldest_pending_ns) / 1e9 if done.oldest_pending_ns else 0.0
    return StoreReport(
        mode=parts.stores.mode,
        backends={
            "govc": parts.stores.govc_report(),
            "git": parts.stores.git_report(published.commit),
        },
        remote=parts.remote.report() if parts.remote is not None else RemoteReport(),
        reasons=tuple(reasons),
        settled_seq=published.settled_seq,
        last_seq=done.last_seq,
        pending_ops=done.pending_ops,
        oldest_pending_s=round(max(0.0, oldest_s), 3),
        groups=done.groups,
        documents_published=done.documents,
        conflicts=done.conflicts
        + parts.pushes.conflicts
        + (parts.foreign.conflicts if parts.foreign else 0),
        comparisons=compared.done,
        comparison_left=compared.left,
        repaired=compared.repaired,
        commit=published.commit,
        tree=published.tree,
        branch=parts.repository.branch_ref,
        uptime_s=round(uptime_s(), 1),
        rss_bytes=rss_bytes(),
        tasks=trio.lowlevel.current_statistics().tasks_living,
    )
