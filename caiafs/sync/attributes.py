"""Saves in git what git does not know of files: owners, modes, times, extended attributes, empty directories, links.

One task of the store process; the mount process pays nothing for it. Rows of the state DB carry the number of the commit
that wrote them (`round`), so what changed since the last save is one query, exact, without a clock: ctime would not do,
for the kernel's writeback hands in times that are older than the save before. From the changed directories and those
above them trees are composed, bottom up; all others keep the tree that `ExportRecord` remembers by inode number, so that
a directory that was moved is not looked into. The result is a commit on `refs/caia/meta`, if it differs.

A save starts when the mount has not committed anything for a moment, or after a while when it always does; and when
somebody waits: at the end, and for `caiafs sync`.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from caiafs.backends.git.attribute_trees import (
    DOCUMENTS,
    LINKS,
    META_REF,
    blob_entries,
    directory_tree,
    part_of,
)
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.log import CommitLog, format_commit
from caiafs.backends.git.objects import ObjectReader, format_tree, parse_tree
from caiafs.backends.git.pack import NewObject, new_object
from caiafs.core.config import Config
from caiafs.core.errors import CaiaError, RevisionConflict, StateCorrupt
from caiafs.core.machine import SEAL_TRAILER, seal
from caiafs.core.types import EMPTY_TREE, ROOT_INODE, InodeNo, ObjectId, Signature
from caiafs.state.attribute_reader import AttributeReader
from caiafs.state.saved import SavedEntry, format_entries, format_links
from caiafs.sync.documents import Documents
from caiafs.sync.export_record import Exported, ExportRecord
from caiafs.sync.identity import Identities
from caiafs.sync.lasting import run_lasting

log = logging.getLogger(__name__)

LOOK_S = 2.0
_BUSY_MAX_S = 30.0
_SAVED_HERE = "saved_here"  # see vfs.restore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a save writes.

    Attributes:
        sealed: nothing in it comes from a repository that somebody else wrote.
        owner: writer id of the state DB that it was read from.
    """

    tree: ObjectId
    objects: tuple[NewObject, ...]
    directories: dict[InodeNo, Exported]
    changed: int
    newest_round: int
    sealed: bool
    owner: str


class AttributeSaver:
    """Saves attributes of one mount."""

    def __init__(
        self,
        git: GitBackend,
        state_dir: Path,
        *,
        author: Callable[[], Signature],
        is_idle: Callable[[], bool],
        documents: Callable[[], Mapping[bytes, bytes]],
    ) -> None:
        """`documents` returns what is saved of document ids, by what follows the blobs' common name."""
        self._git = git
        self._documents = documents
        self._state_dir = state_dir
        self._author = author
        self._is_idle = is_idle
        self._lock = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._reader = AttributeReader(state_dir)
        self._record = ExportRecord(state_dir)
        self._saved_version = -1
        self.reason = ""
        """Why attributes are not saved, empty when they are."""

    def close(self) -> None:
        """Close the databases."""
        self._reader.close()
        self._record.close()

    async def run(self) -> None:
        """Save whenever changes pause, for ever; close the databases in the end."""
        try:
            await run_lasting(self._run, "saving attributes")
        finally:
            # Who waits for `save` has a thread in them, where a closed database is a crash of the process.
            with trio.CancelScope(shield=True):
                async with self._lock:
                    self.close()

    async def _run(self) -> None:
        seen, busy_s = -1, 0.0
        while True:
            # Nobody says that attributes changed: a message would cost each chmod, and a look costs microseconds.
            await trio.sleep(LOOK_S)
            version = self._version()
            if version == self._saved_version:
                busy_s = 0.0
                continue
            busy_s += LOOK_S
            if (version == seen and self._is_idle()) or busy_s >= _BUSY_MAX_S:
                await self.save()
                busy_s = 0.0
            seen = version

    def _version(self) -> int:
        try:
            return self._reader.version
        except StateCorrupt as exc:
            self._note(str(exc))
            return self._saved_version

    async def save(self) -> bool:
        """Save what changed; return whether all is saved. Failures are logged and tried again."""
        async with self._lock:
            version = self._version()
            try:
                await self._save()
            except RevisionConflict:
                # Somebody fetched or pushed it: what is here goes on top of that.
                try:
                    await self._save()
                except (CaiaError, sqlite3.Error) as exc:
                    return self._note(str(exc))
            except (CaiaError, sqlite3.Error) as exc:
                return self._note(str(exc))
            self._saved_version = version
            self.reason = ""
            return True

    def _note(self, reason: str) -> bool:
        if reason != self.reason:
            log.warning("attributes are not saved in git: %s", reason)
        self.reason = reason
        return False

    async def _save(self) -> None:
        newest = self._git.repository.refs.read(META_REF)
        documents = self._documents()
        plan = await self._in_thread(lambda: self._compose(newest, documents))
        if plan is None:
            return
        commit = newest
        message = _message(plan)
        if newest is None or not self._is_same(newest, plan, message):
            author = self._author()
            raw = format_commit(plan.tree, () if newest is None else (newest,), author, message)
            item = new_object(b"commit", raw)
            await self._git.write_objects([*plan.objects, item])
            await self._git.move_ref(META_REF, item.oid, newest)
            commit = item.oid
        await self._in_thread(
            lambda: self._record.update(plan.directories, plan.owner, commit, plan.newest_round)
        )

    def _is_same(self, newest: ObjectId, plan: _Plan, message: str) -> bool:
        record = self._git.log_of.commit(newest)
        was_sealed = SEAL_TRAILER in record.message
        return record.tree == plan.tree and (SEAL_TRAILER in message) == was_sealed

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(function, limiter=self._limiter)

    # --- in a thread

    def _compose(self, newest: ObjectId | None, documents: Mapping[bytes, bytes]) -> _Plan | None:
        """Return what to write, None where nothing changed; `newest` is where the reference is."""
        with self._reader.moment():
            owner = str(self._reader.meta("writer_id"))
            if not self._record.is_of(owner, newest):
                self._record.forget()
            newest_round = self._reader.newest_round()
            changed = self._reader.changed_directories(self._record.round)
            if not changed or self._reader.root_entry() is None:
                return None
            objects = self._git.repository.new_reader()
            own = _document_entries(objects, newest, documents)
            composing = _Composing(self._reader, self._record, objects, own)
            tree = composing.run(changed)
            sealed = bool(self._reader.meta(_SAVED_HERE)) or not self._reader.has_saved()
        return _Plan(
            tree,
            tuple(composing.objects),
            composing.done,
            len(changed),
            newest_round,
            sealed,
            owner,
        )


