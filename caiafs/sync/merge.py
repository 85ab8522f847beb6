"""Three-way merge of two sets of changes to one tree: which path holds what afterwards.

Used by `sync` when somebody else's commit meets changes of ours. Pure: `plan_merge` decides from two diffs, the
caller merges the contents that the plan names (`merge_text`), `finish_merge` gives the changes for either side.

Rules, the same for every mount, so that all decide alike:

- Different paths merge silently; the same change on both sides is one change.
- Deleting against editing keeps the edit; a change of mode alone is none. An edit follows a rename that the other
  side made.
- A change of mode and a change of content merge. Both contents changed: by lines where that is clean.
- Otherwise a conflict: the side that comes later in the primary's log keeps the name, the other appears beside it
  under `conflict_name`, made of the time and blob id of its own commit.
- A document against a directory of the same name: the directory keeps the name, the document goes beside it.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from caiafs.core.conflicts import conflict_name
from caiafs.core.types import Change, DocPath, Entry, GitMode, ObjectId, split_path
from caiafs.sync.merge_text import merge_text

__all__ = [
    "Conflict",
    "ContentMerge",
    "MergePlan",
    "MergeResult",
    "Side",
    "conflict_name",
    "finish_merge",
    "merge_text",
    "plan_merge",
]

_REGULAR = (GitMode.FILE, GitMode.EXECUTABLE)
_SHORT_ID = 8


class Side(enum.Enum):
    """Whose version it is."""

    OURS = "ours"
    THEIRS = "theirs"


@dataclass(frozen=True, slots=True)
class ContentMerge:
    """A document whose content both sides changed; `mode` is what it has when the contents merge."""

    path: DocPath
    base: Entry
    ours: Entry
    theirs: Entry
    mode: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two versions that cannot be one.

    Attributes:
        path: the name they both want.
        kept: what keeps the name; None where a directory does.
        beside: what goes beside it, of side `side`.
        copy_path: where `beside` is; b"" until `finish_merge` has named it.
        base: what both started from, None where there was nothing.
    """

    path: DocPath
    kept: Entry | None
    beside: Entry
    side: Side
    copy_path: DocPath = field(default=DocPath(b""))
    base: Entry | None = None


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What was decided without looking at contents.

    Attributes:
        ours, theirs: the two diffs of the base.
        decided: state of each path that either side touched and that needs no content; None: gone.
        merges: documents whose contents the caller merges.
        conflicts: certain already.
        later: the side that keeps the name in a conflict.
    """

    ours: Mapping[DocPath, Change]
    theirs: Mapping[DocPath, Change]
    decided: Mapping[DocPath, Entry | None]
    merges: tuple[ContentMerge, ...]
    conflicts: tuple[Conflict, ...]
    later: Side

    def state_of(self, side: Side, path: DocPath) -> Entry | None:
        """Return what one side holds at a path that either touched."""
        mine, other = (self.ours, self.theirs) if side is Side.OURS else (self.theirs, self.ours)
        if path in mine:
            return mine[path].after
        return other[path].before if path in other else None

    @property
    def take_theirs(self) -> tuple[DocPath, ...]:
        """The decided paths where ours has to become theirs."""
        return tuple(
            path
            for path, entry in sorted(self.decided.items())
            if not _same(entry, self.state_of(Side.OURS, path))
        )

    @property
    def same(self) -> tuple[DocPath, ...]:
        """The paths that both sides brought to the same state."""
        return tuple(
            path
            for path in sorted(self.ours.keys() & self.theirs.keys())
            if _same(self.ours[path].after, self.theirs[path].after)
        )


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The merged tree, as changes to each side's own; sorted by path."""

    onto_ours: tuple[Change, ...]
    onto_theirs: tuple[Change, ...]
    conflicts: tuple[Conflict, ...]


def plan_merge(
    ours: Mapping[DocPath, Change],
    theirs: Mapping[DocPath, Change],
    *,
    later: Side = Side.OURS,
) -> MergePlan:
    """Decide the merge of two diffs of the same base, keyed by path.

    `later` is the side whose commit comes later in the primary's log: ours, when theirs is there already.
    """
    followed_theirs, bases = _follow_renames(moved=ours, edited=theirs)
    followed_ours, more_bases = _follow_renames(moved=theirs, edited=ours)
    bases |= more_bases
    decided: dict[DocPath, Entry | None] = {}
    merges: list[ContentMerge] = []
    conflicts: list[Conflict] = []
    for path in sorted(followed_ours.keys() | followed_theirs.keys()):
        mine, other = followed_ours.get(path), followed_theirs.get(path)
        if mine is None or other is None:
            change = mine or other
            decided[path] = change.after if change is not None else None
            continue
        outcome = _decide(path, bases.get(path, mine.before), mine.after, other.after, later)
        if isinstance(outcome, ContentMerge):
            merges.append(outcome)
        elif isinstance(outcome, Conflict):
            conflicts.append(outcome)
        else:
            decided[path] = outcome
    return MergePlan(ours, theirs, decided, tuple(merges), tuple(conflicts), later)


