"""Takes in what somebody else committed to govc: reads it, merges it, publishes it to git, tells the mount.

Used by `sync.follower`. All of it happens under `Published.lock` and `GovcStore.lock`, taken in this order.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from caiafs.backends.base import Revision
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.pack import NewObject
from caiafs.backends.git.writer import STREAM_ABOVE_BYTES
from caiafs.core.errors import Absent, Corrupt
from caiafs.core.types import (
    Change,
    ChangeSet,
    DocPath,
    Entry,
    ObjectId,
    Signature,
    blob_id,
    display,
)
from caiafs.store.cursors import Cursor
from caiafs.store.govc_store import GovcStore
from caiafs.store.trailers import NamedChange, named_changes, writer_of
from caiafs.sync.conflict_notes import trailers_of
from caiafs.sync.contents import Contents
from caiafs.sync.foreign_message import author_of, message_of
from caiafs.sync.merge import Side
from caiafs.sync.merged_versions import build_keeping, versions_onto
from caiafs.sync.published import Published
from caiafs.sync.pushes import Pushes
from caiafs.sync.tree_merge import merge_changes, with_clashing
from caiafs.sync.view import TreeView

log = logging.getLogger(__name__)

READ_STEP = 200
HELD_MAX_BYTES = 32 << 20
_KNOWN_MAX = 20_000


@dataclass(frozen=True, slots=True)
class ForeignNews:
    """What was taken in: paths that changed in the published tree, copies made."""

    changes: tuple[Change, ...] = ()
    conflicts: int = 0


class _Paths(NamedTuple):
    """Paths to look at in govc.

    Attributes:
        named: a foreign commit names them.
        also: somebody wants them looked at.
        overwritten: see `ForeignCommits._overwritten`.
    """

    named: set[DocPath]
    also: set[DocPath]
    overwritten: dict[DocPath, ObjectId | None]


class _Sides(NamedTuple):
    """Two diffs of one base, and which comes later in govc's log."""

    ours: list[Change]
    theirs: list[Change]
    later: Side


