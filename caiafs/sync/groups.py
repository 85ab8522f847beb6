"""Where the op log is cut into groups, each of which becomes one commit.

Used by `sync.publisher`. Pure. Two rules pull against each other: every saved version is in the history,
so an op that would bury a version put in the same group opens the next one; and a save dance
(`put(sedX), move(sedX -> f)`, `remove(f), put(f)`) is one step, so a cut moves back to where the dance began.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from caiafs.core.types import DocPath, ObjectId
from caiafs.state.ops import Op, OpKind

LOOK_AHEAD = 16
_RETREAT_MAX = 256
TRAILER_OVERHEAD_BYTES = len("Caiafs-Change: ") + 2 * 40 + 3
_ESCAPED = 4  # characters in ASCII for one that is not, as a rule


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """Bounds of one group; an op that exceeds one alone is a group of its own.

    Attributes:
        documents: ops.
        size_bytes: sum of the contents put.
        trailer_bytes: of the `Caiafs-Change` trailers that name the paths.
        coalesce: too much is waiting: several versions of a document may go into one commit.
        versions: of one document; where more of it wait, they may, too.
    """

    documents: int
    size_bytes: int
    trailer_bytes: int
    coalesce: bool = False
    versions: int = 1 << 40


@dataclass(frozen=True, slots=True)
class _Version:
    """A version that this group puts: where its dance began, and whether its document is new."""

    first: int
    oid: ObjectId | None
    is_new: bool


def plan_group(
    ops: Sequence[Op], limits: GroupLimits, said: Mapping[int, int] | None = None
) -> int:
    """Return how many of `ops`, from the first on, make the next group; 0 without ops.

    `said` is how many characters were said of an op, by its position.
    """
    said = said or {}
    cutter = _Cutter(limits, crowded_paths(ops, limits))
    size_bytes = trailer_bytes = 0
    for index, op in enumerate(ops):
        size_bytes += op.size_bytes if op.kind is OpKind.PUT else 0
        trailer_bytes += trailer_cost(op) + _ESCAPED * said.get(op.seq, 0)
        full = (
            index >= limits.documents
            or size_bytes > limits.size_bytes
            or trailer_bytes > limits.trailer_bytes
        )
        if index and op.uid != ops[0].uid:
            return index
        if index and full:
            return cutter.retreat(index, ops[index : index + LOOK_AHEAD])
        began = cutter.take(index, op)
        if index and began is not None:
            return began or index
    return len(ops)


def crowded_paths(ops: Sequence[Op], limits: GroupLimits) -> frozenset[DocPath]:
    """Return the documents of which more versions are among `ops` than may wait."""
    if len(ops) <= limits.versions:
        return frozenset()
    kinds = (OpKind.PUT, OpKind.MOVE)
    counts = Counter(op.target or op.path for op in ops if op.kind in kinds)
    return frozenset(path for path, count in counts.items() if count > limits.versions)


def trailer_cost(op: Op) -> int:
    """Return how many bytes of trailers an op takes at most, unless it moves a directory."""
    paths = [op.path] if op.target is None else [op.path, op.target]
    return sum(TRAILER_OVERHEAD_BYTES + len(quote_from_bytes(path, "/")) for path in paths)


class _Cutter:
    """Follows the versions that a group puts, through renames."""

    def __init__(self, limits: GroupLimits, crowded: frozenset[DocPath]) -> None:
        self._coalesce = limits.coalesce
        self._crowded = crowded
        self._versions: dict[DocPath, _Version] = {}
        self._removed: dict[DocPath, int] = {}
        self._directories: Counter[DocPath] = Counter()

    def take(self, index: int, op: Op) -> int | None:
        """Take `op` into the group; or return where the next group begins because it cannot be."""
        if op.kind is OpKind.PUT:
            return self._put(index, op)
        if op.kind is OpKind.REMOVE:
            return self._remove(index, op)
        assert op.target is not None, "a move has a target"
        if op.kind is OpKind.MOVE:
            return self._move(index, op.path, op.target, is_new=op.replaced is None)
        self._exchange(op.path, op.target)
        return None

    def retreat(self, cut: int, following: Sequence[Op]) -> int:
        """Return `cut`, or the beginning of a dance that `following` ends."""
        for op in following:
            begun = [self._removed.get(op.target or op.path)]
            if op.kind is OpKind.MOVE and op.path in self._versions:
                begun.append(self._versions[op.path].first)
            for first in begun:
                if first and first < cut and cut - first <= _RETREAT_MAX:
                    cut = first
        return cut

    def _may_bury(self, path: DocPath) -> bool:
        """Whether a later version of `path` may hide this group's."""
        return self._coalesce or path in self._crowded

    def _put(self, index: int, op: Op) -> int | None:
        held = self._versions.get(op.path)
        if held is None:
            # A temporary file that was moved away counts as new again.
            self._set(op.path, _Version(index, op.oid, is_new=op.replaced is None))
            return None
        if held.oid == op.oid or self._may_bury(op.path):
            self._versions[op.path] = _Version(held.first, op.oid, held.is_new)
            return None
        return index

    def _remove(self, index: int, op: Op) -> int | None:
        buried = [op.path] if op.path in self._versions else list(self._below(op.path))
        # A new document is temporary where it is removed, not where it becomes an editor's backup.
        kept = [path for path in buried if op.aside or not self._versions[path].is_new]
        if not all(map(self._may_bury, kept)):
            return index
        for path in buried:
            self._drop(path)
        self._removed[op.path] = index
        return None

    def _move(self, index: int, source: DocPath, target: DocPath, *, is_new: bool) -> int | None:
        moved = self._versions.get(source)
        held = self._versions.get(target)
        same = moved is not None and held is not None and held.oid == moved.oid
        if held is not None and not same and not self._may_bury(target):
            return moved.first if moved is not None else index
        if held is not None:
            self._drop(target)
        if moved is not None:
            self._drop(source)
            self._set(target, _Version(moved.first, moved.oid, is_new))
        for path in list(self._below(source)):
            version = self._versions[path]
            self._drop(path)
            self._set(DocPath(target + path[len(source) :]), version)
        self._removed[source] = index
        return None

    def _exchange(self, path: DocPath, target: DocPath) -> None:
        swapped = [(p, target + p[len(path) :]) for p in self._at_or_below(path)]
        swapped += [(p, path + p[len(target) :]) for p in self._at_or_below(target)]
        versions = [(new, self._versions[old]) for old, new in swapped]
        for old, _ in swapped:
            self._drop(old)
        for new, version in versions:
            self._set(DocPath(new), version)

    def _at_or_below(self, path: DocPath) -> list[DocPath]:
        return ([path] if path in self._versions else []) + list(self._below(path))

    def _below(self, directory: DocPath) -> Iterator[DocPath]:
        if not self._directories[directory]:
            return
        prefix = directory + b"/"
        yield from [path for path in self._versions if path.startswith(prefix)]

    def _set(self, path: DocPath, version: _Version) -> None:
        if path not in self._versions:
            for directory in ancestors(path):
                self._directories[directory] += 1
        self._versions[path] = version
        self._removed.pop(path, None)

    def _drop(self, path: DocPath) -> None:
        if self._versions.pop(path, None) is None:
            return
        for directory in ancestors(path):
            self._directories[directory] -= 1


def ancestors(path: DocPath) -> Iterator[DocPath]:
    """Yield the directories above `path`, nearest first, without the root."""
    slash = path.rfind(b"/")
    while slash > 0:
        yield DocPath(path[:slash])
        slash = path.rfind(b"/", 0, slash)
