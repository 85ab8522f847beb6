"""The git store: a change set becomes a commit, durable before the branch moves.

Used by the hybrid store through the contract, and by the publisher through the finer steps: `build` (objects on
disk, no reference moved), `advance` (compare and swap of the branch), `move_ref`. Small objects are read in place; what
blocks for longer runs in threads or in the git command. Writes of one instance follow each other. The user's own
`git push`, `git gc` and `git commit` elsewhere may happen at any time between two steps.
"""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from caiafs.backends.base import Backend, Capabilities, CommitResult, Document, Listing, Revision
from caiafs.backends.git.contents import GitContents
from caiafs.backends.git.log import CommitLog, CommitRecord, format_commit
from caiafs.backends.git.objects import TreeEntry
from caiafs.backends.git.pack import NewObject, new_object
from caiafs.backends.git.refs import RefLocked, RefUpdate
from caiafs.backends.git.repository import Repository
from caiafs.backends.git.trees import diff_trees, edit_tree
from caiafs.backends.git.upkeep import needs_repack, repack
from caiafs.backends.git.writer import STREAM_ABOVE_BYTES, ObjectWriter
from caiafs.core.errors import Corrupt, NotFound, Refused, RevisionConflict, StoreError, Unreachable
from caiafs.core.types import (
    Change,
    ChangeSet,
    ContentSource,
    DocPath,
    Entry,
    GitMode,
    ObjectId,
    blob_id,
)

_OPERATION_SEARCH_DEPTH = 512
_COMMIT_ATTEMPTS = 20
_LOCK_WAITS_S = (0.005, 0.02, 0.08, 0.2, 0.4, 0.8)
_BATCH_BYTES = 32 << 20
_UPKEEP_PACKS = 128  # saves never paused for so long that `maintain` was called

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BuiltCommit:
    """A commit that is on disk and that no reference reaches yet.

    Attributes:
        commit, tree: what was built.
        parent: its first parent, None for a root commit.
        refused: documents left out, with the reason; the commit holds all others.
        damaged: those among them whose content cannot be had, or is not what its id says.
    """

    commit: ObjectId
    tree: ObjectId
    parent: ObjectId | None
    refused: tuple[tuple[DocPath, str], ...] = ()
    damaged: tuple["DamagedContent", ...] = ()


@dataclass(frozen=True, slots=True)
class DamagedContent:
    """A content that the source does not have, or has other bytes of."""

    path: DocPath
    oid: ObjectId
    reason: str


@dataclass(slots=True)
class _Known:
    """The operations among the newest commits of `head`, and those committed since."""

    head: ObjectId | None
    operations: set[str | None]


