"""Commit messages: a subject that a careful person would write, a list of paths, trailers.

Used by publisher and follower. Pure. A path that is not printable ASCII shows with backslash escapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from caiafs.core.types import Change, DocPath, GitMode, ObjectId, display, split_path
from caiafs.store.trailers import Operation, to_ascii_line

_SUBJECT_MAX = 72
_BODY_PATHS = 50


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the trailers say besides the operation."""

    host: str
    user: str
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Renamed:
    old: DocPath
    new: DocPath


def compose(changes: Sequence[Change], operation: Operation, provenance: Provenance) -> str:
    """Return the whole message of a commit of ours, as git keeps it."""
    subject, body = describe(changes)
    trailers = [f"Caiafs-Operation: {operation}", f"Caiafs-Host: {to_ascii_line(provenance.host)}"]
    trailers.append(f"Caiafs-User: {to_ascii_line(provenance.user)}")
    if provenance.programs:
        programs = ", ".join(to_ascii_line(name) for name in provenance.programs[:8])
        trailers.append(f"Caiafs-Program: {programs}")
    return "\n\n".join(part for part in (subject, body, "\n".join(trailers)) if part) + "\n"


def describe(changes: Sequence[Change]) -> tuple[str, str]:
    """Return a subject and the body that lists the paths; "" for one path or none."""
    renamed, rest = _find_renames(changes)
    if not rest and renamed:
        subject = _renamed_subject(renamed)
    elif not renamed and len(rest) == 1:
        subject = f"{_verb(rest[0])} {_shown(rest[0].path, _SUBJECT_MAX - 8)}"
    else:
        subject = _mixed_subject(renamed, rest)
    lines = [f"R {_shown(pair.old)} -> {_shown(pair.new)}" for pair in renamed[:_BODY_PATHS]]
    lines += [
        f"{_letter(change)} {_shown(change.path)}" for change in rest[: _BODY_PATHS - len(lines)]
    ]
    total = len(renamed) + len(rest)
    if total > len(lines):
        lines.append(f"... and {total - len(lines)} more")
    return subject, "\n".join(lines) if total > 1 else ""


def _find_renames(changes: Sequence[Change]) -> tuple[list[_Renamed], list[Change]]:
    """Pair what vanished with what appeared with the same content; return pairs and the rest."""
    gone: dict[ObjectId, list[Change]] = {}
    for change in changes:
        if change.before is not None and change.after is None:
            gone.setdefault(change.before.oid, []).append(change)
    renamed: list[_Renamed] = []
    used: set[DocPath] = set()
    for change in changes:
        if change.before is None and change.after is not None and gone.get(change.after.oid):
            old = gone[change.after.oid].pop(0)
            renamed.append(_Renamed(old.path, change.path))
            used.update((old.path, change.path))
    return renamed, [change for change in changes if change.path not in used]


def _renamed_subject(renamed: Sequence[_Renamed]) -> str:
    if len(renamed) == 1:
        half = (_SUBJECT_MAX - 11) // 2
        return f"Rename {_shown(renamed[0].old, half)} to {_shown(renamed[0].new, half)}"
    old, new = _directory_rename(renamed)
    if old != new:
        half = (_SUBJECT_MAX - 11) // 2
        return f"Rename {_shown(old, half)} to {_shown(new, half)}"
    return f"Rename {len(renamed)} files{_inside([pair.new for pair in renamed])}"


def _directory_rename(renamed: Sequence[_Renamed]) -> tuple[DocPath, DocPath]:
    """Return the directory that all these renames moved, as it was and is; twice the same for none."""
    none = (DocPath(b""), DocPath(b""))
    first = renamed[0]
    old, new = first.old.split(b"/"), first.new.split(b"/")
    while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
        old.pop()
        new.pop()
    before, after = b"/".join(old), b"/".join(new)
    for pair in renamed:
        if not pair.old.startswith(before + b"/"):
            return none
        if pair.new != after + pair.old[len(before) :]:
            return none
    return DocPath(before), DocPath(after)


def _mixed_subject(renamed: Sequence[_Renamed], rest: Sequence[Change]) -> str:
    paths = [pair.new for pair in renamed] + [change.path for change in rest]
    verbs = {_verb(change) for change in rest} | ({"Rename"} if renamed else set())
    verb = verbs.pop() if len(verbs) == 1 else "Change"
    if len(paths) == 2 and not renamed:
        both = f"{verb} {_shown(paths[0])} and {_shown(paths[1])}"
        if len(both) <= _SUBJECT_MAX:
            return both
    if verb.startswith("Make"):
        verb = "Change modes of"
    return f"{verb} {len(paths)} files{_inside(paths)}"


def _inside(paths: Sequence[DocPath]) -> str:
    """Return " in DIRECTORY" for the directory that all `paths` share, "" for the root."""
    common = split_path(paths[0])[0]
    for path in paths:
        while common and not path.startswith(common + b"/"):
            common = split_path(common)[0]
    return f" in {_shown(common, _SUBJECT_MAX - 30)}" if common else ""


def _verb(change: Change) -> str:
    before, after = change.before, change.after
    if before is None:
        return "Add"
    if after is None:
        return "Remove"
    if before.oid == after.oid and after.mode == GitMode.EXECUTABLE:
        return "Make executable"
    if before.oid == after.oid and before.mode == GitMode.EXECUTABLE:
        return "Make not executable"
    return "Update"


def _letter(change: Change) -> str:
    if change.before is None:
        return "A"
    return "M" if change.after is not None else "D"


def _shown(path: bytes, limit: int = 500) -> str:
    """Return `path` in ASCII, its front cut off where it is longer than `limit`."""
    text = to_ascii_line(display(path))
    return text if len(text) <= limit else "..." + text[3 - limit :]