def open_saver(
    config: Config,
    state_dir: Path,
    git: GitBackend,
    is_idle: Callable[[], bool],
    documents: Documents | None = None,
) -> AttributeSaver | None:
    """Return what saves the attributes of a mount; None for one that takes no changes."""
    if config.read_only:
        return None
    ids = documents or Documents(state_dir)
    return AttributeSaver(
        git,
        state_dir,
        author=Identities(domain=config.author_domain).own,
        is_idle=is_idle,
        documents=ids.to_save,
    )


def _document_entries(
    objects: ObjectReader, newest: ObjectId | None, documents: Mapping[bytes, bytes]
) -> tuple[bytes, list[NewObject]]:
    """Return the raw entries of document ids, and new objects; as they are where nothing is known of them."""
    if documents:
        return blob_entries({DOCUMENTS + name: content for name, content in documents.items()})
    if newest is None:
        return b"", []
    entries = objects.raw_tree(CommitLog(objects).commit(newest).tree)
    return format_tree([e for e in entries if e.name.startswith(DOCUMENTS)]), []


class _Composing:
    """One walk over changed directories, from the deepest up to the root."""

    def __init__(
        self,
        reader: AttributeReader,
        record: ExportRecord,
        objects: ObjectReader,
        documents: tuple[bytes, list[NewObject]],
    ) -> None:
        self._reader = reader
        self._record = record
        self._git = objects
        self._document_entries, self.objects = documents
        self.done: dict[InodeNo, Exported] = {}

    def run(self, changed: set[InodeNo]) -> ObjectId:
        """Compose `changed` and all above; return the root's tree."""
        depths = self._depths(changed)
        for directory in sorted(depths, key=lambda ino: -depths[ino]):
            self._compose(directory, is_changed=directory in changed)
        return self.done[ROOT_INODE].tree

    def _depths(self, changed: set[InodeNo]) -> dict[InodeNo, int]:
        """Return how deep directories lie; those that were removed meanwhile are left out."""
        depths: dict[InodeNo, int] = {ROOT_INODE: 0}
        for directory in changed:
            chain: list[InodeNo] = []
            above: InodeNo | None = directory
            while above is not None and above not in depths:
                chain.append(above)
                above = self._reader.parent(above)
            if above is None:
                continue
            chain.reverse()
            depths |= {ino: depths[above] + depth for depth, ino in enumerate(chain, start=1)}
        return depths

    def _compose(self, directory: InodeNo, *, is_changed: bool) -> None:
        known = self._record.get(directory)
        if known is None or is_changed:
            own, blobs = blob_entries(self._blobs(directory))
            self.objects += blobs
        else:
            own = known.own
        entries = parse_tree(own)
        if directory == ROOT_INODE:
            entries = [e for e in entries if not e.name.startswith((LINKS, DOCUMENTS))]
            entries += parse_tree(self._links())
            entries += parse_tree(self._document_entries)
        subtrees = {}
        for child in self._reader.directories(directory):
            tree = self._tree_of(child.ino) if child.is_loaded else child.saved
            if tree is not None and (child.is_loaded or self._git.exists(tree)):
                subtrees[child.name] = tree
        item = directory_tree(entries, subtrees)
        if item.oid != EMPTY_TREE or directory == ROOT_INODE:
            self.objects.append(item)
        self.done[directory] = Exported(own, item.oid)

    def _tree_of(self, directory: InodeNo) -> ObjectId | None:
        found = self.done.get(directory) or self._record.get(directory)
        return found.tree if found is not None else None

    def _blobs(self, directory: InodeNo) -> dict[bytes, bytes]:
        entries = self._reader.entries(directory)
        if directory == ROOT_INODE:
            own = self._reader.root_entry()
            assert own is not None, "a DB without a root is not saved"
            entries.append(own)
        parts: dict[bytes, list[SavedEntry]] = {}
        for entry in entries:
            parts.setdefault(part_of(entry.name, len(entries)), []).append(entry)
        return {name: format_entries(part) for name, part in parts.items()}

    def _links(self) -> bytes:
        groups = self._reader.link_groups()
        if not groups:
            return b""
        own, blobs = blob_entries({LINKS: format_links(groups)})
        self.objects += blobs
        return own


def _message(plan: _Plan) -> str:
    what = "directory" if plan.changed == 1 else "directories"
    text = f"Save attributes in {plan.changed} {what}\n"
    return f"{text}\n{SEAL_TRAILER}: {seal(plan.tree)}\n" if plan.sealed else text
