"""Reading git objects: trees, sizes, small blobs.

Used by both processes: the mount process for directories and small contents, the store process for diffs and
edits. Synchronous and cheap for small objects; a large blob holds the GIL while it inflates (16 MiB: 0.5 s), so
those go through `contents`. Sees what other processes write meanwhile. One instance a thread.

Trees are parsed here, from raw bytes: pygit2's own entries are str, and names need not be UTF-8.
"""

import hashlib
import os
import re
import stat
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pygit2
from pygit2.enums import ObjectType, RepositoryOpenFlag, SortMode

from caiafs.backends.git import names
from caiafs.core.errors import Corrupt, NotFound
from caiafs.core.types import EMPTY_TREE, ROOT_PATH, DocPath, GitMode, ObjectId, join_path

_ENTRY = re.compile(rb"([0-7]{5,6}) ([^\0]+)\0(.{20})", re.DOTALL)
_ENTRY_OVERHEAD = 22  # space, NUL and 20 bytes of id
_HEADER_READ = 256
_HEADER_MAX = 64
_LOOSE_KINDS = {
    b"blob": ObjectType.BLOB,
    b"tree": ObjectType.TREE,
    b"commit": ObjectType.COMMIT,
    b"tag": ObjectType.TAG,
}
_UNUSABLE = frozenset((b".", b".."))

_REOPEN_S = 60.0
"""libgit2 never lets go of a pack that it opened: what `git repack` removed stays, with its descriptor and its bytes on
the disk. So the repository is opened again after that long (0.3 ms, and 0.02 ms for each pack that is then asked)."""

_OPEN_PACKS = 64  # at a time, whatever happens within a minute; libgit2 has no limit by itself


class RawEntry(NamedTuple):
    """A tree entry as git stores it: octal mode digits, stored name, 20 bytes of id."""

    mode: bytes
    name: bytes
    oid: bytes

    @property
    def is_dir(self) -> bool:
        """Whether this is a subtree."""
        return int(self.mode, 8) == GitMode.DIRECTORY


class TreeEntry(NamedTuple):
    """A tree entry as a file system shows it: name unescaped, mode one of `GitMode`."""

    name: bytes
    mode: GitMode
    oid: ObjectId

    @property
    def is_dir(self) -> bool:
        """Whether this is a subtree."""
        return self.mode is GitMode.DIRECTORY


def parse_tree(data: bytes) -> list[RawEntry]:
    """Return the entries of a raw tree, in its order.

    Raises:
        Corrupt: it is not a tree.
    """
    found = _ENTRY.findall(data)
    if sum(len(mode) + len(name) for mode, name, _ in found) + _ENTRY_OVERHEAD * len(found) != len(
        data
    ):
        raise Corrupt("a tree object cannot be parsed", backend="git", operation="read")
    return [RawEntry(*entry) for entry in found]


def format_tree(entries: list[RawEntry]) -> bytes:
    """Return the raw tree of `entries`, sorted as git wants it: a directory as if it ended in a slash."""
    ordered = sorted(entries, key=lambda entry: entry.name + b"/" if entry.is_dir else entry.name)
    return b"".join(b"%s %s\0%s" % entry for entry in ordered)


def shown_mode(mode: bytes) -> GitMode | None:
    """Return the mode that raw mode digits stand for; None for what no git writes."""
    bits = int(mode, 8)
    kind = stat.S_IFMT(bits)
    if kind == stat.S_IFREG:  # 100664 was written by early versions
        return GitMode.EXECUTABLE if bits & 0o100 else GitMode.FILE
    try:
        return GitMode(kind)
    except ValueError:
        return None


def show_entries(entries: Iterable[RawEntry]) -> Iterator[TreeEntry]:
    """Yield what a file system can show of a raw tree: one bad entry costs that entry only.

    Left out: names that no path can hold (`.`, `..`, with a slash), unknown modes, and the second of two entries
    that show the same name.
    """
    shown: set[bytes] = set()
    for raw in entries:
        mode = shown_mode(raw.mode)
        name = names.unescape(raw.name)
        if mode is None or name in _UNUSABLE or b"/" in name or name in shown:
            continue
        shown.add(name)
        yield TreeEntry(name, mode, ObjectId(raw.oid.hex()))


