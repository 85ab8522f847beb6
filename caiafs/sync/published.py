"""The published branch as the store process knows it, and who may move it.

Shared by publisher and follower. Whoever builds on the branch holds `lock` from reading it to moving it.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import trio

from caiafs.core.types import EMPTY_TREE, Change, DocPath, Entry, ObjectId

_UNSEEN_MAX = 20_000


class Published:
    """Head, tree and newest settled op.

    Attributes:
        commit: head of the branch, None while it has none.
        tree: its tree.
        settled_seq: newest op in it.
        lock: held by whoever is about to move the branch.
    """

    def __init__(self, commit: ObjectId | None, tree: ObjectId, settled_seq: int) -> None:
        self.commit = commit
        self.tree = tree
        self.settled_seq = settled_seq
        self.lock = trio.Lock()
        self._moved = trio.Event()
        self._unseen: OrderedDict[DocPath, Entry | None] = OrderedDict()
        self._foreign_times_ns: dict[DocPath, int] = {}

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

    def note_foreign(self, changes: Iterable[Change], time_ns: int) -> None:
        """Remember what the mount showed before a foreign change: it may not have taken it yet."""
        for change in changes:
            self._unseen.setdefault(change.path, change.before)
            self._unseen.move_to_end(change.path)
            self._foreign_times_ns[change.path] = time_ns
        while len(self._unseen) > _UNSEEN_MAX:
            path, _ = self._unseen.popitem(last=False)
            self._foreign_times_ns.pop(path, None)

    @property
    def unseen(self) -> Mapping[DocPath, Entry | None]:
        """Foreign changes that the mount may not have seen yet; path to what it showed."""
        return self._unseen

    def foreign_time_ns(self, path: DocPath) -> int | None:
        """Return when somebody else last changed `path`, as far as it is remembered."""
        return self._foreign_times_ns.get(path)

    def forget_unseen(self, paths: Iterable[DocPath]) -> None:
        """The mount has written these paths since."""
        for path in paths:
            self._unseen.pop(path, None)
            self._foreign_times_ns.pop(path, None)

    @classmethod
    def empty(cls) -> "Published":
        """Return the state of a branch without commits."""
        return cls(None, EMPTY_TREE, 0)
