"""The JSON that a govc server answers with, as dataclasses.

Pure. Whatever a hostile server sends ends here: a wrong type, a wrong path or an absurd number raises `AnswerError`, and no dict gets past
this module. Callers turn `AnswerError` into Corrupt with the document's name.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from caiafs.backends.base import Revision

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_COMMIT_ID = re.compile(r"[0-9A-Za-z_.:-]{1,128}")
_SIZE_MAX = 1 << 62


class AnswerError(ValueError):
    """An answer that makes no sense; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class File:
    """One file as the server holds it: content decoded from the wire.

    Attributes:
        name: as on the server (see `paths`).
        content: bytes, still as `codec` wrote them.
        mode: git mode, 0 where the server does not say (v1, v2).
        kind: the contract's `kind`, "" elsewhere.
    """

    name: str
    content: bytes = field(repr=False)
    mode: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing; `oid` and `mode` only where the server says them (contract)."""

    name: str
    size_bytes: int
    oid: str = ""
    mode: int = 0
    kind: str = ""


def parse_file(payload: object, name: str) -> File:
    """Return the answer to a read of `name`.

    Raises:
        AnswerError: another file, a size that does not fit, or no file at all.
    """
    fields = _mapping(payload)
    if _text(fields, "path") != name:
        raise AnswerError("the answer is about another path")
    content = decode_wire(_text(fields, "content"), _text(fields, "encoding", "utf-8"))
    size = fields.get("size")
    if size is not None and size != len(content):
        raise AnswerError("the content does not have the size that the answer states")
    return File(name, content, parse_mode(fields.get("mode")), _text(fields, "kind", ""))


def decode_wire(content: str, encoding: str) -> bytes:
    """Return the bytes of a content as it travels.

    Raises:
        AnswerError: an unknown encoding, or text that is not of it.
    """
    if encoding == "base64":
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise AnswerError("the content is not base64") from None
    if encoding != "utf-8":
        raise AnswerError("the content is in an encoding that is not known here")
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise AnswerError("the content has characters that UTF-8 cannot hold") from None


def parse_mode(value: object) -> int:
    """Return a mode written in octal digits, 0 where there is none."""
    if value is None or value == "":
        return 0
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{6}", value):
        raise AnswerError("the mode is not six octal digits")
    return int(value, 8)


def is_of_add(payload: object, name: str) -> bool:
    """Whether this may be the answer to staging `name`; one that says nothing may be."""
    if not isinstance(payload, dict) or not payload:
        return True
    words = payload.get("message", name)
    return "status" in payload and (not isinstance(words, str) or name in words)


def parse_listing(payload: object, key: str) -> tuple[Listed, ...]:
    """Return the files of a listing, without its directories; `key` is where they are.

    One line that makes no sense costs what it says, not the listing: its name alone is kept.
    """
    return tuple(
        _parse_listed(item)
        for item in _sequence(payload, key)
        if _text(_mapping(item), "type", "file") not in {"tree", "dir", "directory"}
    )


def _parse_listed(item: object) -> Listed:
    fields = _mapping(item)
    name = _text(fields, "path")
    size = fields.get("size", -1)
    try:
        mode, oid, kind = (
            parse_mode(fields.get("mode")),
            _text(fields, "hash", ""),
            _text(fields, "kind", ""),
        )
    except AnswerError:
        return Listed(name, -1)
    if type(size) is not int or not -1 <= size <= _SIZE_MAX:
        return Listed(name, -1)
    return Listed(name, size, oid, mode, kind)


def parse_log(payload: object) -> tuple[Revision, ...]:
    """Return the commits of a log, as the server orders them."""
    return tuple(parse_revision(item) for item in _sequence(payload, "commits"))


def parse_revision(payload: object) -> Revision:
    """Return one commit; the message as it is on the server."""
    fields = _mapping(payload)
    parent = _text(fields, "parent", "")
    return Revision(
        id=parse_commit_id(fields),
        message=_to_unicode(_text(fields, "message", "")),
        author_name=_to_unicode(_text(fields, "author", "")),
        author_email=_to_unicode(_text(fields, "email", "")),
        time_ns=_parse_time_ns(_text(fields, "timestamp", "")),
        parent=parent or None,
    )


def parse_commit_id(payload: object) -> str:
    """Return the id of a commit, checked to be fit for a URL."""
    text = _text(_mapping(payload), "hash")
    if not _COMMIT_ID.fullmatch(text):
        raise AnswerError("a commit id is not one")
    return text


def parse_diff(payload: object) -> tuple[str, ...]:
    """Return the names that a diff touches."""
    return tuple(_text(_mapping(item), "path") for item in _sequence(payload, "files"))


def parse_status(payload: object) -> tuple[str, str]:
    """Return the state of a health answer and the names of the checks that fail."""
    fields = _mapping(payload)
    checks = fields.get("checks")
    failing: list[str] = []
    if isinstance(checks, dict):
        for name, check in checks.items():
            if isinstance(check, dict) and check.get("status") not in {"healthy", None}:
                failing.append(str(name)[:60])
    return _text(fields, "status", "unknown")[:60], ", ".join(failing[:10])


def parse_max_size(payload: object) -> int | None:
    """Return the request limit that a 413 names, None where it names none."""
    details = payload.get("details") if isinstance(payload, dict) else None
    size = details.get("max_size") if isinstance(details, dict) else None
    return size if type(size) is int and size > 0 else None


def parse_refused_path(payload: object) -> str | None:
    """Return the file that a DOCUMENT_REFUSED names (contract)."""
    details = payload.get("details") if isinstance(payload, dict) else None
    path = details.get("path") if isinstance(details, dict) else None
    return path if isinstance(path, str) else None


def parse_error(payload: object) -> str:
    """Return the server's words, "" where there are none."""
    words = payload.get("error") if isinstance(payload, dict) else None
    return words if isinstance(words, str) else ""


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise AnswerError("an object was expected")
    return value


def _sequence(payload: object, key: str) -> list[object]:
    """Return the list `key`; null is an empty one (Go), no such key an answer to something else."""
    fields = _mapping(payload)
    if key not in fields:
        raise AnswerError(f"there is no '{key}'")
    items = fields[key]
    if items is None:
        return []
    if not isinstance(items, list):
        raise AnswerError(f"'{key}' is not a list")
    return items


def _text(fields: dict[str, object], key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise AnswerError(f"'{key}' is not text")
    return value


def _to_unicode(text: str) -> str:
    """Return `text` without the halves of characters that JSON can write and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _parse_time_ns(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        return 0
    try:
        moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
        seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0
    # v2 answers the year 1 where it could not read its own author line.
    return max(seconds, 0) * 10**9 + int((match[2] or "0").ljust(9, "0"))
