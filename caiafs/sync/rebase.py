"""Brings the mount to the branch where the commit that it showed last is gone: a repository restored from a backup, or replaced.

Used once, by `sync.assembly`, before the mount hears anything else. What the mount shows is read from the state DB, name by
name, and compared with the branch's tree; directories that were never looked into get their new tree and cost nothing. What
waits to be published is left alone: the publisher merges it as ever. Runs in a thread, with a reader of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from caiafs.core.types import (
    EMPTY_TREE,
    NO_OBJECT,
    ROOT_INODE,
    ROOT_PATH,
    Change,
    DocPath,
    Entry,
    GitMode,
    InodeNo,
    ObjectId,
    join_path,
)
from caiafs.state.reader import ShownName
from caiafs.sync.groups import ancestors
from caiafs.sync.view import TreeItem, TreeReader

_NO_DOCUMENT = (GitMode.DIRECTORY, GitMode.GITLINK)


class Shown(Protocol):
    """What the mount shows; `StateReader` has it."""

    def is_loaded(self, directory: InodeNo) -> bool:
        """Whether the names in a directory are in the state DB."""
        ...

    def shown_names(self, directory: InodeNo) -> list[ShownName]:
        """Return the names in a directory that is loaded."""
        ...

    def pending_paths(self) -> set[DocPath]:
        """Return every path that an op names."""
        ...


@dataclass(slots=True)
class Difference:
    """What the mount has to hear.

    Attributes:
        changes: from what it shows to what the branch has.
        trees: of directories that it has not looked into.
        lost: documents that it shows and the branch does not have.
    """

    changes: list[Change] = field(default_factory=list)
    trees: dict[DocPath, ObjectId] = field(default_factory=dict)
    lost: int = 0


def find_difference(shown: Shown, reader: TreeReader, tree: ObjectId) -> Difference:
    """Return where the mount differs from the branch's tree."""
    return _Comparison(shown, reader).run(tree)


class _Comparison:
    def __init__(self, shown: Shown, reader: TreeReader) -> None:
        self._shown = shown
        self._reader = reader
        self._pending = shown.pending_paths()
        self._found = Difference()

    def run(self, tree: ObjectId) -> Difference:
        # Never empty: with it, a directory that is missing among them is known to be gone.
        self._found.trees[ROOT_PATH] = tree
        if self._shown.is_loaded(ROOT_INODE):
            waiting = [(ROOT_INODE, ROOT_PATH, tree)]
            while waiting:
                waiting += self._compare(*waiting.pop())
        return self._found

    def _compare(
        self, ino: InodeNo, path: DocPath, tree: ObjectId
    ) -> Iterator[tuple[InodeNo, DocPath, ObjectId]]:
        """Compare the names in one directory; yield those in it that are to be compared next."""
        entries = self._entries(tree)
        for name in self._shown.shown_names(ino):
            at = join_path(path, name.name)
            there = entries.pop(name.name, None)
            if self._waits(at):
                continue
            below = there.oid if there is not None and there.mode == GitMode.DIRECTORY else None
            if not name.is_directory:
                self._compare_document(at, name, there)
            elif name.is_loaded:
                yield name.ino, at, below or EMPTY_TREE
            elif below is not None:
                self._found.trees[at] = below
            else:
                # No document in it is known by name: this stands for them all.
                self._gone(DocPath(at + b"/*"), Entry(GitMode.FILE, NO_OBJECT))
        for item in entries.values():
            at = join_path(path, item.name)
            if not self._waits(at):
                self._add(at, item)

    def _compare_document(self, path: DocPath, name: ShownName, there: TreeItem | None) -> None:
        shown = name.entry
        if shown is None:
            return  # nothing that a store ever had
        if there is None or there.mode in _NO_DOCUMENT:
            self._gone(path, shown)
            if there is not None:
                self._add(path, there)
        elif (int(there.mode), there.oid) != (shown.mode, shown.oid):
            self._found.changes.append(Change(path, shown, Entry(int(there.mode), there.oid)))

    def _gone(self, path: DocPath, shown: Entry) -> None:
        self._found.changes.append(Change(path, shown, None))
        self._found.lost += 1

    def _add(self, path: DocPath, item: TreeItem) -> None:
        """Note what the mount does not show; one document stands for all in a directory."""
        while item.mode == GitMode.DIRECTORY:
            self._found.trees[path] = item.oid
            items = self._entries(item.oid)
            if not items:
                return
            item = next(iter(items.values()))
            path = join_path(path, item.name)
        if item.mode != GitMode.GITLINK:
            self._found.changes.append(Change(path, None, Entry(int(item.mode), item.oid)))

    def _entries(self, tree: ObjectId) -> dict[bytes, TreeItem]:
        items = self._reader.read_tree(tree) if tree != EMPTY_TREE else ()
        return {item.name: item for item in items}

    def _waits(self, path: DocPath) -> bool:
        """Whether something that is not published yet was done to `path` or to a directory above it."""
        pending = self._pending
        return bool(pending) and (path in pending or any(p in pending for p in ancestors(path)))
