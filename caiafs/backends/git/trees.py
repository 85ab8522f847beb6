"""Comparing trees and editing them, by document.

Used by the store process. Synchronous: the cost is that of the directories that differ, not of the repository
(100,000 documents, one changed: see tests/unit/test_git_trees.py). Deep paths need no recursion: a path of 4,096 bytes has 2,048 levels.

Submodules (gitlinks) are no documents: a diff leaves them out, an edit keeps them.
"""

from collections.abc import Iterable, Mapping

from caiafs.backends.git import names
from caiafs.backends.git.objects import (
    ObjectReader,
    RawEntry,
    TreeEntry,
    format_tree,
    show_entries,
)
from caiafs.backends.git.pack import NewObject, new_object
from caiafs.core.errors import NotFound, Refused
from caiafs.core.types import (
    EMPTY_TREE,
    ROOT_PATH,
    Change,
    DocPath,
    Entry,
    GitMode,
    ObjectId,
    join_path,
    split_path,
)

_DOCUMENT_MODES = (GitMode.FILE, GitMode.EXECUTABLE, GitMode.SYMLINK)
_Pair = tuple[TreeEntry | None, TreeEntry | None]


def diff_trees(reader: ObjectReader, old: ObjectId, new: ObjectId) -> list[Change]:
    """Return what turns tree `old` into tree `new`, sorted by path; sizes are not asked for.

    Raises:
        NotFound: a tree is not here.
        Corrupt: a tree cannot be read.
    """
    changes: list[Change] = []
    waiting = [(ROOT_PATH, old, new)]
    while waiting:
        directory, old_id, new_id = waiting.pop()
        for name, (before, after) in _differing(reader, old_id, new_id).items():
            path = join_path(directory, name)
            old_entry, new_entry = _as_document(before), _as_document(after)
            if old_entry != new_entry:
                changes.append(Change(path, old_entry, new_entry))
            old_tree, new_tree = _as_tree(before), _as_tree(after)
            if old_tree != new_tree:
                waiting.append((path, old_tree, new_tree))
    changes.sort(key=lambda change: change.path)
    return changes


def changed_tree_ids(reader: ObjectReader, old: ObjectId, new: ObjectId) -> dict[DocPath, ObjectId]:
    """Return the ids of the directories of `new` that are not the same in `old`, the root's among them.

    Of a directory that is new only its top is named.
    """
    found: dict[DocPath, ObjectId] = {}
    waiting = [(ROOT_PATH, old, new)] if old != new else []
    while waiting:
        path, old_id, new_id = waiting.pop()
        found[path] = new_id
        for name, (before, after) in _differing(reader, old_id, new_id).items():
            old_tree, new_tree = _as_tree(before), _as_tree(after)
            below = join_path(path, name)
            if new_tree in (old_tree, EMPTY_TREE):
                continue
            if old_tree == EMPTY_TREE:
                found[below] = new_tree
            else:
                waiting.append((below, old_tree, new_tree))
    return found


def edit_tree(
    reader: ObjectReader,
    base_tree: ObjectId,
    changes: Iterable[Change],
    *,
    pending: Mapping[ObjectId, bytes] | None = None,
) -> tuple[ObjectId, list[NewObject]]:
    """Return the tree that `changes` make of `base_tree`, and the tree objects to write for it.

    `Change.before` is not looked at. A document that is put replaces what is there, a directory too; deleting one
    that is not there, or is a directory by now, changes nothing. Directories that become empty vanish.
    `pending` holds contents that are not in the repository yet.

    Raises:
        Refused: a path that no tree can hold, or that lies below another document or a submodule.
        NotFound: a tree is not here.
        Corrupt: a tree cannot be read.
    """
    edit = _Edit(reader, changes, pending or {})
    edit.load(base_tree)
    return edit.rewrite()


