"""Replays ops on the published tree: what becomes a commit, and what the mount does not know yet.

Used by `sync.publisher`. Where the tree has something else than the writer saw (`Op.replaced`), somebody else was
there first: texts merge where they merge cleanly, else the op keeps the name and the other version stays beside it;
delete against edit keeps the edit, an edit follows a rename. Synchronous; reads small contents only.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from caiafs.core.types import Change, DocPath, Entry, GitMode, ObjectId, blob_id
from caiafs.state.ops import Op, OpKind
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
        conflicts: paths of copies made.
    """

    changes: tuple[Change, ...]
    news: tuple[Change, ...] = ()
    contents: Mapping[ObjectId, bytes] = field(default_factory=dict)
    conflicts: tuple[DocPath, ...] = ()


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
    unseen: Mapping[DocPath, Entry | None] | None = None,
) -> Replay:
    """Return what `ops` make of `tree`.

    Args:
        ops: in order.
        reader: has `tree`.
        tree: published.
        merging: how contents merge.
        unseen: foreign changes that the mount may not have had when it wrote the ops; path to what it showed.
    """
    player = _Player(TreeView(reader, tree), merging, dict(unseen or {}))
    for op in ops:
        player.play(op)
    return player.result()


class _Player:
    """Plays ops on a view, one by one."""

    def __init__(
        self, view: TreeView, merging: Merging, unseen: dict[DocPath, Entry | None]
    ) -> None:
        self._view = view
        self._merging = merging
        self._unseen = unseen
        # What the mount shows where it is not what the view has.
        self._shown: dict[DocPath, Entry | None] = {}
        self._contents: dict[ObjectId, bytes] = {}
        self._conflicts: list[DocPath] = []

    def play(self, op: Op) -> None:
        if op.kind is OpKind.PUT:
            self._put(op)
        elif op.kind is OpKind.REMOVE:
            self._remove(op)
        elif op.kind is OpKind.MOVE:
            self._move(op)
        else:
            self._exchange(op)

    def result(self) -> Replay:
        news = []
        for path in sorted(self._shown):
            shown, has = self._shown[path], self._view.get(path)
            if not (has is shown is None or (shown is not None and shown.same_content(has))):
                news.append(Change(path, shown, has))
        kept = tuple(path for path in self._conflicts if self._view.get(path) is not None)
        return Replay(self._view.changes(), tuple(news), dict(self._contents), kept)

    def _put(self, op: Op) -> None:
        assert op.oid is not None, "a put has content"
        ours = Entry(op.mode, op.oid, op.size_bytes)
        self._clear_above(op.path)
        if self._view.get(op.path) is None and self._view.has_below(op.path):
            # Somebody made a directory of that name: it stays, and ours goes beside it.
            self._tell(op.path, ours)
            for path, _ in self._view.below(op.path):
                self._tell(path, None)
            self._keep_copy(op.path, ours, op.time_ns)
            return
        theirs = self._view.get(op.path)
        self._unseen.pop(op.path, None)
        self._shown.pop(op.path, None)
        if not _is_foreign(theirs, op.replaced, ours):
            self._view.set(op.path, ours)
            return
        assert theirs is not None, "nothing is never foreign: an edit outlives a delete"
        merged = self._merge(op, ours, theirs)
        if merged is None:
            self._keep_copy(op.path, theirs, self._time_of(op.path, theirs))
            self._view.set(op.path, ours)
            return
        self._view.set(op.path, merged)
        self._tell(op.path, ours)

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
        """Remove a document with its directory, unless it came from outside and the mount never saw it."""
        if path in self._unseen:
            self._tell(path, None)
            return
        self._forget(path)

    def _forget(self, path: DocPath) -> None:
        self._view.set(path, None)
        self._unseen.pop(path, None)
        self._shown.pop(path, None)

    def _move(self, op: Op) -> None:
        assert op.target is not None, "a move has a target"
        source = self._view.get(op.path)
        if source is None:
            for path, entry in self._view.below(op.path):
                self._move_one(path, entry, DocPath(op.target + path[len(op.path) :]), None)
            if op.oid is None or self._view.has_below(op.target):
                return
            # Somebody deleted what was renamed: the rename keeps it.
            source = Entry(op.mode, op.oid, op.size_bytes)
            self._shown.pop(op.target, None)
        self._move_one(op.path, source, op.target, op.replaced)

    def _move_one(
        self, source: DocPath, entry: Entry, target: DocPath, replaced: ObjectId | None
    ) -> None:
        self._clear_above(target)
        there = self._view.get(target)
        if _is_foreign(there, replaced, entry) and there is not None and target != source:
            self._keep_copy(target, there, self._time_of(target, there))
        shown_differs = source in self._unseen or source in self._shown
        shown = self._unseen.pop(source, self._shown.pop(source, None))
        self._forget(source)
        self._forget(target)
        self._view.set(target, entry)
        if shown_differs:
            self._tell(target, shown)

    def _exchange(self, op: Op) -> None:
        assert op.target is not None, "an exchange has a target"
        first = self._at_or_below(op.path)
        second = self._at_or_below(op.target)
        pairs = [(path, entry, op.target + path[len(op.path) :]) for path, entry in first]
        pairs += [(path, entry, op.path + path[len(op.target) :]) for path, entry in second]
        shown = {**self._shown, **self._unseen}
        for path, _, _ in pairs:
            self._forget(path)
        for path, entry, new in pairs:
            self._view.set(DocPath(new), entry)
            if path in shown:
                self._tell(DocPath(new), shown[path])

    def _at_or_below(self, path: DocPath) -> list[tuple[DocPath, Entry]]:
        entry = self._view.get(path)
        return [(path, entry)] if entry is not None else self._view.below(path)

    def _clear_above(self, path: DocPath) -> None:
        """Make way where somebody put a document at the name of a directory of ours."""
        blocker = self._view.document_above(path)
        if blocker is None:
            return
        entry = self._view.get(blocker)
        assert entry is not None, "it is a document"
        self._forget(blocker)
        self._keep_copy(blocker, entry, self._time_of(blocker, entry))

    def _merge(self, op: Op, ours: Entry, theirs: Entry) -> Entry | None:
        """Return the clean merge of a text, None for a conflict."""
        if op.replaced is None or ours.mode not in REGULAR or theirs.mode not in REGULAR:
            return None
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

    def _keep_copy(self, path: DocPath, entry: Entry, time_ns: int) -> None:
        copy = self._merging.conflict_name(path, time_ns, entry.oid)
        self._view.set(copy, entry)
        self._tell(copy, None)
        self._conflicts.append(copy)

    def _tell(self, path: DocPath, shown: Entry | None) -> None:
        """Note that the mount shows `shown` at `path`, whatever the view has."""
        self._shown[path] = shown


def _is_foreign(theirs: Entry | None, replaced: ObjectId | None, ours: Entry) -> bool:
    """Whether what the tree has is neither what the writer saw nor what is put."""
    return theirs is not None and theirs.oid not in (replaced, ours.oid)
