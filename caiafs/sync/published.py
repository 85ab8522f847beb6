"""The published branch as the store process knows it, and who may move it.

Shared by publisher and follower. Whoever builds on the branch holds `lock` from reading it to moving it.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import trio

from caiafs.core.types import EMPTY_TREE, Change, DocPath, ObjectId
from caiafs.state.ops import Op
from caiafs.sync.unseen import UnseenChanges

_TIMES_MAX = 20_000


class Published:
    """Head, tree and newest settled op.

    Attributes:
        commit: head of the branch, None while it has none.
        tree: its tree.
        settled_seq: newest op in it.
        lock: held by whoever is about to move the branch.
        unseen: foreign changes that the mount may not have seen yet.
    """

    def __init__(self, commit: ObjectId | None, tree: ObjectId, settled_seq: int) -> None:
        self.commit = commit
        self.tree = tree
        self.settled_seq = settled_seq
        self.lock = trio.Lock()
        self._moved = trio.Event()
        self.unseen = UnseenChanges()
        self._foreign_times_ns: OrderedDict[DocPath, int] = OrderedDict()

    def move(
        self, commit: ObjectId | None, tree: ObjectId, *, settled_seq: int | None = None
    ) -> None:
        """Note that the branch is at `commit` now."""
        self.commit = commit
        self.tree = tree
        if settled_seq is not None:
            self.settled_seq = max(self.settled_seq, settled_seq)
        self._moved.set()
        self._moved = trio.Event()

    async def wait_moved(self) -> None:
        """Wait for the next `move`."""
        await self._moved.wait()

    async def wait_settled(self, seq: int, timeout_s: float = math.inf) -> bool:
        """Wait until ops up to `seq` are settled; False where that took longer than `timeout_s`."""
        with trio.move_on_after(timeout_s):
            while self.settled_seq < seq:
                await self.wait_moved()
        return self.settled_seq >= seq

    def note_foreign(self, changes: Iterable[Change], time_ns: int) -> int:
        """Remember what the mount showed before foreign changes that it is told now; return their number."""
        noted = list(changes)
        self.unseen.note(noted)
        for change in noted:
            self._foreign_times_ns[change.path] = time_ns
            self._foreign_times_ns.move_to_end(change.path)
        while len(self._foreign_times_ns) > _TIMES_MAX:
            self._foreign_times_ns.popitem(last=False)
        return self.unseen.newest

    def seen(self, number: int, last_seq: int) -> None:
        """The mount has taken in the foreign changes up to `number`; its newest op then was `last_seq`."""
        self.unseen.acknowledge(number, last_seq, self.settled_seq)

    def foreign_time_ns(self, path: DocPath) -> int | None:
        """Return when somebody else last changed `path`, as far as it is remembered."""
        return self._foreign_times_ns.get(path)

    def forget_unseen(self, settled: Sequence[Op]) -> None:
        """The mount has written the paths of these ops since, and all up to them is settled."""
        paths = [op.path for op in settled]
        for path in paths + [op.target for op in settled if op.target is not None]:
            self.unseen.forget(path)
            self._foreign_times_ns.pop(path, None)
        self.unseen.settled(self.settled_seq)

    @classmethod
    def empty(cls) -> "Published":
        """Return the state of a branch without commits."""
        return cls(None, EMPTY_TREE, 0)