class _Edit:
    """One edit: `actions` per directory, loaded from the top, rewritten from the bottom."""

    def __init__(
        self, reader: ObjectReader, changes: Iterable[Change], pending: Mapping[ObjectId, bytes]
    ) -> None:
        self._reader = reader
        self._pending = pending
        self._actions: dict[DocPath, dict[bytes, Entry | None]] = {ROOT_PATH: {}}
        self._below: dict[DocPath, set[bytes]] = {ROOT_PATH: set()}
        self._bases: dict[DocPath, ObjectId] = {}
        self._entries: dict[DocPath, dict[bytes, RawEntry]] = {}
        puts = set()
        for change in changes:
            _check_path(change)
            if change.after is not None:
                puts.add(change.path)
            directory, name = split_path(change.path)
            self._reach(directory)
            self._actions[directory][name] = change.after
        for path in sorted(puts):
            self._refuse_nested(path, puts)

    def load(self, base_tree: ObjectId) -> None:
        """Read every directory that has to change."""
        self._bases[ROOT_PATH] = base_tree
        for directory in sorted(self._below, key=_depth):
            raw = self._reader.raw_tree(self._bases[directory])
            self._entries[directory] = {entry.name: entry for entry in raw}
            for name in self._below[directory]:
                path = join_path(directory, name)
                current = self._current(directory, name)
                replaced = self._actions[directory].get(name) is not None
                self._bases[path] = EMPTY_TREE if replaced else _as_tree(current)

    def rewrite(self) -> tuple[ObjectId, list[NewObject]]:
        """Return the new root and the new objects, subtrees first."""
        written: list[NewObject] = []
        results: dict[DocPath, ObjectId] = {}
        for directory in sorted(self._below, key=_depth, reverse=True):
            entries = self._entries[directory]
            before = dict(entries)
            for name, action in self._actions[directory].items():
                self._apply(directory, name, action)
            for name in self._below[directory]:
                path = join_path(directory, name)
                if results[path] != self._bases[path]:
                    self._place_tree(directory, name, results[path])
            if entries == before:
                results[directory] = self._bases[directory]
                continue
            tree = new_object(b"tree", format_tree(list(entries.values())))
            results[directory] = tree.oid
            if entries or directory == ROOT_PATH:
                written.append(tree)
        return results[ROOT_PATH], written

    def _apply(self, directory: DocPath, name: bytes, action: Entry | None) -> None:
        current = self._current(directory, name)
        is_submodule = current is not None and current.mode is GitMode.GITLINK
        if action is not None:
            if is_submodule:
                raise _refused(join_path(directory, name), "a submodule is there")
            self._remove(directory, name)
            self._insert(directory, name, b"%o" % action.mode, action.oid)
        elif current is not None and not current.is_dir and not is_submodule:
            self._remove(directory, name)

    def _place_tree(self, directory: DocPath, name: bytes, tree: ObjectId) -> None:
        current = self._current(directory, name)
        if tree != EMPTY_TREE:
            if current is not None and current.mode is GitMode.GITLINK:
                raise _refused(join_path(directory, name), "a submodule is there")
            self._remove(directory, name)
            self._insert(directory, name, b"%o" % GitMode.DIRECTORY, tree)
        elif current is not None and current.is_dir:
            self._remove(directory, name)

    def _insert(self, directory: DocPath, name: bytes, mode: bytes, oid: ObjectId) -> None:
        stored = self._stored_name(name, mode, oid)
        self._entries[directory][stored] = RawEntry(mode, stored, bytes.fromhex(oid))

    def _remove(self, directory: DocPath, name: bytes) -> None:
        for stored in names.spellings(name):
            self._entries[directory].pop(stored, None)

    def _current(self, directory: DocPath, name: bytes) -> TreeEntry | None:
        entries = self._entries[directory]
        found = [entries[stored] for stored in names.spellings(name) if stored in entries]
        return next(iter(show_entries(found)), None)

    def _stored_name(self, name: bytes, mode: bytes, oid: ObjectId) -> bytes:
        if names.is_refused(name):
            return names.escape(name)
        if names.is_special(name) and not self._is_plain(name, mode, oid):
            return names.escape(name)
        return name

    def _is_plain(self, name: bytes, mode: bytes, oid: ObjectId) -> bool:
        if int(mode, 8) not in (GitMode.FILE, GitMode.EXECUTABLE):
            return False
        try:
            content = self._pending.get(oid)
            if content is None:
                if self._reader.size(oid) > names.SPECIAL_MAX_BYTES:
                    return False
                content = self._reader.read_blob(oid)
        except NotFound:
            return False
        return names.is_plain_special(name, content)

    def _reach(self, directory: DocPath) -> None:
        """Note `directory` and those above it as to be rewritten."""
        names_below: list[bytes] = []
        while directory not in self._below:
            directory, name = split_path(directory)
            names_below.append(name)
        for name in reversed(names_below):
            self._below[directory].add(name)
            directory = join_path(directory, name)
            self._below[directory] = set()
            self._actions[directory] = {}

    def _refuse_nested(self, path: DocPath, puts: set[DocPath]) -> None:
        above, _ = split_path(path)
        while above:
            if above in puts:
                raise _refused(path, "a document cannot lie below another")
            above, _ = split_path(above)


def _differing(reader: ObjectReader, old: ObjectId, new: ObjectId) -> dict[bytes, _Pair]:
    """Return the names that differ in two directories, with what each shows."""
    old_raw, new_raw = reader.raw_tree(old), reader.raw_tree(new)
    different = {names.unescape(raw.name) for raw in set(old_raw).symmetric_difference(new_raw)}
    before = _shown(old_raw, different)
    after = _shown(new_raw, different)
    return {
        name: (before.get(name), after.get(name))
        for name in different
        if before.get(name) != after.get(name)
    }


def _shown(entries: list[RawEntry], wanted: set[bytes]) -> dict[bytes, TreeEntry]:
    spelled = {stored for name in wanted for stored in names.spellings(name)}
    return {
        entry.name: entry for entry in show_entries([raw for raw in entries if raw.name in spelled])
    }


def _as_document(entry: TreeEntry | None) -> Entry | None:
    if entry is None or entry.mode not in _DOCUMENT_MODES:
        return None
    return Entry(entry.mode, entry.oid)


def _as_tree(entry: TreeEntry | None) -> ObjectId:
    return entry.oid if entry is not None and entry.is_dir else EMPTY_TREE


def _depth(path: DocPath) -> int:
    return path.count(b"/") + 1 if path else 0


def _check_path(change: Change) -> None:
    parts = change.path.split(b"/")
    if 0 in change.path or any(part in (b"", b".", b"..") for part in parts):
        raise _refused(change.path, "no path in a tree can be called that")
    if change.after is not None and change.after.mode not in _DOCUMENT_MODES:
        raise _refused(change.path, f"mode {change.after.mode:o} is no document's")


def _refused(path: DocPath, reason: str) -> Refused:
    return Refused(
        f"git cannot hold a document: {reason}",
        path=path,
        reason=reason,
        backend="git",
        operation="commit",
    )
