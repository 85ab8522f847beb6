"""Attributes as they are written down in git: one line of JSON for each name of a directory.

Used by `sync.attributes`, which writes, and `vfs.restore`, which reads. Pure. Lines, so that git stores only what
differs from the version before. Names and values may be any bytes: UTF-8 where they are, else surrogate escapes.

    {"version": 1}
    {"name": "", "mode": "40755", "uid": 0, "gid": 0, "mtime_ns": 1222222222222222222}
    {"name": "a", "mode": "104751", ..., "oid": "<blob>", "xattrs": {"user.note": "kept"}}

The nameless line is the root's; every other directory stands in its parent's. Hard links are written down once, for
the whole tree: a line for each file that has several names, with all of them.

Whoever reads takes nothing on trust: a line that makes no sense costs that line.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caiafs.core.errors import Corrupt
from caiafs.core.types import DocPath, ObjectId

VERSION = 1
_HEADER = b'{"version": %d}\n' % VERSION
_MODE_MAX = 0o177777
_ID_MAX = (1 << 32) - 2
_NLINK_MAX = (1 << 31) - 1
_TIME_MAX = (1 << 63) - 1
_XATTR_NAME_MAX = 255
_XATTR_VALUE_MAX = 64 * 1024
_NAME_MAX = 255
_OID_LENGTH = 40


@dataclass(frozen=True, slots=True)
class SavedEntry:
    """What git itself does not know of a name.

    Attributes:
        name: one component; empty for the root.
        mode: st_mode, kind included.
        oid: of a file or link, the blob that the times belong to.
        explicit: a directory that somebody made.
        keep: a directory that is there though git has nothing in it.
        nlink: of a directory, 2 and one for each directory in it; 0 where that is not known.
        xattrs: extended attributes by name.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    oid: ObjectId | None = None
    explicit: bool = False
    keep: bool = False
    nlink: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


def format_entries(entries: Iterable[SavedEntry]) -> bytes:
    """Return a directory's entries as they are written down, sorted by name."""
    ordered = sorted(entries, key=lambda entry: entry.name)
    return _HEADER + b"".join(map(_format_entry, ordered))


def parse_entries(data: bytes) -> tuple[dict[bytes, SavedEntry], int]:
    """Return entries by name, and how many lines make no sense.

    Raises:
        Corrupt: it is nothing that `format_entries` writes.
    """
    found: dict[bytes, SavedEntry] = {}
    bad = 0
    for line in _lines(data):
        try:
            entry = _parse_entry(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            bad += 1
            continue
        found.setdefault(entry.name, entry)
    return found, bad


def format_links(groups: Iterable[Sequence[DocPath]]) -> bytes:
    """Return groups of paths, each the names of one file, as they are written down."""
    ordered = sorted([_to_text(path) for path in sorted(group)] for group in groups)
    return _HEADER + b"".join(_dump({"paths": paths}) for paths in ordered)


def parse_links(data: bytes) -> tuple[list[list[DocPath]], int]:
    """Return groups of paths, and how many lines make no sense; raises as `parse_entries`."""
    groups: list[list[DocPath]] = []
    bad = 0
    for line in _lines(data):
        try:
            paths = [DocPath(_to_bytes(text)) for text in json.loads(line)["paths"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            bad += 1
            continue
        groups.append(paths)
    return groups, bad


def _lines(data: bytes) -> list[bytes]:
    header, _, rest = data.partition(b"\n")
    if header + b"\n" != _HEADER:
        raise Corrupt("saved attributes are in a form that this caiafs does not know")
    return [line for line in rest.split(b"\n") if line]


def _format_entry(entry: SavedEntry) -> bytes:
    shown: dict[str, Any] = {
        "name": _to_text(entry.name),
        "mode": f"{entry.mode:o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
    }
    if entry.atime_ns != entry.mtime_ns:
        shown["atime_ns"] = entry.atime_ns
    if entry.oid is not None:
        shown["oid"] = entry.oid
    for name in ("explicit", "keep"):
        if getattr(entry, name):
            shown[name] = True
    if entry.nlink:
        shown["nlink"] = entry.nlink
    if entry.xattrs:
        shown["xattrs"] = {_to_text(k): _to_text(entry.xattrs[k]) for k in sorted(entry.xattrs)}
    return _dump(shown)


def _parse_entry(shown: Any) -> SavedEntry:
    name = _to_bytes(shown["name"])
    if b"/" in name or b"\0" in name or name in {b".", b".."} or len(name) > _NAME_MAX:
        raise ValueError("no name")
    oid = shown.get("oid")
    if oid is not None and (len(oid) != _OID_LENGTH or not set(oid) <= set("0123456789abcdef")):
        raise ValueError("no object id")
    mtime_ns = _number(shown["mtime_ns"], -_TIME_MAX - 1, _TIME_MAX)
    xattrs = {_to_bytes(k): _to_bytes(v) for k, v in shown.get("xattrs", {}).items()}
    if any(not _is_xattr(key, value) for key, value in xattrs.items()):
        raise ValueError("no extended attribute")
    return SavedEntry(
        name=name,
        mode=_number(int(shown["mode"], 8), 0, _MODE_MAX),
        uid=_number(shown["uid"], 0, _ID_MAX),
        gid=_number(shown["gid"], 0, _ID_MAX),
        mtime_ns=mtime_ns,
        atime_ns=_number(shown.get("atime_ns", mtime_ns), -_TIME_MAX - 1, _TIME_MAX),
        oid=ObjectId(oid) if oid is not None else None,
        explicit=shown.get("explicit") is True,
        keep=shown.get("keep") is True,
        nlink=_number(shown.get("nlink", 0), 0, _NLINK_MAX),
        xattrs=xattrs,
    )


def _is_xattr(name: bytes, value: bytes) -> bool:
    return 0 < len(name) <= _XATTR_NAME_MAX and b"\0" not in name and len(value) <= _XATTR_VALUE_MAX


def _number(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError("no number of ours")
    return value


def _dump(shown: Mapping[str, Any]) -> bytes:
    return json.dumps(shown).encode("ascii") + b"\n"


def _to_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