class ObjectReader:
    """Reads objects of one repository, and of `object_dir` in front of it where that is given."""

    def __init__(self, git_dir: Path, *, object_dir: Path | None = None) -> None:
        self._git_dir = git_dir
        self._object_dir = object_dir
        self._object_dirs = [object_dir] if object_dir is not None else []
        self._object_dirs.append(git_dir / "objects")
        pygit2.settings.mwindow_file_limit = _OPEN_PACKS
        self._repository = self._open()
        self._odb = self._repository.odb
        self._opened_at = time.monotonic()

    def __del__(self) -> None:
        # A pygit2 repository refers to itself, so that it would wait for the collector with all its packs open.
        if hasattr(self, "_repository"):
            self._repository.free()

    def exists(self, oid: ObjectId) -> bool:
        """Whether the object is here; looks again for new packs before it says no."""
        self._reopen_when_old()
        try:
            return pygit2.Oid(hex=oid) in self._odb
        except ValueError:
            return False

    def size(self, oid: ObjectId) -> int:
        """Return an object's length in bytes, without inflating it.

        Raises:
            NotFound: it is not here.
            Corrupt: it cannot be read.
        """
        loose = self._open_loose(oid)
        if loose is None:
            return int(self._ask("read_header", oid)[1])
        data = _read_file(loose, oid, _HEADER_READ)
        header, _, _ = _inflate(data, oid, _HEADER_MAX).partition(b"\0")
        return _loose_kind(header, oid)[1]

    def read_blob(self, oid: ObjectId) -> bytes:
        """Return a blob's content; for small ones, see the module.

        Raises:
            NotFound: it is not here, or is no blob.
            Corrupt: it cannot be read.
        """
        return self._read(oid, ObjectType.BLOB)

    def read_commit(self, oid: ObjectId) -> bytes:
        """Return a raw commit; raises as `read_blob`."""
        return self._read(oid, ObjectType.COMMIT)

    def raw_tree(self, oid: ObjectId) -> list[RawEntry]:
        """Return a tree's entries as stored, for those who write trees; raises as `read_blob`."""
        if oid == EMPTY_TREE:
            return []
        return parse_tree(self._read(oid, ObjectType.TREE))

    def read_tree(self, oid: ObjectId) -> list[TreeEntry]:
        """Return a tree's entries as a file system shows them; raises as `read_blob`."""
        return list(self.iter_tree(oid))

    def iter_tree(self, oid: ObjectId) -> Iterator[TreeEntry]:
        """Read a tree now, and return its entries one by one, as `read_tree` does; the reading is a fifth of the cost."""
        return show_entries(self.raw_tree(oid))

    def entry_at(self, tree: ObjectId, path: DocPath) -> TreeEntry | None:
        """Return what is at `path` below `tree`, None where nothing is.

        The root itself has an empty name.
        """
        entry = TreeEntry(b"", GitMode.DIRECTORY, tree)
        for name in path.split(b"/") if path else ():
            if not entry.is_dir:
                return None
            found = self._find(entry.oid, name)
            if found is None:
                return None
            entry = found
        return entry

    def walk(
        self, tree: ObjectId, below: DocPath = ROOT_PATH
    ) -> Iterator[tuple[DocPath, TreeEntry]]:
        """Yield every document below `tree`, gitlinks too, with its path under `below`, in no order."""
        waiting = [(below, tree)]
        while waiting:
            directory, oid = waiting.pop()
            for entry in self.read_tree(oid):
                path = join_path(directory, entry.name)
                if entry.is_dir:
                    waiting.append((path, entry.oid))
                else:
                    yield path, entry

    def commits_between(self, old: ObjectId | None, new: ObjectId) -> list[ObjectId]:
        """Return what `new` reaches and `old` does not, children before parents; raises as `read_blob`."""
        try:
            walker = self._repository.walk(
                pygit2.Oid(hex=new), SortMode.TOPOLOGICAL | SortMode.TIME
            )
            if old is not None:
                walker.hide(pygit2.Oid(hex=old))
            return [ObjectId(str(commit.id)) for commit in walker]
        except (KeyError, ValueError) as exc:
            raise NotFound(f"commit {old} or {new} is not in the repository") from exc
        except pygit2.GitError as exc:
            raise Corrupt(f"history of {new}: {exc}", backend="git", operation="log") from exc

    def merge_base(self, one: ObjectId, other: ObjectId) -> ObjectId | None:
        """Return the best common ancestor of two commits, None without one; raises as `read_blob`."""
        try:
            found = self._repository.merge_base(pygit2.Oid(hex=one), pygit2.Oid(hex=other))
        except (KeyError, ValueError) as exc:
            raise NotFound(f"commit {one} or {other} is not in the repository") from exc
        except pygit2.GitError as exc:
            raise Corrupt(f"history of {one}: {exc}", backend="git", operation="log") from exc
        return ObjectId(str(found)) if found else None

    def _find(self, tree: ObjectId, name: bytes) -> TreeEntry | None:
        wanted = names.spellings(name)
        matching = [raw for raw in self.raw_tree(tree) if raw.name in wanted]
        return next(iter(show_entries(matching)), None)

    def _read(self, oid: ObjectId, kind: ObjectType) -> bytes:
        data: bytes
        loose = self._open_loose(oid)
        if loose is None:
            found, data = self._ask("read", oid)
        else:
            found, data = _parse_loose(_read_file(loose, oid), oid)
        if found != kind:
            raise NotFound(f"object {oid} is no {kind.name.lower()}")
        return data

    def _open_loose(self, oid: ObjectId) -> BinaryIO | None:
        """Open a loose object's file; None where there is none.

        Loose objects are read here because libgit2 1.9 never ends on one that was cut short, as a power cut
        leaves it behind plain git, and holds the GIL meanwhile.
        """
        for directory in self._object_dirs:
            try:
                return open(directory / oid[:2] / oid[2:], "rb", opener=_open_at_once)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except (OSError, ValueError) as exc:
                raise Corrupt(f"object {oid}: {exc}", backend="git", operation="read") from exc
        return None

    def _ask(self, method: str, oid: ObjectId) -> Any:
        """Call the object database; on failure reopen it once, for packs may have been replaced."""
        self._reopen_when_old()
        try:
            return self._try(method, oid)
        except (NotFound, Corrupt):
            self._reopen()
            return self._try(method, oid)

    def _try(self, method: str, oid: ObjectId) -> Any:
        try:
            return getattr(self._odb, method)(pygit2.Oid(hex=oid))
        except (KeyError, ValueError) as exc:
            raise NotFound(f"object {oid} is not in the repository") from exc
        except pygit2.GitError as exc:
            raise Corrupt(f"object {oid}: {exc}", backend="git", operation="read") from exc

    def _reopen_when_old(self) -> None:
        if time.monotonic() - self._opened_at > _REOPEN_S:
            self._reopen()

    def _reopen(self) -> None:
        opened = self._open()
        self._repository.free()
        self._repository = opened
        self._odb = self._repository.odb
        self._opened_at = time.monotonic()

    def _open(self) -> pygit2.Repository:
        try:
            repository = pygit2.Repository(str(self._git_dir), RepositoryOpenFlag.NO_SEARCH)
            if self._object_dir is not None:
                repository.odb.add_disk_alternate(str(self._object_dir))
        except (pygit2.GitError, KeyError) as exc:
            raise Corrupt(f"{self._git_dir}: {exc}", backend="git", operation="read") from exc
        return repository


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a FIFO in its place would hold the mount up for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_file(file: BinaryIO, oid: ObjectId, limit: int = -1) -> bytes:
    """Return what an open file holds, and close it."""
    try:
        with file:
            return file.read(limit)
    except OSError as exc:  # a bad sector
        raise Corrupt(f"object {oid}: {exc}", backend="git", operation="read") from exc


def _inflate(data: bytes, oid: ObjectId, limit: int = 0) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, limit)
    except zlib.error as exc:
        raise Corrupt(f"object {oid}: {exc}", backend="git", operation="read") from exc


def _loose_kind(header: bytes, oid: ObjectId) -> tuple[ObjectType, int]:
    kind, _, size = header.partition(b" ")
    if kind not in _LOOSE_KINDS or not size.isdigit():
        raise Corrupt(f"object {oid} has no header", backend="git", operation="read")
    return _LOOSE_KINDS[kind], int(size)


def _parse_loose(data: bytes, oid: ObjectId) -> tuple[ObjectType, bytes]:
    """Return kind and content of a loose object, checked against its id."""
    raw = _inflate(data, oid)
    if hashlib.sha1(raw).hexdigest() != oid:
        raise Corrupt(f"object {oid} is not what its id says", backend="git", operation="read")
    header, _, content = raw.partition(b"\0")
    return _loose_kind(header, oid)[0], content
