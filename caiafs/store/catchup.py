"""Brings govc up to date: after an outage, behind git as the primary, or from nothing.

One task of the store process. Few commits are sent one by one, so that the history there is the history here; many, or
a server that came back empty, as one difference in batches, what is saved meanwhile first. Nothing that is missing
there is ever read as a deletion.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import trio
import trio.lowlevel

from caiafs.backends.base import Revision
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.log import CommitRecord
from caiafs.core.errors import CaiaError, Misconfigured, Unreachable
from caiafs.core.types import EMPTY_TREE, Change, ChangeSet, DocPath, Entry, ObjectId, Signature
from caiafs.store.cursors import Cursor
from caiafs.store.govc_store import GovcStore
from caiafs.store.meeting import Meeting, decide_meeting
from caiafs.store.pieces import BATCH_BYTES, BATCH_DOCUMENTS, plan_pieces
from caiafs.store.trailers import operation_of, with_operation

log = logging.getLogger(__name__)

REPLAY_MAX_COMMITS = 200
_MET_SEARCH_GOVC = 64
_MET_SEARCH_GIT = 4096
_UNMET_PAUSE_S = 10.0
_FAILURE_PAUSE_S = 5.0
UNMET = (
    "govc and git both hold documents and have never met: git alone is used; "
    "`caiafs adopt` merges them"
)


class Branch(Protocol):
    """The published branch."""

    commit: ObjectId | None
    tree: ObjectId

    async def wait_moved(self) -> None:
        """Wait until it moves."""
        ...


class CatchUp:
    """Keeps govc's tree at the branch's."""

    def __init__(
        self,
        govc: GovcStore,
        git: GitBackend,
        branch: Branch,
        *,
        writer_id: str,
        author: Callable[[], Signature],
        take_foreign: Callable[[Iterable[DocPath]], Awaitable[None]],
        differing: Callable[[ObjectId], int | None] = lambda _tree: None,
    ) -> None:
        self._govc = govc
        self._git = git
        self._branch = branch
        self._writer_id = writer_id
        self._author = author
        self._take_foreign = take_foreign
        self._differing = differing
        self._left: int | None = None
        self.progress: Callable[[], None] = lambda: None

    @property
    def is_current(self) -> bool:
        """Whether govc holds what the branch holds."""
        cursor = self._govc.cursor
        return self._govc.is_connected and cursor is not None and cursor.tree == self._branch.tree

    def documents_left(self) -> int:
        """Return how many documents govc lacks, 1 where it is not counted yet."""
        if self.is_current:
            return 0
        cursor = self._govc.cursor
        counted = None if cursor is None else self._differing(cursor.tree)
        return counted or self._left or 1

    async def run(self) -> None:
        """Bring govc up to date whenever it is not, for ever."""
        while True:
            try:
                if not self._govc.is_connected:
                    await self._connect()
                elif not self.is_current and not self._govc.ahead:
                    await self._step()
                else:
                    await self._wait_work()
            except (Unreachable, Misconfigured):
                await trio.sleep(self._govc.pause_s)
            except CaiaError as exc:
                if str(exc) != self._govc.problem:
                    log.warning("bringing govc up to date failed: %s", exc)
                self._govc.lose(str(exc))
                await trio.sleep(_FAILURE_PAUSE_S)
            except Exception:  # a bug here must not stop saves
                log.exception("bringing govc up to date broke")
                self._govc.lose("an internal error; see the log")
                await trio.sleep(_FAILURE_PAUSE_S)
            self.progress()

    async def _wait_work(self) -> None:
        """Wait until the branch moves or the connection is lost; what is done gets written down."""
        await self._govc.save_cursor()
        # A lost connection shows at the follower's next poll, which is soon.
        with trio.move_on_after(0.5):
            await self._branch.wait_moved()
            # The publisher may be about to say itself that govc has it.
            await trio.lowlevel.checkpoint()

    # --- meeting

    async def _connect(self) -> None:
        govc = self._govc
        await govc.connect()
        async with govc.lock:
            if govc.cursor is None and not await self._meet():
                await trio.sleep(_UNMET_PAUSE_S)
                return
            assert govc.cursor is not None, "they have met"
            since = await govc.new_revisions()
            if since is None:
                log.warning("govc lost what it had; it is filled again from git")
                newest = await govc.call("head", govc.backend.head, timeout_s=10)
                await govc.drop_cursor(Cursor(head=newest, newest=newest))
            else:
                govc.cursor = self._fast_forward(govc.cursor, since)
            govc.use()
            await self._retry_refused(govc.cursor)

    async def _retry_refused(self, cursor: Cursor) -> None:
        """Send again what govc refused before: it, or its configuration, may be another by now."""
        reader = self._git.repository.reader
        again: list[Change] = []
        for path, refused in cursor.refused.items():
            found = reader.entry_at(cursor.tree, path)
            if found is not None and found.oid == refused.oid:
                again.append(Change(path, None, Entry(int(found.mode), found.oid)))
        if again:
            operation_id = self._piece_id(again)
            text = f"Bring {len(again)} documents up to date\n"
            await self._send_pieces(again, operation_id, self._author(), text)

    def _fast_forward(self, cursor: Cursor, since: Iterable[Revision]) -> Cursor:
        """Return the cursor moved to the newest commit of ours that govc's log shows and the branch has.

        It is not written at every group, so after a crash govc is ahead of it.
        """
        there = {str(found) for r in since if (found := operation_of(r.message)) is not None}
        if not there:
            return cursor
        for _, record in zip(
            range(_MET_SEARCH_GIT), self._git.log_of.newest(self._branch.commit), strict=False
        ):
            if record.oid == cursor.published:
                break
            found = operation_of(record.message)
            if found is not None and str(found) in there:
                return replace(cursor, tree=record.tree, published=record.oid)
        return cursor

    async def _meet(self) -> bool:
        """Decide whether two stores without a cursor belong together."""
        govc = self._govc
        newest = await govc.call("log", lambda: govc.backend.log(_MET_SEARCH_GOVC), timeout_s=10)
        decision = decide_meeting(
            govc_is_empty=not newest,
            git_is_empty=self._branch.tree == EMPTY_TREE,
            shares_history=self._shares_history([revision.message for revision in newest]),
        )
        govc.unmet = UNMET if decision is Meeting.ADOPT else ""
        govc.changed()
        if decision is Meeting.ADOPT:
            return False
        govc.cursor = Cursor()
        if decision is Meeting.KNOWN:
            govc.cursor = Cursor(head=newest[0].id, newest=newest[0].id)
        return True

    def _shares_history(self, messages: Iterable[str]) -> bool:
        theirs = {str(found) for text in messages if (found := operation_of(text)) is not None}
        if not theirs:
            return False
        ours = self._git.log_of.newest(self._branch.commit)
        for _, record in zip(range(_MET_SEARCH_GIT), ours, strict=False):
            found = operation_of(record.message)
            if found is not None and str(found) in theirs:
                return True
        return False

    # --- sending

    async def _step(self) -> None:
        govc = self._govc
        async with govc.lock:
            cursor = govc.cursor
            assert cursor is not None, "it is connected"
            if govc.ahead or cursor.tree == self._branch.tree:
                return
            foreign: set[DocPath] = set()
            if not await govc.has_moved():
                govc.sending = True
                try:
                    foreign = await self._send(cursor)
                finally:
                    govc.sending = False
                if not foreign:
                    return
        await self._take_foreign(foreign)

    async def _send(self, cursor: Cursor) -> set[DocPath]:
        """Send what govc lacks; return paths where it has what we never saw, and stop there."""
        commits = self._commits_to_replay(cursor)
        if commits is None:
            return await self._send_difference()
        await self._replay(commits)
        return set()

    def _commits_to_replay(self, cursor: Cursor) -> list[CommitRecord] | None:
        """Return the commits that govc lacks, oldest first; None where a difference serves better."""
        head = self._branch.commit
        history = self._git.log_of
        base = cursor.published
        if base is None and (cursor.tree != EMPTY_TREE or cursor.head is not None):
            return None
        if base is not None and (head is None or not history.is_ancestor(base, head)):
            return None
        if base is not None and history.commit(base).tree != cursor.tree:
            return None
        found: list[CommitRecord] = []
        oid: ObjectId | None = head
        while oid != base and oid is not None:
            if len(found) >= REPLAY_MAX_COMMITS:
                return None
            record = history.commit(oid)
            found.append(record)
            oid = record.parents[0] if record.parents else None
        return found[::-1] if oid == base else None

    async def _replay(self, commits: Sequence[CommitRecord]) -> None:
        """Send commits one by one, as they are."""
        self._left = len(commits)
        for record in commits:
            cursor = self._govc.cursor
            assert cursor is not None, "it is connected"
            changes = await self._git.diff(cursor.tree, record.tree)
            operation_id = self._operation_id(record)
            await self._send_pieces(changes, operation_id, record.author, record.message)
            cursor = replace(self._govc.cursor or cursor, tree=record.tree, published=record.oid)
            await self._govc.move_cursor(cursor, save=False)
            self._left -= 1
            self.progress()
            if await self._govc.has_moved():
                return

    def _operation_id(self, record: CommitRecord) -> str:
        operation = operation_of(record.message)
        return str(operation) if operation is not None else f"{self._writer_id}-git-{record.oid}"

    async def _send_pieces(
        self, changes: Sequence[Change], operation_id: str, author: Signature, message: str
    ) -> None:
        pieces = plan_pieces(changes, [await self._size_of(change) for change in changes])
        for number, piece in enumerate(pieces, start=1):
            piece_id, text = operation_id, message
            if number < len(pieces):
                piece_id = self._piece_id(piece.changes)
                subject = message.partition("\n")[0]
                text = f"{subject} (part {number} of {len(pieces)})\n"
            change_set = ChangeSet(piece_id, author, with_operation(text, piece_id), piece.changes)
            await self._govc.commit(change_set, piece.size_bytes)

    async def _send_difference(self) -> set[DocPath]:
        """Send what differs, in batches; return paths where govc has what we never saw, and stop there."""
        target = self._branch.tree
        target_commit = self._branch.commit
        cursor = self._govc.cursor
        assert cursor is not None, "it is connected"
        waiting = {change.path: change for change in await self._git.diff(cursor.tree, target)}
        if not waiting:
            await self._govc.move_cursor(
                replace(cursor, tree=target, published=target_commit), save=True
            )
            return set()
        first: list[DocPath] = []
        log.info("govc lacks %d documents", len(waiting))
        while waiting:
            self._left = len(waiting)
            self.progress()
            foreign = await self._send_batch(waiting, first)
            if foreign:
                return foreign
            if self._branch.tree != target:
                for change in await self._git.diff(target, self._branch.tree):
                    before = (
                        waiting[change.path].before if change.path in waiting else change.before
                    )
                    waiting[change.path] = Change(change.path, before, change.after)
                    first.append(change.path)
                target, target_commit = self._branch.tree, self._branch.commit
        cursor = self._govc.cursor or cursor
        if cursor.tree == target:
            await self._govc.move_cursor(replace(cursor, published=target_commit), save=True)
        return set()

    async def _send_batch(
        self, waiting: dict[DocPath, Change], first: list[DocPath]
    ) -> set[DocPath]:
        """Send one batch out of `waiting`, live saves (`first`) first."""
        batch: list[Change] = []
        sizes: list[int] = []
        for path in (*first, *waiting):
            if len(batch) >= BATCH_DOCUMENTS or sum(sizes) > BATCH_BYTES:
                break
            if path in waiting and all(path != change.path for change in batch):
                batch.append(waiting[path])
                sizes.append(await self._size_of(waiting[path]))
        there = await self._govc.call(
            "read",
            lambda: self._govc.backend.current([change.path for change in batch]),
            timeout_s=self._govc.deadline_s(len(batch), sum(sizes)),
        )
        foreign = {c.path for c in batch if self._is_foreign(c, there.get(c.path))}
        if foreign:
            return foreign
        to_send = tuple(c for c in batch if not _holds(there.get(c.path), c.after))
        if to_send:
            operation_id = self._piece_id(to_send)
            plural = "s" if len(to_send) > 1 else ""
            text = f"Bring {len(to_send)} document{plural} up to date\n"
            change_set = ChangeSet(
                operation_id, self._author(), with_operation(text, operation_id), to_send
            )
            await self._govc.commit(change_set, sum(sizes))
        cursor = self._govc.cursor
        assert cursor is not None, "it is connected"
        done = ChangeSet("", self._author(), "", tuple(batch))
        await self._govc.advance_cursor(cursor, done, save=True)
        for change in batch:
            del waiting[change.path]
        first[:] = [path for path in first if path in waiting]
        return set()

    def _is_foreign(self, change: Change, there: Entry | None) -> bool:
        """Whether govc has a content at this path that was never ours."""
        if there is None or not there.oid or _holds(there, change.after):
            return False
        if change.before is not None and there.oid == change.before.oid:
            return False
        return not self._git.repository.reader.exists(there.oid)

    async def _size_of(self, change: Change) -> int:
        if change.after is None:
            return 0
        if change.after.size_bytes >= 0:
            return change.after.size_bytes
        return self._git.repository.reader.size(change.after.oid)

    def _piece_id(self, changes: Iterable[Change]) -> str:
        digest = hashlib.sha1()
        for change in changes:
            before = change.before.oid if change.before else "-"
            after = f"{change.after.mode:o} {change.after.oid}" if change.after else "-"
            digest.update(b"%s\0%s\0%s\n" % (change.path, before.encode(), after.encode()))
        # The head makes two identical steps at different times two operations.
        digest.update(repr(self._govc.cursor.newest if self._govc.cursor else None).encode())
        return f"{self._writer_id}-diff-{digest.hexdigest()[:20]}"


def _holds(there: Entry | None, wanted: Entry | None) -> bool:
    return there is None if wanted is None else wanted.same_content(there)
