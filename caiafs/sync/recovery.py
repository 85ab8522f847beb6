"""What a store process finds when it starts: which ops the branch already holds.

Used once, by `store_process`. The commit's operation trailer is the only record of what is settled.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

from caiafs.backends.base import Revision
from caiafs.backends.git.log import CommitLog, CommitRecord
from caiafs.core.errors import NotFound
from caiafs.core.types import NO_OBJECT, Change, ObjectId
from caiafs.state.ops import Op
from caiafs.store.trailers import operation_of
from caiafs.sync.replay import Merging, replay
from caiafs.sync.view import TreeReader

log = logging.getLogger(__name__)

_SEARCH_DEPTH = 20_000
_BEYOND_KNOWN = 64
_OPS_AT_ONCE = 10_000


class Ops(Protocol):
    """The op log; `state.reader` has it."""

    def ops_after(self, seq: int, limit: int) -> list[Op]:
        """Return at most `limit` ops that follow `seq`, in order."""
        ...

    def next_seq(self, seq: int) -> int | None:
        """Return the position of the op that follows `seq`, hashed or not; None without one."""
        ...


def find_settled(
    history: CommitLog, head: ObjectId | None, known: ObjectId | None, writer_id: str
) -> int:
    """Return the newest op of `writer_id` that the branch holds, 0 for none.

    Looks at every commit that `known` does not reach, however many and whatever their times say: a clock may have been
    set back. And at `known` and a few before it: of that commit itself the mount may have heard one half.
    """
    newest = 0
    for record in _since(history, head, known):
        operation = operation_of(record.message)
        if operation is not None and operation.writer_id == writer_id:
            newest = max(newest, operation.last_seq)
    return newest


def _since(
    history: CommitLog, head: ObjectId | None, known: ObjectId | None
) -> Iterator[CommitRecord]:
    if known is None or known_tree(history, known) is None:
        yield from itertools.islice(history.newest(head), _SEARCH_DEPTH)
        return
    yield from history.between(known, head)
    yield from itertools.islice(history.newest(known), _BEYOND_KNOWN)


def find_news(
    reader: TreeReader, known_tree: ObjectId, changes: Iterable[Change], settled_ops: Iterable[Op]
) -> list[Change]:
    """Return where the branch differs from what the mount shows, after a restart.

    Args:
        reader: has `known_tree`, which the mount took in last.
        known_tree: that.
        changes: from it to the branch's tree.
        settled_ops: ops that the mount does not know to be settled, as it logged them.
    """
    plain = Merging(lambda _: None, lambda *_: None, lambda path, *_: path, lambda *_: 0)
    shown = {c.path: c for c in replay(settled_ops, reader, known_tree, plain).changes}
    published = {c.path: c for c in changes}
    news = []
    for path in sorted(shown.keys() | published.keys()):
        before = shown[path].after if path in shown else published[path].before
        after = published[path].after if path in published else shown[path].before
        if not (before is after is None or (before is not None and before.same_content(after))):
            news.append(Change(path, before, after))
    return news


def known_tree(history: CommitLog, known: ObjectId | None) -> ObjectId | None:
    """Return the tree of the commit that the mount took in last; None where it took none, or it is gone."""
    if known is None or known == NO_OBJECT:
        return None
    try:
        return history.commit(known).tree
    except NotFound:
        log.warning("commit %s, which the mount knows, is not in the repository any more", known)
        return None


def pass_gap(ops: Ops, settled: int) -> int:
    """Return `settled`, or what stands right before the op that follows: a power cut leaves a gap of a million numbers.

    Numbers only rise, so nothing will ever be in between; counted as waiting, it would make versions coalesce.
    """
    following = ops.next_seq(settled)
    return settled if following is None else following - 1


def read_settled(ops: Ops, after: int, settled: int) -> list[Op]:
    """Return the ops after `after` up to `settled`, however many more wait."""
    found: list[Op] = []
    while after < settled and (some := ops.ops_after(after, _OPS_AT_ONCE)):
        found += [op for op in some if op.seq <= settled]
        after = some[-1].seq
    return found


def find_unfinished(log_of_primary: Iterable[Revision], writer_id: str, next_seq: int) -> int:
    """Return where the group ends that the primary has and the branch has not; 0 where there is none.

    `next_seq` is the oldest op that is not settled; after a power cut that may be far from the newest one that is.
    """
    for revision in log_of_primary:
        operation = operation_of(revision.message)
        if operation is None or operation.writer_id != writer_id:
            continue
        if operation.first_seq <= next_seq <= operation.last_seq:
            return operation.last_seq
        if operation.last_seq < next_seq:
            return 0
    return 0