class GitBackend(Backend):
    """One repository as a store of documents."""

    name = "git"

    def __init__(self, repository: Repository, source: ContentSource) -> None:
        self.repository = repository
        self.contents = GitContents(repository)
        self.log_of = CommitLog(repository.reader)
        self._source = source
        self._writer = ObjectWriter(repository)
        self._lock = trio.Lock()
        self._threads = trio.CapacityLimiter(2)
        self._known: _Known | None = None

    # --- the contract

    async def connect(self) -> Capabilities:
        """Find the repository readable; see `Backend.connect`."""
        await self.head()
        return Capabilities("git", lists=True, diffs=True, max_content_bytes=None)

    async def head(self) -> str | None:
        """Return the branch's newest commit."""
        await trio.lowlevel.checkpoint()
        return self.repository.head_commit()

    async def log(self, limit: int) -> tuple[Revision, ...]:
        """Return the newest `limit` commits, merged ones among them."""
        await trio.lowlevel.checkpoint()
        head = self.repository.head_commit()
        return await self._in_thread(self._newest_revisions, head, limit)

    async def read(self, path: DocPath) -> Document | None:
        """Return the document at `path` on the branch; a submodule is none."""
        await trio.lowlevel.checkpoint()
        tree = self.repository.tree_of(self.repository.head_commit())
        found = self.repository.reader.entry_at(tree, path)
        if found is None or not _is_document(found):
            return None
        try:
            content = await self.contents.read(found.oid)
        except NotFound as exc:
            raise Corrupt(f"blob {found.oid} is missing", backend="git", operation="read") from exc
        return Document(Entry(found.mode, found.oid, len(content)), content)

    async def listing(self) -> Listing:
        """Return every document of the branch, with its size."""
        await trio.lowlevel.checkpoint()
        head = self.repository.head_commit()
        entries = await self._in_thread(self._list_documents, self.repository.tree_of(head))
        return Listing(entries, complete=True, revision=head)

    async def commit(self, change_set: ChangeSet) -> CommitResult:
        """Build on the branch's head and move the branch; see `Backend.commit`.

        When somebody else moves the branch meanwhile, it is built again on theirs.
        """
        for _ in range(_COMMIT_ATTEMPTS):
            parent = self.repository.head_commit()
            if self._known is None or self._known.head != parent:
                self._known = await self._in_thread(self._load_operations, parent)
            if change_set.operation_id in self._known.operations:
                return CommitResult(parent)
            built = await self.build(change_set, parent)
            if built.tree == self.repository.tree_of(parent):
                return CommitResult(parent, built.refused)
            try:
                await self.advance(built, parent)
            except RevisionConflict:
                continue
            self._known.operations.add(change_set.operation_id)
            self._known.head = built.commit
            return CommitResult(built.commit, built.refused)
        raise Unreachable(
            "the branch moves faster than commits can be built", backend="git", operation="commit"
        )

    async def changed_paths(self, old: str, new: str) -> frozenset[DocPath] | None:
        """Return the documents that differ between two commits, None where one is not here."""
        await trio.lowlevel.checkpoint()
        try:
            old_tree = self.repository.tree_of(ObjectId(old))
            new_tree = self.repository.tree_of(ObjectId(new))
        except NotFound:
            return None
        changes = await self.diff(old_tree, new_tree)
        return frozenset(change.path for change in changes)

    async def aclose(self) -> None:
        """Give back descriptors."""
        self.contents.close()
        await trio.lowlevel.checkpoint()

    # --- the finer steps

    async def build(self, change_set: ChangeSet, parent: ObjectId | None) -> BuiltCommit:
        """Make the commit of `change_set` on `parent`, objects on disk, no reference moved.

        Contents that the repository has are not read from the source. Equal arguments give the same commit,
        so a build that was interrupted can be repeated. A commit is made even where nothing changes.

        Raises:
            Unreachable: the disk did not take it.
            Corrupt, NotFound: `parent` or its tree cannot be read.
        """
        return await self.build_merge(change_set, () if parent is None else (parent,))

    async def build_merge(self, change_set: ChangeSet, parents: Sequence[ObjectId]) -> BuiltCommit:
        """As `build`, with several parents; the changes apply to the first one's tree."""
        parent = parents[0] if parents else None
        if self._writer.packs_written > _UPKEEP_PACKS:
            await self.maintain()
        async with self._lock:
            self.repository.check_same()
            base = self.repository.tree_of(parent)
            damaged, fresh = await self._store_contents(change_set.changes)
            refused = [(lost.path, lost.reason) for lost in damaged]
            gone = dict(refused)
            kept = [change for change in change_set.changes if change.path not in gone]
            tree, objects = await self._edit(base, kept, refused, fresh)
            raw = format_commit(tree, parents, change_set.author, change_set.message)
            commit = new_object(b"commit", raw)
            await self._writer.write([*fresh.values(), *objects, commit])
        return BuiltCommit(commit.oid, tree, parent, tuple(refused), tuple(damaged))

    async def advance(self, built: BuiltCommit, expected: ObjectId | None) -> None:
        """Move the branch from `expected` to the built commit, on disk when this returns.

        Raises:
            RevisionConflict: the branch is elsewhere: somebody pushed.
            Unreachable: the reference cannot be written.
        """
        await self.move_refs([RefUpdate(self.repository.branch_ref, built.commit, expected)])

    async def move_ref(self, name: str, new: ObjectId | None, expected: ObjectId | None) -> None:
        """Move one reference by compare and swap; None: it does not exist. Raises as `advance`."""
        await self.move_refs([RefUpdate(name, new, expected)])

    async def move_refs(self, updates: Sequence[RefUpdate]) -> None:
        """Move references together; raises as `advance`, and then none has moved.

        Raises:
            NotFound: one would point at what is not here.
        """
        self.repository.check_same()
        for update in updates:
            if update.new is not None and not self.repository.reader.exists(update.new):
                raise NotFound(f"object {update.new} is not in the repository")
        for wait_s in _LOCK_WAITS_S:
            try:
                await self._in_thread(self.repository.refs.update_all, updates)
            except RefLocked:
                # Whoever holds a reference's lock says nothing when it lets go: there is no event to wait for.
                await trio.sleep(wait_s)
                continue
            return
        await self._in_thread(self._remove_stale_locks, updates)
        await self._in_thread(self.repository.refs.update_all, updates)

    async def write_objects(self, objects: Sequence[NewObject]) -> None:
        """Make objects durable that are no documents', but for blobs that are here already; raises as `build`."""
        async with self._lock:
            missing = [item for item in objects if not self._writer.freshen(item.oid)]
            await self._writer.write(missing)

    async def maintain(self) -> bool:
        """Repack where that is due, and return whether it was done; for an idle moment.

        Saves may go on meanwhile. Without idle moments `build` calls it every 128 packs. A repository that is not written to is left alone.
        """
        self._writer.packs_written = 0
        due = await self._in_thread(needs_repack, self.repository.write_dir)
        if not due or self.repository.object_dir is not None:
            return False
        try:
            await repack(self.repository.git_dir)
        except StoreError as exc:
            log.warning("repacking failed, the repository works on but slower: %s", exc)
            return False
        return True

    async def diff(self, old_tree: ObjectId, new_tree: ObjectId) -> list[Change]:
        """Return `diff_trees` of two trees, in a thread."""
        return await self._in_thread(
            lambda: diff_trees(self.repository.new_reader(), old_tree, new_tree)
        )

    # --- parts of the above

    async def _store_contents(
        self, changes: Sequence[Change]
    ) -> tuple[list[DamagedContent], dict[ObjectId, NewObject]]:
        """Make the contents durable that are not here yet, but for the last small ones.

        Returns:
            Documents whose content cannot be had, and the blobs that the caller writes with its trees.
        """
        damaged: list[DamagedContent] = []
        fresh: dict[ObjectId, NewObject] = {}
        waiting_bytes = 0
        for change in changes:
            if change.after is None or change.after.oid in fresh:
                continue
            oid = change.after.oid
            if self._writer.freshen(oid):
                continue
            try:
                item = await self._take(oid)
            except (NotFound, Corrupt) as exc:
                damaged.append(DamagedContent(change.path, oid, str(exc)))
                continue
            if item is None:
                continue
            fresh[oid] = item
            waiting_bytes += len(item.data)
            if waiting_bytes > _BATCH_BYTES:
                await self._writer.write(list(fresh.values()))
                fresh.clear()
                waiting_bytes = 0
        return damaged, fresh

    async def _take(self, oid: ObjectId) -> NewObject | None:
        """Return a blob from the source; None when it was large and is written already."""
        size = await self._source.size(oid)
        if size > STREAM_ABOVE_BYTES:
            await self._writer.write_large(oid, size, self._source)
            return None
        content = await self._source.read(oid)
        if blob_id(content) != oid:
            raise Corrupt(f"the content of {oid} is not what its id says", backend="git")
        return NewObject(b"blob", oid, content)

    async def _edit(
        self,
        base: ObjectId,
        changes: list[Change],
        refused: list[tuple[DocPath, str]],
        fresh: dict[ObjectId, NewObject],
    ) -> tuple[ObjectId, list[NewObject]]:
        """Edit the tree, leaving out and noting in `refused` what it cannot hold."""
        pending = {oid: item.data for oid, item in fresh.items()}
        while True:
            await trio.lowlevel.checkpoint()
            try:
                return edit_tree(self.repository.reader, base, changes, pending=pending)
            except Refused as exc:
                # Not always a change's own path: of what lies below a submodule it is the submodule's.
                unfit = [change for change in changes if _is_within(change.path, exc.path)]
                if not unfit:
                    raise Corrupt(f"a tree cannot be edited: {exc}", backend="git") from exc
                refused += [(c.path, exc.reason) for c in unfit if c.after is not None]
                left_out = {change.path for change in unfit}
                changes = [change for change in changes if change.path not in left_out]

    def _load_operations(self, head: ObjectId | None) -> _Known:
        history = CommitLog(self.repository.new_reader())
        recent = itertools.islice(history.newest(head), _OPERATION_SEARCH_DEPTH)
        return _Known(head, {record.operation_id for record in recent})

    def _newest_revisions(self, head: ObjectId | None, limit: int) -> tuple[Revision, ...]:
        history = CommitLog(self.repository.new_reader())
        return tuple(_revision(record) for record in itertools.islice(history.newest(head), limit))

    def _list_documents(self, tree: ObjectId) -> dict[DocPath, Entry]:
        reader = self.repository.new_reader()
        return {
            path: Entry(entry.mode, entry.oid, reader.size(entry.oid))
            for path, entry in reader.walk(tree)
            if _is_document(entry)
        }

    def _remove_stale_locks(self, updates: Sequence[RefUpdate]) -> None:
        for name in (*(update.name for update in updates), "packed-refs"):
            self.repository.refs.remove_stale_lock(name, time.time())

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._threads)


def _is_within(path: DocPath, directory: bytes | None) -> bool:
    return directory is not None and (path == directory or path.startswith(directory + b"/"))


def _is_document(entry: TreeEntry) -> bool:
    return entry.mode not in (GitMode.DIRECTORY, GitMode.GITLINK)


def _revision(record: CommitRecord) -> Revision:
    return Revision(
        id=record.oid,
        message=record.message,
        author_name=record.author.name,
        author_email=record.author.email,
        time_ns=record.committer.time_ns,
        parent=record.parents[0] if record.parents else None,
    )
