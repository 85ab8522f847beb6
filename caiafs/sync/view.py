"""A published tree with changes laid over it, by path.

Used by `sync.replay` and `sync.foreign`. Synchronous; reads trees through `TreeReader` and keeps the ones it saw, so
one instance serves one plan.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from caiafs.core.types import Change, DocPath, Entry, GitMode, ObjectId, join_path, split_path
from caiafs.sync.groups import ancestors

_NO_DOCUMENT = (GitMode.DIRECTORY, GitMode.GITLINK)
"""Submodules are no documents: they stay where they are."""


class TreeItem(Protocol):
    """An entry of a tree, names as a file system shows them."""

    @property
    def name(self) -> bytes:
        """One component."""
        ...

    @property
    def mode(self) -> GitMode:
        """What it is."""
        ...

    @property
    def oid(self) -> ObjectId:
        """Blob, or tree of a directory."""
        ...


class TreeReader(Protocol):
    """What a view needs of the object store; `backends.git.objects.ObjectReader` has it."""

    def read_tree(self, oid: ObjectId, /) -> Sequence[TreeItem]:
        """Return the entries of a tree."""
        ...


class TreeView:
    """A tree and what has changed since."""

    def __init__(self, reader: TreeReader, tree: ObjectId) -> None:
        self._reader = reader
        self._root = tree
        self._trees: dict[ObjectId, dict[bytes, TreeItem]] = {}
        self._changed: dict[DocPath, Entry | None] = {}
        # Per directory: names below it that were set or removed, so that listing one is not a scan of all.
        self._touched: dict[DocPath, set[DocPath]] = {}

    def get(self, path: DocPath) -> Entry | None:
        """Return the document at `path`, None where there is none."""
        if path in self._changed:
            return self._changed[path]
        return self._base_document(path)

    def has_below(self, directory: DocPath) -> bool:
        """Whether any document is below `directory`."""
        return next(self._below(directory), None) is not None

    def below(self, directory: DocPath) -> list[tuple[DocPath, Entry]]:
        """Return every document below `directory`, sorted by path."""
        return sorted(self._below(directory))

    def document_above(self, path: DocPath) -> DocPath | None:
        """Return the ancestor of `path` that is a document, so that nothing can be below it."""
        for directory in ancestors(path):
            if directory in self._changed:
                if self._changed[directory] is not None:
                    return directory
                continue
            item = self._base_item(directory)
            if item is not None:
                return None if item.mode in _NO_DOCUMENT else directory
        return None

    def set(self, path: DocPath, entry: Entry | None) -> None:
        """Put `entry` at `path`; None removes what is there."""
        if path not in self._changed:
            for directory in (*ancestors(path), DocPath(b"")):
                self._touched.setdefault(directory, set()).add(path)
        self._changed[path] = entry

    def changes(self) -> tuple[Change, ...]:
        """Return what differs from the tree below, sorted by path."""
        found = []
        for path in sorted(self._changed):
            before, after = self._base_document(path), self._changed[path]
            same = after is None if before is None else before.same_content(after)
            if not same:
                found.append(Change(path, before, after))
        return tuple(found)

    def _below(self, directory: DocPath) -> Iterator[tuple[DocPath, Entry]]:
        touched = self._touched.get(directory, set())
        for path in touched:
            entry = self._changed[path]
            if entry is not None:
                yield path, entry
        tree = self._root if not directory else self._base_tree(directory)
        if tree is not None:
            for path, entry in self._walk(tree, directory):
                if path not in touched:
                    yield path, entry

    def _walk(self, tree: ObjectId, directory: DocPath) -> Iterator[tuple[DocPath, Entry]]:
        for name, item in self._items(tree).items():
            path = join_path(directory, name)
            if item.mode == GitMode.DIRECTORY:
                yield from self._walk(item.oid, path)
            elif item.mode not in _NO_DOCUMENT:
                yield path, Entry(int(item.mode), item.oid)

    def _base_document(self, path: DocPath) -> Entry | None:
        item = self._base_item(path)
        if item is None or item.mode in _NO_DOCUMENT:
            return None
        return Entry(int(item.mode), item.oid)

    def _base_tree(self, directory: DocPath) -> ObjectId | None:
        if not directory:
            return self._root
        item = self._base_item(directory)
        return item.oid if item is not None and item.mode == GitMode.DIRECTORY else None

    def _base_item(self, path: DocPath) -> TreeItem | None:
        parent, name = split_path(path)
        tree = self._base_tree(parent)
        return self._items(tree).get(name) if tree is not None else None

    def _items(self, tree: ObjectId) -> dict[bytes, TreeItem]:
        if tree not in self._trees:
            self._trees[tree] = {item.name: item for item in self._reader.read_tree(tree)}
        return self._trees[tree]
