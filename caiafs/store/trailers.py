"""Trailers of commit messages: what one mount tells the others, and itself after a crash.

Used by `sync` and by the hybrid store. Pure. Everything is printable ASCII, because govc v2 refuses more.

    Caiafs-Operation: <writer id>-<first seq>-<last seq>   what is settled, once a ref reaches the commit
    Caiafs-Host, Caiafs-User, Caiafs-Program               who and with what
    Caiafs-Change: <old blob|-> <new blob|-> <path>        for other mounts; only in what goes to govc
    Caiafs-Changes: <n> more                               where the list would have been too long
    Caiafs-Document, Caiafs-Moved                          ids of documents; see sync.document_trailers
    Caiafs-Conflict: <base|-> <kept|-> <blob> <path> <copy>  a copy that a merge made; blobs of all three versions

Paths are percent-encoded here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from caiafs.core.types import Change, DocPath, ObjectId

MAX_MESSAGE_BYTES = 90_000
"""Below govc's 100,000, with room for what a catch-up adds."""

_OPERATION = re.compile(r"^Caiafs-Operation: ([0-9a-f]{8})-(\d+)-(\d+)$", re.MULTILINE)
_WRITER = re.compile(r"^Caiafs-Operation: ([0-9a-f]{8})-\S+$", re.MULTILINE)
_TRAILERS = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9-]*: .*(?:\n|$))+")
_CHANGE = re.compile(
    r"^Caiafs-Change: (-|[0-9a-f]{40}) (-|[0-9a-f]{40}) (\S+)$",
    re.MULTILINE,
)
_CONFLICT = re.compile(
    r"^Caiafs-Conflict: (-|[0-9a-f]{40}) (-|[0-9a-f]{40}) ([0-9a-f]{40}) (\S+) (\S+)$",
    re.MULTILINE,
)
_CONFLICT_BYTES_MAX = 8_000
_MORE = re.compile(r"^Caiafs-Changes: \d+ more$", re.MULTILINE)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Operation:
    """The ops of one writer that a commit settles."""

    writer_id: str
    first_seq: int
    last_seq: int

    def __str__(self) -> str:
        return f"{self.writer_id}-{self.first_seq}-{self.last_seq}"


@dataclass(frozen=True, slots=True)
class NamedChange:
    """A `Caiafs-Change` trailer."""

    path: DocPath
    before: ObjectId | None
    after: ObjectId | None


@dataclass(frozen=True, slots=True)
class NamedConflict:
    """A `Caiafs-Conflict` trailer.

    Attributes:
        path: the document.
        copy: path of the copy with the version that lost the name.
        base: what both versions started from, None where there was nothing.
        kept: the version that has the name, None where a directory has it.
        beside: the version in the copy.
    """

    path: DocPath
    copy: DocPath
    base: ObjectId | None
    kept: ObjectId | None
    beside: ObjectId


def with_named_changes(message: str, changes: Iterable[Change], more: Iterable[str] = ()) -> str:
    """Return `message` with the trailers that tell other mounts what changed, for govc; `more` are added before them.

    Bounded: where not all fit, a last trailer says how many are missing.
    """
    text = to_ascii_text(message).rstrip("\n")
    said = set(text.split("\n"))
    lines = [line for line in more if line not in said]
    room = MAX_MESSAGE_BYTES - len(text) - sum(len(line) + 1 for line in lines)
    left = 0
    for change in changes:
        before = change.before.oid if change.before else "-"
        after = change.after.oid if change.after else "-"
        line = f"Caiafs-Change: {before} {after} {quote_from_bytes(change.path, '/')}"
        room -= len(line) + 1
        if room < 0:
            left += 1
        else:
            lines.append(line)
    if left:
        lines.append(f"Caiafs-Changes: {left} more")
    # Trailers are one paragraph: a message that ends in one goes on, any other gets a blank line.
    joint = "\n" if _WRITER.search(text.rpartition("\n\n")[2]) else "\n\n"
    return text + joint + "\n".join(lines) + "\n" if lines else text + "\n"


def operation_of(message: str) -> Operation | None:
    """Return the operation that a message names, None for a commit that no mount made."""
    found = list(_OPERATION.finditer(message))
    return Operation(found[-1][1], int(found[-1][2]), int(found[-1][3])) if found else None


def named_changes(message: str) -> tuple[NamedChange, ...] | None:
    """Return what a message says has changed; None where it does not say, or not everything."""
    if _MORE.search(message):
        return None
    found = tuple(
        NamedChange(
            DocPath(unquote_to_bytes(path)),
            ObjectId(before) if before != "-" else None,
            ObjectId(after) if after != "-" else None,
        )
        for before, after, path in _CHANGE.findall(message)
    )
    return found or None


def conflict_trailers(conflicts: Iterable[NamedConflict]) -> list[str]:
    """Return a trailer for each conflict; bounded, for one that is left out lacks its base only."""
    lines: list[str] = []
    room = _CONFLICT_BYTES_MAX
    for conflict in conflicts:
        blobs = f"{conflict.base or '-'} {conflict.kept or '-'} {conflict.beside}"
        paths = f"{quote_from_bytes(conflict.path, '/')} {quote_from_bytes(conflict.copy, '/')}"
        line = f"Caiafs-Conflict: {blobs} {paths}"
        room -= len(line) + 1
        if room >= 0:
            lines.append(line)
    return lines


def named_conflicts(message: str) -> list[NamedConflict]:
    """Return the conflicts that a message names."""
    return [
        NamedConflict(
            DocPath(unquote_to_bytes(path)),
            DocPath(unquote_to_bytes(copy)),
            ObjectId(base) if base != "-" else None,
            ObjectId(kept) if kept != "-" else None,
            ObjectId(beside),
        )
        for base, kept, beside, path, copy in _CONFLICT.findall(message)
    ]


def writer_of(message: str) -> str | None:
    """Return the writer whose mount made a commit, be it a group or a catch-up; None for others' commits."""
    found = _WRITER.findall(message)
    return found[-1] if found else None


def with_operation(message: str, operation_id: str) -> str:
    """Return `message` with the trailer of `operation_id`, as a paragraph of its own or in the last one."""
    if f"\nCaiafs-Operation: {operation_id}\n" in f"\n{message}\n":
        return message
    text = message.rstrip("\n")
    joint = "\n" if _TRAILERS.fullmatch(text.rpartition("\n\n")[2]) and "\n\n" in text else "\n\n"
    return f"{text}{joint}Caiafs-Operation: {operation_id}\n"


def to_ascii_line(text: str) -> str:
    """Return `text` in printable ASCII on one line, the rest as escapes."""
    return _UNPRINTABLE.sub(_escape, text)


def to_ascii_text(text: str) -> str:
    """Return `text` in printable ASCII, line ends and tabs kept."""
    return re.sub(r"[^\x20-\x7e\n\t]", _escape, text.replace("\r\n", "\n"))


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "backslashreplace").decode("ascii", "backslashreplace")
