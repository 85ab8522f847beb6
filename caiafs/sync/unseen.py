"""What the mount may not have seen yet of what others did, so that its ops are read as they were meant.

Kept by `sync.published`, read by `sync.replay`. An op that the mount logged before it had taken a foreign change in
speaks of the tree before that change. The mount says which changes it has taken in (`link.messages.Seen`); once every
op that it logged before is settled, they are forgotten. Bounded and in memory: after a restart all is told again.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from caiafs.core.types import Change, DocPath, Entry, ObjectId

UNSEEN_MAX = 20_000


class Unseen(Protocol):
    """What `sync.replay` asks."""

    def shown(self, path: DocPath, seq: int) -> tuple[Entry | None, ...]:
        """Return what the mount may have shown at `path` when it logged op `seq`; () where it shows what is there."""
        ...

    def arrivals(self, oid: ObjectId, seq: int) -> Iterator[DocPath]:
        """Yield new paths of `oid` at which the mount may have shown nothing when it logged op `seq`."""
        ...

    def below(self, directory: DocPath, seq: int) -> Iterator[DocPath]:
        """Yield paths below `directory` of which `shown` returns something."""
        ...


class NothingUnseen:
    """The mount has seen everything."""

    def shown(self, path: DocPath, seq: int) -> tuple[Entry | None, ...]:
        """Return nothing: it shows what is there."""
        return ()

    def arrivals(self, oid: ObjectId, seq: int) -> Iterator[DocPath]:
        """Yield nothing."""
        yield from ()

    def below(self, directory: DocPath, seq: int) -> Iterator[DocPath]:
        """Yield nothing."""
        yield from ()


@dataclass(slots=True, eq=False)
class _Item:
    """One foreign change of one path; `seen_seq` is the newest op that the mount logged before it took it in."""

    before: Entry | None
    after: ObjectId | None
    seen_seq: int | None = None

    def concerns(self, seq: int) -> bool:
        return self.seen_seq is None or seq <= self.seen_seq


class UnseenChanges:
    """Foreign changes, until the mount has taken them in and every older op is settled."""

    def __init__(self) -> None:
        self._items: dict[DocPath, list[_Item]] = {}
        self._told: deque[tuple[int, list[tuple[DocPath, _Item]]]] = deque()
        self._seen: deque[tuple[int, list[tuple[DocPath, _Item]]]] = deque()
        self._size = 0
        self._number = 0

    def __len__(self) -> int:
        return self._size

    @property
    def newest(self) -> int:
        """Number of what was noted last."""
        return self._number

    def note(self, changes: Iterable[Change]) -> None:
        """Remember what the mount showed before these changes, which it is being told."""
        self._number += 1
        noted = []
        for change in changes:
            item = _Item(change.before, change.after.oid if change.after is not None else None)
            self._items.setdefault(change.path, []).append(item)
            noted.append((change.path, item))
        self._size += len(noted)
        self._told.append((self._number, noted))
        while self._size > UNSEEN_MAX and len(self._told) + len(self._seen) > 1:
            self._drop((self._seen or self._told).popleft()[1])

    def acknowledge(self, number: int, last_seq: int, settled_seq: int) -> None:
        """The mount has taken in all up to `number`; its ops up to `last_seq` are older than that."""
        while self._told and self._told[0][0] <= number:
            _, noted = self._told.popleft()
            for _, item in noted:
                item.seen_seq = last_seq
            self._seen.append((last_seq, noted))
        self.settled(settled_seq)

    def settled(self, settled_seq: int) -> None:
        """Ops up to `settled_seq` are settled."""
        while self._seen and self._seen[0][0] <= settled_seq:
            self._drop(self._seen.popleft()[1])

    def forget(self, path: DocPath) -> None:
        """The mount has written `path` since."""
        self._size -= len(self._items.pop(path, ()))

    def shown(self, path: DocPath, seq: int) -> tuple[Entry | None, ...]:
        """See `Unseen`."""
        items = self._items.get(path, ())
        return tuple(item.before for item in items if item.concerns(seq))

    def arrivals(self, oid: ObjectId, seq: int) -> Iterator[DocPath]:
        """See `Unseen`."""
        for path, items in self._items.items():
            if any(i.before is None and i.after == oid and i.concerns(seq) for i in items):
                yield path

    def below(self, directory: DocPath, seq: int) -> Iterator[DocPath]:
        """See `Unseen`."""
        for path, items in self._items.items():
            if path.startswith(directory + b"/") and any(item.concerns(seq) for item in items):
                yield path

    def _drop(self, noted: list[tuple[DocPath, _Item]]) -> None:
        for path, item in noted:
            items = self._items.get(path)
            if items is None or item not in items:
                continue
            items[:] = [other for other in items if other is not item]
            self._size -= 1
            if not items:
                del self._items[path]
