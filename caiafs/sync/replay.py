"""Replays ops on the published tree: what becomes a commit, and what the mount does not know yet.

Used by `sync.publisher`. Where the tree has something else than the writer saw (`Op.replaced`), somebody else was
there first, and the rules of `sync.merge` hold: texts merge where they merge cleanly, else the op keeps the name and
the other version stays beside it; delete against edit keeps the edit, an edit follows a rename, a directory keeps its
name. Synchronous; reads small contents only.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from caiafs.core.types import Change, DocPath, Entry, GitMode, ObjectId, blob_id
from caiafs.state.ops import Op, OpKind
from caiafs.store.trailers import NamedConflict
from caiafs.sync.unseen import NothingUnseen, Unseen
from caiafs.sync.view import TreeReader, TreeView

ContentReader = Callable[[ObjectId], bytes | None]
"""Returns a small content; None where it is too large to merge or not here."""

REGULAR = (GitMode.FILE, GitMode.EXECUTABLE)


class TextMerge(Protocol):
    """Merges three versions of the document at `path`; None where they conflict."""

    def __call__(self, path: DocPath, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        """Return the merged text."""
        ...


class ConflictName(Protocol):
    """Names the copy of a version of `path` that lost its name."""

    def __call__(self, path: DocPath, time_ns: int, oid: ObjectId) -> DocPath:
        """Return the path of the copy."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """What a group does.

    Attributes:
        changes: what differs from the published tree.
        news: where the published tree now differs from what the mount shows: `before` is the mount's.
        contents: merged contents that no store has yet.
        conflicts: copies made.
        merged: versions that were merged into others, with the paths that they were saved at.
    """

    changes: tuple[Change, ...]
    news: tuple[Change, ...] = ()
    contents: Mapping[ObjectId, bytes] = field(default_factory=dict)
    conflicts: tuple[NamedConflict, ...] = ()
    merged: tuple[tuple[DocPath, Entry], ...] = ()


@dataclass(frozen=True, slots=True)
class Merging:
    """How contents merge and copies are called; from `sync.merge`.

    Attributes:
        read: gives small contents.
        foreign_time_ns: when the other version was committed, for the copy's name.
    """

    read: ContentReader
    text: TextMerge
    conflict_name: ConflictName
    foreign_time_ns: Callable[[DocPath, ObjectId], int]


def replay(
    ops: Iterable[Op],
    reader: TreeReader,
    tree: ObjectId,
    merging: Merging,
    unseen: Unseen | None = None,
) -> Replay:
    """Return what `ops` make of `tree`.

    Args:
        ops: in order.
        reader: has `tree`.
        tree: published.
        merging: how contents merge.
        unseen: foreign changes that the mount may not have had when it logged the ops.
    """
    player = _Player(TreeView(reader, tree), merging, unseen or NothingUnseen())
    for op in ops:
        player.play(op)
    return player.result()


class _Player:
    """Plays ops on a view, one by one."""

    def __init__(self, view: TreeView, merging: Merging, unseen: Unseen) -> None:
        self._view = view
        self._merging = merging
        self._unseen = unseen
        self._written: set[DocPath] = set()
        """What these ops have settled: the mount knows what is there."""
        self._shown: dict[DocPath, list[Entry | None]] = {}
        """What the mount may show where it is not what the view has."""
        self._contents: dict[ObjectId, bytes] = {}
        self._conflicts: list[NamedConflict] = []
        self._merged: list[tuple[DocPath, Entry]] = []
        self._seq = 0

    def play(self, op: Op) -> None:
        self._seq = op.seq
        if op.kind is OpKind.PUT:
            self._put(op)
        elif op.kind is OpKind.REMOVE:
            self._remove(op)
        elif op.kind is OpKind.MOVE:
            self._move(op)
        else:
            self._exchange(op)

    def result(self) -> Replay:
        news: list[Change] = []
        for path in sorted(self._shown):
            has = self._view.get(path)
            news += [Change(path, was, has) for was in self._shown[path] if not _same(was, has)]
        changes = self._view.changes()
        made = {change.path for change in changes if change.after is not None}
        kept = tuple(conflict for conflict in self._conflicts if conflict.copy in made)
        return Replay(changes, tuple(news), dict(self._contents), kept, tuple(self._merged))

    # --- put

    def _put(self, op: Op) -> None:
        assert op.oid is not None, "a put has content"
        ours = Entry(op.mode, op.oid, op.size_bytes)
        self._clear_above(op.path)
        theirs = self._view.get(op.path)
        if theirs is None:
            if self._view.has_below(op.path):
                self._put_beside(op.path, ours, op)
                return
            renamed = self._renamed_to(op)
            if renamed is not None:
                self._follow(op, ours, renamed)
                return
        base_mode = self._base_mode(op.path)
        self._settle(op.path)
        if not _is_foreign(theirs, op.replaced, ours):
            self._set(op.path, ours, _with_mode(ours, base_mode, theirs))
            return
        assert theirs is not None, "nothing is never foreign: an edit outlives a delete"
        merged = self._merge(op, ours, theirs)
        if merged is None:
            self._keep_copy(op.path, theirs, self._time_of(op.path, theirs), (op.replaced, ours))
            self._view.set(op.path, ours)
            return
        if merged.oid in self._contents:
            self._merged.append((op.path, ours))
        self._set(op.path, ours, _with_mode(merged, base_mode, theirs))

    def _set(self, path: DocPath, ours: Entry, entry: Entry) -> None:
        """Put `entry` where the mount has put `ours`."""
        self._view.set(path, entry)
        if not entry.same_content(ours):
            self._tell(path, ours)

    def _put_beside(self, path: DocPath, ours: Entry, op: Op) -> None:
        """Somebody made a directory of the name that the mount gave a document: it stays, ours goes beside it."""
        self._settle(path)
        self._tell(path, ours)
        for below, _ in self._view.below(path):
            self._tell(below, None)
        self._keep_copy(path, ours, op.time_ns, (None, None))

    def _renamed_to(self, op: Op) -> DocPath | None:
        """Return where somebody moved what the mount edited, if that is one place."""
        if op.replaced is None or all(
            shown is None or shown.oid != op.replaced for shown in self._unseen_at(op.path)
        ):
            return None
        found = []
        for path in self._unseen.arrivals(op.replaced, self._seq):
            entry = self._view.get(path)
            if entry is not None and entry.oid == op.replaced and path not in self._written:
                found.append(path)
        return found[0] if len(found) == 1 else None

    def _follow(self, op: Op, ours: Entry, target: DocPath) -> None:
        """Put an edit where somebody moved the document meanwhile."""
        theirs = self._view.get(target)
        assert theirs is not None, "it was found there"
        base_mode = self._base_mode(op.path)
        self._forget(op.path)
        self._settle(target)
        self._view.set(target, _with_mode(ours, base_mode, theirs))
        self._tell(op.path, ours)
        self._tell(target, theirs)

    def _base_mode(self, path: DocPath) -> int | None:
        """Return the mode from which both sides started, None where only the mount changed `path`."""
        modes = [shown.mode for shown in self._unseen_at(path) if shown is not None]
        return modes[0] if modes else None

    # --- remove

    def _remove(self, op: Op) -> None:
        theirs = self._view.get(op.path)
        if theirs is None:
            for path, entry in self._view.below(op.path):
                self._remove_below(path, entry)
            return
        if op.replaced is not None and theirs.oid != op.replaced:
            self._tell(op.path, None)
            return
        self._forget(op.path)

    def _remove_below(self, path: DocPath, entry: Entry) -> None:
        """Remove a document with its directory, unless the mount never saw its content."""
        unseen = self._unseen_at(path)
        if unseen and all(shown is None or shown.oid != entry.oid for shown in unseen):
            self._tell(path, None)
            return
        self._forget(path)

    def _settle(self, path: DocPath) -> None:
        """Note that the mount shows at `path` what the op that is played says."""
        self._written.add(path)
        self._shown.pop(path, None)

    def _forget(self, path: DocPath) -> None:
        self._view.set(path, None)
        self._settle(path)

    # --- move

    def _move(self, op: Op) -> None:
        assert op.target is not None, "a move has a target"
        source = self._view.get(op.path)
        if source is None and op.oid is None:
            hidden = self._hidden_below(op.path)
            for path, entry in self._view.below(op.path):
                self._move_one(op, path, entry, DocPath(op.target + path[len(op.path) :]), None)
            self._carry(hidden, (op.path, op.target))
            return
        if source is None:
            # Somebody deleted what was renamed: the rename keeps it.
            assert op.oid is not None, "it is a document"
            source = Entry(op.mode, op.oid, op.size_bytes)
        self._move_one(op, op.path, source, op.target, op.replaced)

    def _move_one(
        self, op: Op, source: DocPath, entry: Entry, target: DocPath, replaced: ObjectId | None
    ) -> None:
        self._clear_above(target)
        there = self._view.get(target)
        unseen = self._unseen_at(source)
        shown = [*unseen, *self._shown.get(source, ())]
        if there is None and self._view.has_below(target):
            self._forget(source)
            self._put_beside(target, entry, op)
            self._tell(target, *shown)
            self._tell_late(source, entry, unseen)
            return
        if _is_foreign(there, replaced, entry) and there is not None and target != source:
            time_ns = self._time_of(target, there)
            self._keep_copy(target, there, time_ns, (replaced, entry))
        self._forget(source)
        self._forget(target)
        self._view.set(target, entry)
        self._tell(target, *shown)
        self._tell_late(source, entry, unseen)

    def _hidden_below(self, directory: DocPath) -> dict[DocPath, tuple[Entry | None, ...]]:
        """Return what the mount may show below a directory where the tree has nothing: it moves along with it."""
        prefix = directory + b"/"
        paths = {path for path in self._shown if path.startswith(prefix)}
        paths.update(self._unseen.below(directory, self._seq))
        return {
            path: (*self._unseen_at(path), *self._shown.get(path, ()))
            for path in paths
            if self._view.get(path) is None
        }

    def _carry(
        self, hidden: dict[DocPath, tuple[Entry | None, ...]], *moves: tuple[DocPath, DocPath]
    ) -> None:
        """Note where the mount shows now what was `hidden` below the source of a move."""
        for path in hidden:
            self._settle(path)
        for path, shown in hidden.items():
            source, target = next(move for move in moves if path.startswith(move[0] + b"/"))
            self._tell(DocPath(target + path[len(source) :]), *shown)

    def _tell_late(self, path: DocPath, entry: Entry, unseen: tuple[Entry | None, ...]) -> None:
        """Note that a document which came from outside may have reached the mount after the move of its directory."""
        if None in unseen:
            self._tell(path, entry)

    def _exchange(self, op: Op) -> None:
        assert op.target is not None, "an exchange has a target"
        first = self._at_or_below(op.path)
        second = self._at_or_below(op.target)
        hidden = self._hidden_below(op.path) | self._hidden_below(op.target)
        pairs = [(path, entry, op.target + path[len(op.path) :]) for path, entry in first]
        pairs += [(path, entry, op.path + path[len(op.target) :]) for path, entry in second]
        unseen = {path: self._unseen_at(path) for path, _, _ in pairs}
        shown = {path: [*unseen[path], *self._shown.get(path, ())] for path, _, _ in pairs}
        for path, _, _ in pairs:
            self._forget(path)
        for path, entry, new in pairs:
            self._view.set(DocPath(new), entry)
            self._tell(DocPath(new), *shown[path])
            self._tell_late(path, entry, unseen[path])
        self._carry(hidden, (op.path, op.target), (op.target, op.path))

    def _at_or_below(self, path: DocPath) -> list[tuple[DocPath, Entry]]:
        entry = self._view.get(path)
        return [(path, entry)] if entry is not None else self._view.below(path)

    # --- parts

    def _unseen_at(self, path: DocPath) -> tuple[Entry | None, ...]:
        """Return what the mount may show at `path` because it has not heard of a foreign change."""
        return () if path in self._written else self._unseen.shown(path, self._seq)

    def _clear_above(self, path: DocPath) -> None:
        """Make way where somebody put a document at the name of a directory of ours."""
        blocker = self._view.document_above(path)
        if blocker is None:
            return
        entry = self._view.get(blocker)
        assert entry is not None, "it is a document"
        self._forget(blocker)
        self._keep_copy(blocker, entry, self._time_of(blocker, entry), (None, None))

    def _merge(self, op: Op, ours: Entry, theirs: Entry) -> Entry | None:
        """Return the clean merge of a text, None for a conflict."""
        if op.replaced is None or ours.mode not in REGULAR or theirs.mode not in REGULAR:
            return None
        if ours.oid == op.replaced:
            return Entry(ours.mode, theirs.oid, theirs.size_bytes)  # a change of mode alone
        versions = [self._read(oid) for oid in (op.replaced, ours.oid, theirs.oid)]
        base, our_text, their_text = versions
        if base is None or our_text is None or their_text is None:
            return None
        merged = self._merging.text(op.path, base, our_text, their_text)
        if merged is None:
            return None
        oid = blob_id(merged)
        self._contents[oid] = merged
        return Entry(ours.mode, oid, len(merged))

    def _read(self, oid: ObjectId) -> bytes | None:
        return self._contents.get(oid) or self._merging.read(oid)

    def _time_of(self, path: DocPath, entry: Entry) -> int:
        return self._merging.foreign_time_ns(path, entry.oid)

    def _keep_copy(
        self,
        path: DocPath,
        entry: Entry,
        time_ns: int,
        others: tuple[ObjectId | None, Entry | None],
    ) -> None:
        """Keep a version of `path` beside it; `others` are what both started from and what has the name."""
        base, kept = others
        copy = self._merging.conflict_name(path, time_ns, entry.oid)
        self._view.set(copy, entry)
        self._tell(copy, None)
        kept_oid = kept.oid if kept is not None else None
        self._conflicts.append(NamedConflict(path, copy, base, kept_oid, entry.oid))

    def _tell(self, path: DocPath, *shown: Entry | None) -> None:
        """Note that the mount may show one of `shown` at `path`, whatever the view has."""
        if shown:
            self._shown.setdefault(path, []).extend(shown)


def _is_foreign(theirs: Entry | None, replaced: ObjectId | None, ours: Entry) -> bool:
    """Whether what the tree has is neither what the writer saw nor what is put."""
    return theirs is not None and theirs.oid not in (replaced, ours.oid)


def _same(one: Entry | None, other: Entry | None) -> bool:
    return one is other or (one is not None and one.same_content(other))


def _with_mode(entry: Entry, base_mode: int | None, theirs: Entry | None) -> Entry:
    """Return `entry` with the executable bit that somebody else changed and the mount did not."""
    modes = (entry.mode, base_mode, theirs.mode if theirs is not None else None)
    if theirs is None or entry.mode != base_mode or any(mode not in REGULAR for mode in modes):
        return entry
    return Entry(theirs.mode, entry.oid, entry.size_bytes)