def finish_merge(
    plan: MergePlan,
    merged: Mapping[DocPath, Entry],
    *,
    ours_time_ns: int,
    theirs_time_ns: int,
    time_of: Callable[[Conflict], int] | None = None,
) -> MergeResult:
    """Return the changes that make either side the merged tree.

    Args:
        plan: what `plan_merge` decided.
        merged: of `plan.merges`, those whose contents merged; the others become conflicts.
        ours_time_ns: time of our commit, for the names of conflict copies.
        theirs_time_ns: time of theirs.
        time_of: time of the version that goes beside, where a side is many commits.
    """
    times_ns = {Side.OURS: ours_time_ns, Side.THEIRS: theirs_time_ns}
    results = dict(plan.decided)
    conflicts = list(plan.conflicts)
    for merge in plan.merges:
        if merge.path in merged:
            results[merge.path] = merged[merge.path]
        else:
            conflicts.append(
                _conflict(merge.path, merge.base, merge.ours, merge.theirs, plan.later)
            )
    for conflict in conflicts:
        results[conflict.path] = conflict.kept
    conflicts += _plan_clashes(plan, results)
    placed = []
    for conflict in conflicts:
        time_ns = times_ns[conflict.side] if time_of is None else time_of(conflict)
        placed.append(_place_copy(conflict, results, time_ns))
    return MergeResult(
        _changes_onto(plan, Side.OURS, results),
        _changes_onto(plan, Side.THEIRS, results),
        tuple(placed),
    )


def _decide(
    path: DocPath, base: Entry | None, ours: Entry | None, theirs: Entry | None, later: Side
) -> Entry | ContentMerge | Conflict | None:
    """Decide one path that both sides touched."""
    if _same(ours, theirs) or _same(theirs, base):
        return ours
    if _same(ours, base):
        return theirs
    if ours is None or theirs is None:
        edited = ours or theirs
        is_edit = base is None or edited is None or edited.oid != base.oid
        return edited if is_edit else None  # deleting against editing keeps the edit
    return _decide_edits(path, base, ours, theirs, later)


def _decide_edits(
    path: DocPath, base: Entry | None, ours: Entry, theirs: Entry, later: Side
) -> Entry | ContentMerge | Conflict:
    """Decide a path that both sides gave different documents."""
    if ours.mode not in _REGULAR or theirs.mode not in _REGULAR:
        return _conflict(path, base, ours, theirs, later)
    base_mode = base.mode if base is not None else None
    fallback = ours.mode if later is Side.OURS else theirs.mode
    mode = _merge_value(base_mode, ours.mode, theirs.mode, fallback)
    if ours.oid == theirs.oid:
        return Entry(mode, ours.oid, ours.size_bytes)
    if base is None or base.mode not in _REGULAR:
        return _conflict(path, base, ours, theirs, later)
    if theirs.oid == base.oid:
        return Entry(mode, ours.oid, ours.size_bytes)
    if ours.oid == base.oid:
        return Entry(mode, theirs.oid, theirs.size_bytes)
    return ContentMerge(path, base, ours, theirs, mode)


def _merge_value(base: int | None, ours: int, theirs: int, fallback: int) -> int:
    if theirs in (ours, base):
        return ours
    return theirs if ours == base else fallback


def _conflict(
    path: DocPath, base: Entry | None, ours: Entry, theirs: Entry, later: Side
) -> Conflict:
    if later is Side.OURS:
        return Conflict(path, kept=ours, beside=theirs, side=Side.THEIRS, base=base)
    return Conflict(path, kept=theirs, beside=ours, side=Side.OURS, base=base)


def _follow_renames(
    moved: Mapping[DocPath, Change], edited: Mapping[DocPath, Change]
) -> tuple[dict[DocPath, Change], dict[DocPath, Entry]]:
    """Let edits of one side follow the other's renames.

    A rename is a deletion and one new path with the deleted content. Returns the edits, each as if made at the new
    path, and what stood there before for both.
    """
    followed = dict(edited)
    bases: dict[DocPath, Entry] = {}
    targets: dict[ObjectId, list[DocPath]] = {}
    for path, change in moved.items():
        if change.before is None and change.after is not None:
            targets.setdefault(change.after.oid, []).append(path)
    for path, change in moved.items():
        edit = edited.get(path)
        if change.after is not None or change.before is None or edit is None or edit.after is None:
            continue
        found = targets.get(change.before.oid, [])
        if len(found) != 1 or found[0] in edited:
            continue
        followed[path] = Change(path, change.before, None)
        followed[found[0]] = Change(found[0], None, edit.after)
        bases[found[0]] = change.before
    return followed, bases


def _plan_clashes(plan: MergePlan, results: dict[DocPath, Entry | None]) -> list[Conflict]:
    """Return a conflict for every document whose name is a directory's by now."""
    directories: set[DocPath] = set()
    for path, entry in results.items():
        above, _ = split_path(path)
        while entry is not None and above and above not in directories:
            directories.add(above)
            above, _ = split_path(above)
    clashes = []
    for path in sorted(directories):
        entry = results.get(path)
        if entry is None:
            continue
        side = Side.OURS if _same(plan.state_of(Side.OURS, path), entry) else Side.THEIRS
        clashes.append(Conflict(path, kept=None, beside=entry, side=side))
        results[path] = None
    return clashes


def _place_copy(conflict: Conflict, results: dict[DocPath, Entry | None], time_ns: int) -> Conflict:
    """Put the losing version beside its name, in `results`."""
    for length in (_SHORT_ID, len(conflict.beside.oid)):
        copy_path = conflict_name(conflict.path, time_ns, conflict.beside.oid, id_length=length)
        if results.get(copy_path) in (None, conflict.beside):
            break
    results[copy_path] = conflict.beside
    return Conflict(
        conflict.path, conflict.kept, conflict.beside, conflict.side, copy_path, conflict.base
    )


def _changes_onto(
    plan: MergePlan, side: Side, results: Mapping[DocPath, Entry | None]
) -> tuple[Change, ...]:
    changes = []
    for path in sorted(results):
        before, after = plan.state_of(side, path), results[path]
        if not _same(before, after):
            changes.append(Change(path, before, after))
    return tuple(changes)


def _same(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.same_content(other)
