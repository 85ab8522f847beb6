"""What a commit says of conflicts: those that it found, in trailers, and those that it ends, in its subject too.

Used by publisher, pushes and foreign. Pure but for a look at the trees. A conflict ends when its copy is gone and the
document is still there; whether a program did that or a person by hand, the commit says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from caiafs.core.conflicts import parse_copy_name
from caiafs.core.types import Change, DocPath, ObjectId, join_path, split_path
from caiafs.store.trailers import NamedConflict, conflict_trailers, named_conflicts
from caiafs.sync.merge import Conflict
from caiafs.sync.message import Notes, describe
from caiafs.sync.replay import Replay
from caiafs.sync.view import TreeReader, TreeView
from caiafs.sync.words import shown

_RESOLVED_MAX = 100
_PATH_COLUMNS = 40
_HOW = {
    "ours": "keep what has the name",
    "theirs": "take the other version",
    "other": "with a new version",
}


@dataclass(frozen=True, slots=True)
class Resolution:
    """A conflict that a commit ends: the document, and which version it has now: ours, theirs or other."""

    path: DocPath
    version: str


def notes_of(plan: Replay, reader: TreeReader, tree: ObjectId) -> Notes:
    """Return what the commit of a group on `tree` says of conflicts."""
    resolved = find_resolutions(plan.changes, TreeView(reader, tree))
    trailers = conflict_trailers(plan.conflicts)
    trailers += [
        f"Caiafs-Resolved: {item.version} {quote_from_bytes(item.path, '/')}"
        for item in resolved[:_RESOLVED_MAX]
    ]
    subject = _finding_subject(plan)
    if len(resolved) == 1 and len(plan.changes) <= 2:
        item = resolved[0]
        others = {change.path for change in plan.changes if change.after is not None} - {item.path}
        if not others:
            subject = f"Resolve {shown(item.path, _PATH_COLUMNS)}: {_HOW[item.version]}"
    return Notes(subject, tuple(trailers))


def _finding_subject(plan: Replay) -> str:
    """Return what a commit says that keeps others' versions beside what it saves; "" for one that finds no conflict."""
    copies = {conflict.copy for conflict in plan.conflicts}
    saved = [change for change in plan.changes if change.path not in copies]
    if not copies or not saved:
        return ""
    counted = "a conflict copy" if len(copies) == 1 else f"{len(copies)} conflict copies"
    return f"{describe(saved)[0]}, keep {counted}"


def find_resolutions(changes: Sequence[Change], before: TreeView) -> list[Resolution]:
    """Return the conflicts that `changes` of the tree `before` end; a copy that moved elsewhere ends none."""
    after = {change.path: change for change in changes}
    arrived = {c.after.oid: c.path for c in changes if c.before is None and c.after is not None}
    found = []
    for change in changes:
        parent, name = split_path(change.path)
        copy = parse_copy_name(name)
        if copy is None or change.before is None or change.after is not None:
            continue
        path = join_path(parent, copy.document)
        own = after.get(path)
        entry = own.after if own is not None else before.get(path)
        is_there = entry is not None or (own is None and before.has_below(path))
        if not is_there or arrived.get(change.before.oid, path) != path:
            continue
        version = "ours" if own is None else "other"
        if own is not None and entry is not None and entry.oid == change.before.oid:
            version = "theirs"
        found.append(Resolution(path, version))
    return found


def to_named(conflicts: Iterable[Conflict]) -> list[NamedConflict]:
    """Return what a merge found as trailers have it."""
    return [
        NamedConflict(
            conflict.path,
            conflict.copy_path,
            conflict.base.oid if conflict.base is not None else None,
            conflict.kept.oid if conflict.kept is not None else None,
            conflict.beside.oid,
        )
        for conflict in conflicts
    ]


def trailers_of(conflicts: Iterable[Conflict], messages: Iterable[str] = ()) -> list[str]:
    """Return trailers for what a merge found and for what the commits that it brings here name."""
    named = to_named(conflicts)
    for message in messages:
        named += named_conflicts(message)
    return conflict_trailers(dict.fromkeys(named))
