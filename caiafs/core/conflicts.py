"""How a conflict copy is called, and which document a copy belongs to.

A copy beside a document is the record of a conflict: NAME.conflict-TIME-ID.EXT, with the time (UTC) and the blob id
of the version that it holds, so that all mounts write the same name. Used by merges, which name copies, and by the
mount, which finds them. Pure.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from caiafs.core.types import DocPath, ObjectId, join_path, split_path

MARK = b".conflict-"
"""In every name of a copy; what the state DB's index looks for."""

RESERVED = b".caiafs-resolve-"
"""Begins the names of files that `caiafs resolve --file` puts beside a document; they are never published."""

_NAME_MAX_BYTES = 255
_EXTENSION_MAX_BYTES = 20
_SHORT_ID = 8
_NS = 1_000_000_000
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_LONGEST_CHARACTER = 4
_COPY = re.compile(
    rb"(?P<stem>.+)\.conflict-(?P<time>\d{8}T\d{6}Z)-(?P<id>[0-9a-f]{40}|[0-9a-f]{8})(?P<ext>\.[^.]{1,20})?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class CopyName:
    """What the name of a conflict copy says.

    Attributes:
        document: name of the document; the beginning of it where `is_cut`.
        extension: of both, with its dot; b"" for none.
        time_ns: when the version was committed, in whole seconds.
        blob: how the version's blob id begins: 8 digits, or all 40.
        is_cut: the document's name may be longer: the copy's would not have fit.
    """

    document: bytes
    extension: bytes
    time_ns: int
    blob: str
    is_cut: bool


def conflict_name(
    path: DocPath, time_ns: int, oid: ObjectId, *, id_length: int = _SHORT_ID
) -> DocPath:
    """Return where the losing version of `path` goes: NAME.conflict-<UTC time>Z-<short blob id>.EXT.

    The name keeps to 255 bytes: its stem is cut, not inside a UTF-8 character where it is UTF-8.
    """
    parent, name = split_path(path)
    stem, dot, extension = name.rpartition(b".")
    if not stem or not extension or len(extension) > _EXTENSION_MAX_BYTES:
        stem, dot, extension = name, b"", b""
    when = datetime.fromtimestamp(time_ns // _NS, UTC).strftime(_TIME_FORMAT)
    mark = MARK + f"{when}-{oid[:id_length]}".encode("ascii")
    room = _NAME_MAX_BYTES - len(mark) - len(dot) - len(extension)
    return join_path(parent, _cut(stem, room) + mark + dot + extension)


def parse_copy_name(name: bytes) -> CopyName | None:
    """Return what `name` says if it is a conflict copy's, else None."""
    found = _COPY.fullmatch(name)
    if found is None:
        return None
    try:
        when = datetime.strptime(found["time"].decode("ascii"), _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    extension = found["ext"] or b""
    return CopyName(
        document=found["stem"] + extension,
        extension=extension,
        time_ns=int(when.timestamp()) * _NS,
        blob=found["id"].decode("ascii"),
        is_cut=len(name) > _NAME_MAX_BYTES - _LONGEST_CHARACTER,
    )


def find_document(name: bytes, copy: CopyName, beside: Iterable[bytes]) -> bytes | None:
    """Return which of the names `beside` the copy `name` belongs to, None where it is gone.

    Of several that a cut name may stand for, the first in order is meant.
    """
    names = set(beside)
    if copy.document in names:
        return copy.document
    if not copy.is_cut:
        return None
    stem = copy.document.removesuffix(copy.extension)
    for other in sorted(names):
        if other.startswith(stem) and other.endswith(copy.extension) and other != name:
            named = conflict_name(DocPath(other), copy.time_ns, ObjectId(copy.blob), id_length=40)
            if named == name:
                return other
    return None


def _cut(stem: bytes, room: int) -> bytes:
    if len(stem) <= room:
        return stem
    cut = stem[:room]
    try:
        stem.decode("utf-8")
    except UnicodeDecodeError:
        return cut
    return cut.decode("utf-8", "ignore").encode("utf-8")
