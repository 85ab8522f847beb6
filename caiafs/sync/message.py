"""Commit messages: a subject that a careful person would write, a list of paths, trailers.

Used by publisher and follower. Pure. Names stand as they are; what cannot be seen shows with backslash escapes. Trailers
are printable ASCII.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from caiafs.core.types import Change, DocPath, GitMode, ObjectId, split_path
from caiafs.store.trailers import Operation, to_ascii_line
from caiafs.sync.words import (
    NOTHING_SAID,
    TEXT_MAX,
    Remark,
    Said,
    paragraphs,
    shown,
    source_trailers,
    width,
)

_SUBJECT_MAX = 72
_BODY_PATHS = 50
_BODY_WIDTH = 200
_NAMED_MAX = 3
_PROGRAMS_MAX = 8


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the trailers say besides the operation.

    Attributes:
        users: login names of all who saved, the author first.
    """

    host: str
    users: tuple[str, ...]
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notes:
    """What a part of the program adds to a message.

    Attributes:
        subject: instead of the one that follows from the changes; "" for none.
        trailers: whole lines.
    """

    subject: str = ""
    trailers: tuple[str, ...] = ()


NO_NOTES = Notes()


class Directories(Protocol):
    """Which directories have documents, before the commit and after it."""

    def had(self, directory: DocPath) -> bool:
        """Whether there was a document below."""
        ...

    def has(self, directory: DocPath) -> bool:
        """Whether there is one now."""
        ...


class _NotAsked:
    """Stands for directories of which nothing is known: they were there and still are."""

    def had(self, _directory: DocPath) -> bool:
        return True

    def has(self, _directory: DocPath) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Renamed:
    old: DocPath
    new: DocPath


