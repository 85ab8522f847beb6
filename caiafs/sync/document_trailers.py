"""How commits tell of document ids, and where the documents of a group were before it. Pure.

    Caiafs-Document: <id> <path>     the document that this commit puts at a path has an id that does not follow from it
    Caiafs-Moved: <old> <new>        a directory was moved: what is below keeps its ids

Paths are percent-encoded. Used by `sync.documents`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes

from caiafs.core.document_ids import DocumentId, first_id
from caiafs.core.types import DocPath, GitMode
from caiafs.state.ops import Op, OpKind
from caiafs.store.trailers import named_changes

_DOCUMENT = re.compile(r"^Caiafs-Document: ([0-9a-f]{16}) (\S+)$", re.MULTILINE)
_MOVED = re.compile(r"^Caiafs-Moved: (\S+) (\S+)$", re.MULTILINE)
_ASIDE = DocPath(b"%caia-exchanged")
_FILES = (GitMode.FILE, GitMode.EXECUTABLE, GitMode.SYMLINK)


@dataclass(frozen=True, slots=True)
class Told:
    """What a commit says of ids.

    Attributes:
        ids: documents by their paths.
        moved: directories, old and new path, in order.
    """

    ids: Mapping[DocPath, DocumentId] = field(default_factory=dict)
    moved: Sequence[tuple[DocPath, DocPath]] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.moved)

    def trailers(self) -> tuple[str, ...]:
        """Return the lines that say so."""
        lines = [f"Caiafs-Moved: {_quoted(old)} {_quoted(new)}" for old, new in self.moved]
        lines += [f"Caiafs-Document: {self.ids[path]} {_quoted(path)}" for path in sorted(self.ids)]
        return tuple(lines)


def told_by(message: str) -> Told:
    """Return what a commit message says of ids."""
    if "Caiafs-Document: " not in message and "Caiafs-Moved: " not in message:
        return Told()
    ids = {_path(text): DocumentId(oid) for oid, text in _DOCUMENT.findall(message)}
    moved = [(_path(old), _path(new)) for old, new in _MOVED.findall(message)]
    return Told(ids, moved)


def joined(messages: Iterable[str]) -> Told:
    """Return what several messages, the oldest first, say together.

    What came and moved within them is named one by one: at the end nothing shows any more where it was.
    """
    ids: dict[DocPath, DocumentId] = {}
    moved: list[tuple[DocPath, DocPath]] = []
    born: set[DocPath] = set()
    for message in messages:
        told = told_by(message)
        changes = named_changes(message) or ()
        removed = {change.path for change in changes if change.after is None}
        added = [change.path for change in changes if change.before is None]
        for path in added:
            origin = undone(path, told.moved)
            if origin in removed and (origin in born or origin in ids):
                ids[path] = ids.get(origin, first_id(origin))
        for path in removed:
            ids.pop(path, None)
        born.difference_update(removed)
        born.update(added)
        ids |= told.ids
        moved += told.moved
    return Told(ids, moved)


def _quoted(path: DocPath) -> str:
    return quote_from_bytes(path, "/")


def _path(text: str) -> DocPath:
    return DocPath(unquote_to_bytes(text))


def is_below(path: DocPath, directory: DocPath) -> bool:
    """Whether `path` is `directory` or in it."""
    return path == directory or path.startswith(directory + b"/")


def rebased(path: DocPath, old: DocPath, new: DocPath) -> DocPath:
    """Return where `path`, in directory `old`, is when that is called `new`."""
    return DocPath(new + path[len(old) :])


def undone(path: DocPath, moved: Sequence[tuple[DocPath, DocPath]]) -> DocPath:
    """Return where what is at `path` after these moves of directories was before them."""
    for old, new in reversed(moved):
        if is_below(path, new):
            path = rebased(path, new, old)
    return path


class Origins:
    """Where the documents at the end of a group were at its beginning."""

    def __init__(self, ops: Iterable[Op]) -> None:
        self.moved: list[tuple[DocPath, DocPath]] = []
        """Moves of directories; an exchange is three."""
        self._came: dict[DocPath, DocPath] = {}
        for op in ops:
            if op.target is None:
                continue
            if op.kind is OpKind.EXCHANGE:
                for old, new in (
                    (op.path, _ASIDE),
                    (op.target, op.path),
                    (_ASIDE, op.target),
                ):
                    self._move_directory(old, new)
            elif op.kind is OpKind.MOVE and op.mode in _FILES:
                self._move_file(op.path, op.target, replaces=op.replaced is not None)
            else:
                self._move_directory(op.path, op.target)

    def of(self, path: DocPath) -> DocPath:
        """Return where what is at `path` now was."""
        came = self._came.get(path)
        return came if came is not None else undone(path, self.moved)

    def _move_file(self, old: DocPath, new: DocPath, *, replaces: bool) -> None:
        origin = self.of(old)
        self._came.pop(old, None)
        # What is renamed over a document goes on as that document.
        self._came[new] = self.of(new) if replaces else origin

    def _move_directory(self, old: DocPath, new: DocPath) -> None:
        for path in [path for path in self._came if is_below(path, old)]:
            self._came[rebased(path, old, new)] = self._came.pop(path)
        self.moved.append((old, new))
