"""Ids of documents as they are written down in git, beside the attributes: lines of JSON, in one part or in many.

Used by `sync.attributes`, which writes, and `sync.document_history`, which reads. Pure. Parts, by the path's own id, so
that one more document rewrites one of them; the part without a number says of which commit all of it is.

    {"version": 1, "commit": "<oid>"}
    {"path": "a/b", "id": "0123456789abcdef"}
    {"spent": "0123456789abcdef"}

Whoever reads takes nothing on trust: a line that makes no sense is left out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from caiafs.core.document_ids import DOCUMENT_ID, first_id
from caiafs.core.types import DocPath, ObjectId

VERSION = 1
_FEW = 512
_OID_LENGTH = 40


@dataclass(frozen=True, slots=True)
class SavedDocuments:
    """Ids by path, ids that were used before, and the commit of the branch that they are of."""

    ids: Sequence[tuple[bytes, str]]
    spent: Sequence[str]
    commit: ObjectId


def format_documents(
    ids: Sequence[tuple[bytes, str]], spent: Sequence[str], commit: ObjectId
) -> dict[bytes, bytes]:
    """Return the blobs that hold these, by what follows the common name: nothing, or a number."""
    head = json.dumps({"version": VERSION, "commit": commit}) + "\n"
    parts: dict[bytes, list[str]] = {b"": [head]}
    many = len(ids) + len(spent) > _FEW
    for path, oid in ids:
        line = json.dumps({"path": path.decode("utf-8", "surrogateescape"), "id": oid})
        part = b"." + first_id(DocPath(path))[:2].encode() if many else b".00"
        parts.setdefault(part, []).append(line + "\n")
    for oid in spent:
        part = b"." + oid[:2].encode() if many else b".00"
        parts.setdefault(part, []).append(json.dumps({"spent": oid}) + "\n")
    return {name: "".join(lines).encode("ascii") for name, lines in parts.items()}


def parse_documents(blobs: Mapping[bytes, bytes]) -> SavedDocuments | None:
    """Return what `format_documents` was given, None where that is not it."""
    head = _lines([blobs.get(b"", b"")])
    if not head or head[0].get("version") != VERSION:
        return None
    commit = head[0].get("commit")
    if not isinstance(commit, str) or len(commit) != _OID_LENGTH or not _is_hex(commit):
        return None
    ids: list[tuple[bytes, str]] = []
    spent: list[str] = []
    for line in _lines(content for name, content in blobs.items() if name):
        path, oid, used = line.get("path"), line.get("id"), line.get("spent")
        if isinstance(path, str) and isinstance(oid, str) and DOCUMENT_ID.fullmatch(oid):
            ids.append((path.encode("utf-8", "surrogateescape"), oid))
        elif isinstance(used, str) and DOCUMENT_ID.fullmatch(used):
            spent.append(used)
    return SavedDocuments(ids, spent, ObjectId(commit))


def _lines(contents: Iterable[bytes]) -> list[dict[str, object]]:
    found = []
    for content in contents:
        for line in content.split(b"\n"):
            try:
                value = json.loads(line) if line else None
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                found.append(value)
    return found


def _is_hex(text: str) -> bool:
    return set(text) <= set("0123456789abcdef")
