"""What a store process finds when it starts: which ops the branch already holds.

Used once, by `store_process`. The commit's operation trailer is the only record of what is settled.
"""

import itertools
import logging
from collections.abc import Iterable

from caiafs.backends.base import Revision
from caiafs.backends.git.log import CommitLog
from caiafs.core.errors import NotFound
from caiafs.core.types import NO_OBJECT, ObjectId
from caiafs.store.trailers import operation_of

log = logging.getLogger(__name__)

_SEARCH_DEPTH = 20_000


def find_settled(
    history: CommitLog, head: ObjectId | None, known: ObjectId | None, writer_id: str
) -> int:
    """Return the newest op of `writer_id` that the branch holds, 0 for none.

    Looks from `head` back to `known`, of which the mount knows everything.
    """
    newest = 0
    for record in itertools.islice(history.newest(head), _SEARCH_DEPTH):
        if record.oid == known:
            break
        operation = operation_of(record.message)
        if operation is not None and operation.writer_id == writer_id:
            newest = max(newest, operation.last_seq)
    return newest


def known_tree(history: CommitLog, known: ObjectId | None) -> ObjectId | None:
    """Return the tree of the commit that the mount took in last; None where it took none, or it is gone."""
    if known is None or known == NO_OBJECT:
        return None
    try:
        return history.commit(known).tree
    except NotFound:
        log.warning("commit %s, which the mount knows, is not in the repository any more", known)
        return None


def find_unfinished(log_of_primary: Iterable[Revision], writer_id: str, settled: int) -> int:
    """Return where the group ends that the primary has and the branch has not; 0 where there is none."""
    for revision in log_of_primary:
        operation = operation_of(revision.message)
        if operation is None or operation.writer_id != writer_id:
            continue
        if operation.first_seq <= settled + 1 and operation.last_seq > settled:
            return operation.last_seq
        if operation.last_seq <= settled:
            return 0
    return 0