def compose(
    changes: Sequence[Change],
    operation: Operation,
    provenance: Provenance,
    notes: Notes = NO_NOTES,
    *,
    said: Said = NOTHING_SAID,
    directories: Directories | None = None,
) -> str:
    """Return the whole message of a commit of ours, as git keeps it; the trailers of `notes` come last."""
    renamed, rest = _find_renames(changes)
    documents = [pair.new for pair in renamed] + [change.path for change in rest]
    subject, listed = describe(changes, directories)
    text, remarks = _spoken(said, documents)
    lines = [
        f"Caiafs-Operation: {operation}",
        f"Caiafs-Host: {to_ascii_line(provenance.host)}",
        f"Caiafs-User: {_list_trailer(provenance.users)}",
    ]
    if provenance.programs:
        lines.append(f"Caiafs-Program: {_list_trailer(provenance.programs)}")
    lines += source_trailers(said.remarks, len(documents))
    lines += notes.trailers
    parts = (text or notes.subject or subject, *remarks, listed, "\n".join(lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def _list_trailer(words: Sequence[str]) -> str:
    listed = ", ".join(to_ascii_line(word) for word in words[:_PROGRAMS_MAX])
    return listed if len(words) <= _PROGRAMS_MAX else f"{listed}, ..."


def _spoken(said: Said, documents: Sequence[DocPath]) -> tuple[str, list[str]]:
    """Return what stands for the subject, "" for nothing, and paragraphs on single documents."""
    text = paragraphs(said.message)
    remarks = [remark for remark in said.remarks if remark.message.strip()]
    messages = {remark.message for remark in remarks}
    if not text and len(messages) == 1:
        spoken_of = {remark.path for remark in remarks}
        if len(documents) == 1 or spoken_of.issuperset(documents):
            return paragraphs(messages.pop()), []
    found: list[str] = []
    room = TEXT_MAX - len(to_ascii_line(text))
    for remark in remarks:
        line = _remark(remark)
        room -= len(to_ascii_line(line))
        if room < 0:
            found.append(f"... and {len(remarks) - len(found)} more remarks")
            break
        found.append(line)
    return text, found


def _remark(remark: Remark) -> str:
    return f"{shown(remark.path, _SUBJECT_MAX)}: {paragraphs(remark.message)}"


def describe(changes: Sequence[Change], directories: Directories | None = None) -> tuple[str, str]:
    """Return a subject and the body that lists the paths; "" for one path or none."""
    renamed, rest = _find_renames(changes)
    subject = _subject(renamed, rest, directories or _NotAsked())
    lines = [f"R {_listed(pair.old)} -> {_listed(pair.new)}" for pair in renamed[:_BODY_PATHS]]
    lines += [
        f"{_letter(change)} {_listed(change.path)}" for change in rest[: _BODY_PATHS - len(lines)]
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


# --- subjects


def _subject(renamed: Sequence[_Renamed], rest: Sequence[Change], directories: Directories) -> str:
    if renamed and not rest:
        return _renamed_subject(renamed)
    if not renamed and len(rest) == 1:
        return _sentence(rest[0], _SUBJECT_MAX)
    named = _naming_each(renamed, rest)
    if not named and not renamed:
        named = _whole_directory(rest, directories)
    return named or _counting(renamed, rest)


def _sentence(change: Change, limit: int) -> str:
    """Return what happened to one document."""
    verb, ending = _verb(change), _ending(change)
    room = limit - len(verb) - len(ending) - 1
    return f"{verb} {shown(change.path, room)}{ending}"


def _naming_each(renamed: Sequence[_Renamed], changes: Sequence[Change]) -> str:
    """Return a subject that names two or three documents, "" where they do not fit."""
    if len(renamed) + len(changes) > _NAMED_MAX:
        return ""
    if not renamed and len({(_verb(change), _ending(change)) for change in changes}) == 1:
        names = [shown(change.path, _SUBJECT_MAX) for change in changes]
        text = f"{_verb(changes[0])} {_enumerated(names)}{_ending(changes[0])}"
    else:
        sentences = [_rename(pair.old, pair.new) for pair in renamed]
        sentences += [_sentence(change, 2 * _SUBJECT_MAX) for change in changes]
        text = _enumerated([sentences[0], *(s[0].lower() + s[1:] for s in sentences[1:])])
    return text if width(text) <= _SUBJECT_MAX else ""


def _whole_directory(changes: Sequence[Change], directories: Directories) -> str:
    """Return a subject for a directory that came or went as a whole, "" for anything else."""
    verbs = {_verb(change) for change in changes}
    if len(verbs) != 1 or not verbs & {"Add", "Remove"}:
        return ""
    verb = verbs.pop()
    stays = directories.had if verb == "Add" else directories.has
    directory = _common_directory([change.path for change in changes])
    if not directory or stays(directory):
        return ""
    counted = f" ({len(changes)} files)"
    return f"{verb} {shown(directory, _SUBJECT_MAX - len(verb) - len(counted) - 1)}{counted}"


def _renamed_subject(renamed: Sequence[_Renamed]) -> str:
    if len(renamed) == 1:
        return _rename(renamed[0].old, renamed[0].new)
    old, new = _directory_rename(renamed)
    if old != new:
        return _rename(old, new)
    targets = {split_path(pair.new)[0] for pair in renamed}
    kept = all(split_path(pair.old)[1] == split_path(pair.new)[1] for pair in renamed)
    if kept and len(targets) == 1:
        return _into(f"Move {len(renamed)} files to ", targets.pop() or DocPath(b"the root"))
    return f"Rename {len(renamed)} files{_inside([pair.new for pair in renamed])}"


def _rename(old: DocPath, new: DocPath) -> str:
    """Return what a rename did: another name in its directory, another directory, or both."""
    (old_directory, old_name), (new_directory, new_name) = split_path(old), split_path(new)
    if old_directory == new_directory:
        verb, target = "Rename", DocPath(new_name)
    elif old_name == new_name:
        verb, target = "Move", new_directory or DocPath(b"the root")
    else:
        verb, target = "Rename", new
    text = f"{verb} {shown(old, 500)} to {shown(target, 500)}"
    if width(text) <= _SUBJECT_MAX:
        return text
    half = (_SUBJECT_MAX - len(verb) - 5) // 2
    return f"{verb} {shown(old, half)} to {shown(target, half)}"


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


def _counting(renamed: Sequence[_Renamed], rest: Sequence[Change]) -> str:
    """Return a subject that counts what happened, kind by kind."""
    paths = [pair.new for pair in renamed] + [change.path for change in rest]
    kinds = Counter("rename" for _ in renamed)
    kinds.update(_verb(change).lower() for change in rest)
    if set(kinds) == {"make"}:
        return f"Change the modes of {len(paths)} files{_inside(paths)}"
    kinds["update"] += kinds.pop("make", 0)
    order = ("add", "rename", "update", "remove")
    counts = [f"{verb} {kinds[verb]}" for verb in order if kinds[verb]]
    text = _enumerated(counts)
    noun = "file" if counts[-1].endswith(" 1") else "files"
    return _into(f"{text[0].upper()}{text[1:]} {noun}", _common_directory(paths), " in ")


def _enumerated(items: Sequence[str]) -> str:
    if len(items) == 1:
        return items[0]
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _inside(paths: Sequence[DocPath]) -> str:
    """Return " in DIRECTORY" for the directory that all `paths` share, "" for the root."""
    common = _common_directory(paths)
    return f" in {shown(common, _SUBJECT_MAX - 40)}" if common else ""


def _into(text: str, directory: DocPath, joint: str = "") -> str:
    """Return `text` with a directory behind it, as far as there is room."""
    if not directory:
        return text
    return text + joint + shown(directory, max(_SUBJECT_MAX - len(text) - len(joint), 12))


def _common_directory(paths: Sequence[DocPath]) -> DocPath:
    """Return the directory that all `paths` share, the root where there is no other."""
    common = split_path(paths[0])[0]
    for path in paths:
        while common and not path.startswith(common + b"/"):
            common = split_path(common)[0]
    return common


def _verb(change: Change) -> str:
    before, after = change.before, change.after
    if before is None:
        return "Add"
    if after is None:
        return "Remove"
    return "Make" if _ending(change) else "Update"


def _ending(change: Change) -> str:
    """Return what a document was made, "" where it was not its mode that changed."""
    before, after = change.before, change.after
    if before is None or after is None or before.mode == after.mode:
        return ""
    if after.mode == GitMode.SYMLINK:
        return " a symbolic link"
    if before.oid != after.oid or before.mode == GitMode.SYMLINK:
        return ""
    return " executable" if after.mode == GitMode.EXECUTABLE else " not executable"


def _letter(change: Change) -> str:
    if change.before is None:
        return "A"
    return "M" if change.after is not None else "D"


def shown_path(path: bytes) -> str:
    """Return `path` as it stands in a subject beside other words."""
    return shown(path, _SUBJECT_MAX // 2)


def _listed(path: bytes) -> str:
    """Return `path` for the body, short enough for a store that takes ASCII only."""
    text = shown(path, _BODY_WIDTH)
    return text if len(to_ascii_line(text)) <= 2 * _BODY_WIDTH else shown(path, _BODY_WIDTH // 5)