class ForeignCommits:
    """Reads govc's log and takes in what is not ours."""

    def __init__(
        self,
        govc: GovcStore,
        git: GitBackend,
        published: Published,
        pushes: Pushes,
        contents: Contents,
        *,
        writer_id: str,
    ) -> None:
        self._govc = govc
        self._git = git
        self._published = published
        self._pushes = pushes
        self._contents = contents
        self._writer_id = writer_id
        self.conflicts = 0

    async def is_all_ours(self) -> bool:
        """Look at govc's newest commits; note them and return True where none is somebody else's."""
        async with self._govc.lock:
            cursor = self._govc.cursor
            if cursor is None or not self._govc.is_connected:
                return True
            since = await self._govc.new_revisions()
            if since is None or self._foreign(since):
                return False
            await self._note_seen(cursor, since)
            return True

    async def take(self, also: Iterable[DocPath] = ()) -> ForeignNews:
        """Take in what is new in govc, and look at the paths in `also`; with `Published.lock` held.

        What is missing at a path that no foreign commit names was lost there, not deleted.
        """
        async with self._govc.lock:
            cursor = self._govc.cursor
            if cursor is None or not self._govc.is_connected:
                return ForeignNews()
            since = await self._govc.new_revisions()
            if since is None:
                # It lost its head: catch-up finds out when it connects again.
                self._govc.lose("govc came back with another state")
                return ForeignNews()
            foreign = self._foreign(since)
            named = await self._changed_paths(cursor, since, foreign) if foreign else set()
            overwritten = self._overwritten(cursor, foreign)
            news = await self._take_paths(
                cursor, _Paths(named, set(also) - named, overwritten), foreign
            )
            await self._note_seen(self._govc.cursor or cursor, since)
            return news

    def _foreign(self, since: Sequence[Revision]) -> list[Revision]:
        return [revision for revision in since if writer_of(revision.message) != self._writer_id]

    async def _note_seen(self, cursor: Cursor, since: Sequence[Revision]) -> None:
        if not since:
            return
        newest = since[0].id
        await self._govc.move_cursor(replace(cursor, head=newest, newest=newest), save=False)

    def _overwritten(
        self, cursor: Cursor, foreign: Sequence[Revision]
    ) -> dict[DocPath, ObjectId | None]:
        """Return paths where somebody wrote over ours without having seen it, and what they saw.

        govc compares nothing: of two that save at once the later one wins there, and shows no
        older version. Only who was overwritten has the other content, so he brings it back.
        """
        reader = self._git.repository.reader
        first: dict[DocPath, NamedChange] = {}
        for revision in reversed(foreign):
            for change in named_changes(revision.message) or ():
                first.setdefault(change.path, change)
        found: dict[DocPath, ObjectId | None] = {}
        for path, change in first.items():
            known = reader.entry_at(cursor.tree, path)
            if known is None or known.is_dir or known.oid in {change.before, change.after}:
                continue
            found[path] = change.before
        return found

    # --- which paths

    async def _changed_paths(
        self, cursor: Cursor, since: Sequence[Revision], foreign: Sequence[Revision]
    ) -> set[DocPath]:
        """Return the paths that foreign commits may have changed."""
        paths: set[DocPath] = set()
        unnamed: list[Revision] = []
        for revision in foreign:
            named = named_changes(revision.message)
            if named is None:
                unnamed.append(revision)
            else:
                paths.update(change.path for change in named)
        if unnamed or (cursor.head is None and since[-1].parent is not None):
            paths |= await self._unnamed_paths(cursor, since)
        return paths

    async def _unnamed_paths(self, cursor: Cursor, since: Sequence[Revision]) -> set[DocPath]:
        if cursor.head is not None:
            old, new = cursor.head, since[0].id
            changed = await self._govc.call(
                "diff",
                lambda: self._govc.backend.changed_paths(old, new),
                timeout_s=self._govc.deadline_s(100, 0),
            )
            if changed is not None:
                return set(changed)
        listing = await self._govc.call(
            "list", self._govc.backend.listing, timeout_s=self._govc.deadline_s(5000, 0)
        )
        known = self._known_paths(cursor.tree)
        return known | set(listing.entries)

    def _known_paths(self, tree: ObjectId) -> set[DocPath]:
        """Return what govc is known to hold, bounded: the real server shows no more than we ask for."""
        found: set[DocPath] = set()
        for path, _ in self._git.repository.reader.walk(tree):
            found.add(path)
            if len(found) >= _KNOWN_MAX:
                log.warning("too many documents to look at each; `caiafs fetch` names the others")
                break
        return found

    # --- taking them

    async def _take_paths(
        self,
        cursor: Cursor,
        look_at: "_Paths",
        foreign: Sequence[Revision],
    ) -> ForeignNews:
        theirs: list[Change] = []
        named = look_at.named
        paths = sorted(named | look_at.also)
        for start in range(0, len(paths), READ_STEP):
            found = await self._read_step(cursor.tree, paths[start : start + READ_STEP])
            theirs += [change for change in found if change.after or change.path in named]
        if not theirs:
            return ForeignNews()
        try:
            return await self._merge(cursor, theirs, look_at.overwritten, foreign)
        finally:
            self._contents.release()

    async def _read_step(self, tree: ObjectId, paths: Sequence[DocPath]) -> list[Change]:
        """Return what differs at `paths` between govc and the cursor's tree, contents held."""
        there = await self._govc.current(paths)
        reader = self._git.repository.reader
        # The server may give one request another's answer: nothing is gone because it said so once.
        gone = [path for path in paths if there.get(path) is None and reader.entry_at(tree, path)]
        if gone:
            there |= await self._govc.current(gone)
        found = []
        for path in paths:
            item = reader.entry_at(tree, path)
            known = item is not None and not item.is_dir
            before = Entry(int(item.mode), item.oid) if item is not None and known else None
            after = there.get(path)
            if after is None and before is None:
                continue
            if (after is not None and not after.oid) or (before and before.same_content(after)):
                continue
            if after is not None and not reader.exists(after.oid):
                after = await self._fetch(path, after)
                if after is None:
                    continue
            found.append(Change(path, before, after))
        return found

    async def _fetch(self, path: DocPath, told: Entry) -> Entry | None:
        """Read a document's content and hold it; None where that makes no sense."""
        try:
            if told.size_bytes > STREAM_ABOVE_BYTES:
                return await self._govc.call(
                    "read",
                    lambda: self._contents.fetch(
                        told.oid, lambda file: self._govc.backend.read_to(path, file)
                    ),
                    timeout_s=self._govc.deadline_s(1, told.size_bytes),
                )
            document = await self._govc.call(
                "read",
                lambda: self._govc.backend.read(path),
                timeout_s=self._govc.deadline_s(1, 64 << 20),
            )
        except (Corrupt, Absent) as exc:
            log.warning("a document in govc cannot be read: %s", exc)
            return None
        if document is None:
            return None
        if blob_id(document.content) != document.entry.oid:
            log.warning("govc gave %s with a content that is not its own", display(path))
            return None
        self._contents.hold({document.entry.oid: document.content})
        if self._contents.held_bytes > HELD_MAX_BYTES:
            await self._store_held()
        return document.entry

    async def _store_held(self) -> None:
        """Put what was fetched so far into git, where the commit finds it: a whole collection is more than memory."""
        held = self._contents.give_up()
        await self._git.write_objects(
            [NewObject(b"blob", oid, content) for oid, content in held.items()]
        )

    async def _merge(
        self,
        cursor: Cursor,
        theirs: list[Change],
        overwritten: Mapping[DocPath, ObjectId | None],
        foreign: Sequence[Revision],
    ) -> ForeignNews:
        published = self._published
        reader = self._git.repository.reader
        diff = await self._git.diff(cursor.tree, published.tree)
        ours = with_clashing(reader, published.tree, diff, theirs)
        newest = max((revision.time_ns for revision in foreign), default=0)
        sides = self._sides(ours, theirs, overwritten)
        results = [
            merge_changes(
                self._contents,
                side.ours,
                side.theirs,
                ours_time_ns=self._commit_time_ns(),
                theirs_time_ns=newest,
                later=side.later,
            )
            for side in sides
        ]
        onto_ours = tuple(
            sorted((c for result in results for c in result.onto_ours), key=lambda c: c.path)
        )
        copies = [conflict.copy_path for result in results for conflict in result.conflicts]
        author = Signature(*author_of(foreign), newest)
        seen = ChangeSet("", author, "", _holdable(TreeView(reader, cursor.tree), theirs))
        if onto_ours:
            found = [conflict for result in results for conflict in result.conflicts]
            text = message_of(onto_ours, foreign, trailers_of(found))
            change_set = ChangeSet("", author, text, onto_ours)
            before = published.tree
            known = {c.after.oid for c in (*ours, *theirs) if c.after is not None}
            texts = {c.path for c in onto_ours if c.after is not None and c.after.oid not in known}
            saved = [(c.path, c.after) for c in theirs if c.path in texts and c.after is not None]
            versions = versions_onto(reader, before, saved)
            built = await build_keeping(self._git, change_set, published.commit, versions)
            await self._git.advance(built, published.commit)
            self.conflicts += len(copies)
            await self._pushes.go_to(built.commit, time_ns=newest, conflicts=copies)
        await self._govc.advance_cursor(cursor, seen, save=True)
        moved = self._govc.cursor
        if moved is not None and moved.tree == published.tree:
            await self._govc.move_cursor(replace(moved, published=published.commit), save=True)
        return ForeignNews(onto_ours, len(copies))

    def _sides(
        self,
        ours: Sequence[Change],
        theirs: Sequence[Change],
        overwritten: Mapping[DocPath, ObjectId | None],
    ) -> list["_Sides"]:
        """Return what to merge with what: theirs before ours, and theirs written over ours."""
        reader = self._git.repository.reader
        over: list[Change] = []
        under: list[Change] = []
        for change in theirs:
            entry = reader.entry_at(self._published.tree, change.path)
            if change.path not in overwritten or entry is None or entry.is_dir:
                continue
            seen = overwritten[change.path]
            base = Entry(int(entry.mode), seen) if seen is not None else None
            over.append(Change(change.path, base, change.after))
            under.append(Change(change.path, base, Entry(int(entry.mode), entry.oid)))
        apart = {change.path for change in over}
        # Theirs is in govc's log already, ours will come after it.
        plain = _Sides(
            [change for change in ours if change.path not in apart],
            [change for change in theirs if change.path not in apart],
            Side.OURS,
        )
        return [plain, _Sides(under, over, Side.THEIRS)]

    def _commit_time_ns(self) -> int:
        commit = self._published.commit
        return 0 if commit is None else self._git.log_of.commit(commit).author.time_ns


def _holdable(view: TreeView, theirs: Sequence[Change]) -> tuple[Change, ...]:
    """Return `theirs` without what lies below a document: a tree cannot say that govc holds both."""
    for change in theirs:
        if change.after is None:
            view.set(change.path, None)
    return tuple(c for c in theirs if c.after is None or view.document_above(c.path) is None)
