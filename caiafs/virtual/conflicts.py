"""`.caia/conflicts`: a directory for each open conflict, with the versions as files, and a list of all.

    conflicts.json                     the open conflicts, as a program reads them
    conflicts/<name>.<8 digits>/       one of them; the name of the document as far as it prints
        base                           what both versions started from, where that is known
        ours                           what has the name now; not where a directory has it
        theirs                         what is in the copy beside it
        info.json                      where all of it comes from

Used by `virtual.tree`. Flat, so that a document of any depth and name is one printable name. Everything is read-only and
made from memory; only reading a large version may wait for the store process.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote_from_bytes

from caiafs.core.types import DocPath, InodeNo, ObjectId
from caiafs.link.messages import Version
from caiafs.vfs.conflicts import Conflict
from caiafs.vfs.inode import Inode, storable_time
from caiafs.virtual.nodes import DocumentFile, LiveDirectory, Reader, VirtualFile, VirtualNode

DIRECTORY = b"conflicts"
LIST = b"conflicts.json"


class Versions(Protocol):
    """What is open and how its contents are read; app supplies it."""

    def open_conflicts(self) -> list[Conflict]:
        """Return the open conflicts, sorted by path."""
        ...

    def inode(self, ino: InodeNo) -> Inode | None:
        """Return an inode, None where it is gone."""
        ...

    def blob_size(self, oid: ObjectId) -> int | None:
        """Return a blob's length, None where it is not here."""
        ...

    def open_inode(self, ino: InodeNo) -> Reader:
        """Open a document or a link; raises NotFound."""
        ...

    def open_blob(self, oid: ObjectId) -> Reader:
        """Open a blob."""
        ...


def build_conflicts(versions: Versions) -> list[VirtualNode]:
    """Return the directory and the list."""

    def look() -> dict[bytes, VirtualNode]:
        nodes: dict[bytes, VirtualNode] = {}
        for conflict in versions.open_conflicts():
            name = conflict.key.encode()
            nodes[name] = LiveDirectory(name, _look_into(versions, conflict))
        return nodes

    def render() -> bytes:
        return _to_json({"conflicts": [describe(versions, c) for c in versions.open_conflicts()]})

    return [LiveDirectory(DIRECTORY, look), VirtualFile(LIST, render)]


def _look_into(versions: Versions, conflict: Conflict) -> Callable[[], dict[bytes, VirtualNode]]:
    def look() -> dict[bytes, VirtualNode]:
        time_ns = conflict.named.time_ns
        nodes: list[VirtualNode] = []
        base = conflict.origin.base if conflict.origin is not None else None
        size = versions.blob_size(base) if base is not None else None
        if base is not None and size is not None:
            oid = base
            nodes.append(DocumentFile(b"base", size, time_ns, lambda: versions.open_blob(oid)))
        for name, ino in ((b"ours", conflict.document.ino), (b"theirs", conflict.copy.ino)):
            node = _document(versions, name, ino)
            if node is not None:
                nodes.append(node)
        nodes.append(VirtualFile(b"info.json", lambda: _to_json(describe(versions, conflict))))
        return {node.name: node for node in nodes}

    return look


def _document(versions: Versions, name: bytes, ino: InodeNo) -> DocumentFile | None:
    inode = versions.inode(ino)
    if inode is None or not inode.is_publishable:
        return None
    return DocumentFile(name, inode.size, inode.mtime_ns, lambda: versions.open_inode(ino))


def describe(versions: Versions, conflict: Conflict) -> dict[str, Any]:
    """Return what info.json says; a path that is no UTF-8 is exact in its quoted form only."""
    origin = conflict.origin
    ours, theirs = versions.inode(conflict.document.ino), versions.inode(conflict.copy.ino)
    base = origin.base if origin is not None else None
    return {
        "id": conflict.key,
        **_path("path", conflict.path),
        **_path("copy", conflict.copy_path),
        "kind": conflict.kind,
        "explained": origin is not None,
        "commit": origin.commit if origin is not None else None,
        "time": _time(origin.time_ns if origin is not None else conflict.named.time_ns),
        "base": _blob(versions, base) if base is not None else None,
        "ours": _version(ours, origin.ours if origin is not None else None),
        "theirs": _version(theirs, origin.theirs if origin is not None else None),
    }


def _path(key: str, path: DocPath) -> dict[str, str]:
    shown = path.decode("utf-8", "backslashreplace")
    return {key: shown, f"{key}_quoted": quote_from_bytes(path, "/")}


def _blob(versions: Versions, oid: ObjectId) -> dict[str, Any]:
    size = versions.blob_size(oid)
    return {"blob": oid, "size": size, "here": size is not None}


def _version(inode: Inode | None, known: Version | None) -> dict[str, Any] | None:
    """Return what there is now, and who brought it; `edited` where somebody changed it since the conflict."""
    if inode is None or not inode.is_publishable:
        return None
    blob = None if inode.dirty or inode.unhashed is not None else inode.oid
    is_known = known is not None and known.oid == blob
    author = known if is_known else None
    return {
        "blob": blob,
        "size": inode.size,
        "edited": known is not None and not is_known,
        "commit": author.commit if author is not None else None,
        "author": author.author if author is not None else None,
        "time": _time(author.time_ns) if author is not None and author.time_ns else None,
    }


def _time(time_ns: int) -> str:
    return datetime.fromtimestamp(storable_time(time_ns) // 1_000_000_000, UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def _to_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
