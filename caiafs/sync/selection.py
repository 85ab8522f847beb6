"""Which ops become the next commit, and what was said of them.

Used by `sync.publisher`. Synchronous: short reads of the op log, and `sync.groups` decides. A committed transaction is one
group whatever its size; everything else is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from caiafs.core.types import DocPath
from caiafs.state.ops import Op
from caiafs.state.said import MESSAGE, Note, Transaction
from caiafs.sync.groups import LOOK_AHEAD, GroupLimits, crowded_paths, plan_group
from caiafs.sync.words import Remark, Said


class OpSource(Protocol):
    """The op log."""

    def ops_after(self, seq: int, limit: int) -> list[Op]:
        """Return ops in order, up to one whose content is still being hashed."""
        ...

    def next_seq(self, seq: int) -> int | None:
        """Return the position of the op that follows `seq`, ready or not; None without one."""
        ...

    def transaction_from(self, seq: int) -> Transaction | None:
        """Return the first committed transaction that has op `seq` or a later one."""
        ...

    def notes(self, first_seq: int, last_seq: int) -> list[Note]:
        """Return what was said of ops `first_seq` to `last_seq`."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Ops that become one commit, and what was said of it.

    Attributes:
        uid: its author.
    """

    ops: Sequence[Op]
    uid: int
    said: Said


class Selection:
    """Takes groups from the op log."""

    def __init__(self, ops: OpSource, limits: GroupLimits, pending_max: int) -> None:
        self._source = ops
        self._limits = limits
        self._pending_max = pending_max
        self.coalescing = False
        """Whether so much waits that several versions of a document may go into one commit."""

    def next_group(self, settled: int, due: int, exact_last: int = 0) -> Group | None:
        """Return the ops after `settled` that are next, None where there are none or one is not ready.

        Args:
            settled: newest op that is published.
            due: newest op that may be.
            exact_last: where the group ends that a store may have already, 0 for none.
        """
        self.coalescing = due - settled > self._pending_max
        limits = replace(self._limits, coalesce=self.coalescing)
        ops = self._ops(settled, due, limits.documents + LOOK_AHEAD)
        if not ops:
            return None
        transaction = self._source.transaction_from(ops[0].seq)
        if exact_last >= ops[0].seq:
            # Cut elsewhere it would be another operation.
            ops = self._ops(settled, exact_last, exact_last - settled)
            return self._group(ops, transaction)
        if transaction is not None and transaction.first_seq <= ops[0].seq:
            return self._whole(transaction, settled, due)
        if transaction is not None:
            ops = [op for op in ops if op.seq < transaction.first_seq]
        self.coalescing = self.coalescing or bool(crowded_paths(ops, limits))
        notes = self._source.notes(ops[0].seq, ops[-1].seq)
        said = {note.seq: len(note.text) for note in notes}
        return self._group(ops[: plan_group(ops, limits, said)], None)

    def _ops(self, settled: int, due: int, count: int) -> list[Op]:
        return [op for op in self._source.ops_after(settled, count) if op.seq <= due]

    def _whole(self, transaction: Transaction, settled: int, due: int) -> Group | None:
        last = transaction.last_seq
        ops = self._ops(settled, min(due, last), last - settled)
        if not ops:
            return None
        following = self._source.next_seq(ops[-1].seq)
        if following is not None and following <= last:
            return None  # still being hashed
        return self._group(ops, transaction)

    def _group(self, ops: Sequence[Op], transaction: Transaction | None) -> Group:
        first, last = ops[0].seq, ops[-1].seq
        remarks = _remarks(ops, self._source.notes(first, last))
        if transaction is None or not transaction.first_seq <= first <= transaction.last_seq:
            return Group(ops, ops[0].uid, Said("", remarks))
        return Group(ops, transaction.uid, Said(transaction.message, remarks))


def _remarks(ops: Sequence[Op], notes: Sequence[Note]) -> tuple[Remark, ...]:
    """Return what was said of documents, by where each is after its op."""
    if not notes:
        return ()
    paths = {op.seq: op.target or op.path for op in ops}
    found: dict[DocPath, Remark] = {}
    for note in notes:
        path = paths.get(note.seq)
        if path is None:
            continue
        remark = found.get(path, Remark(path))
        if note.kind == MESSAGE:
            found[path] = replace(remark, message=note.text)
        else:
            found[path] = replace(remark, source=note.text)
    return tuple(found.values())
