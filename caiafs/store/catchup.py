"""Brings govc up to date: after an outage, behind git as the primary, or from nothing.

One task of the store process. Few commits are sent one by one, so that the history there is the history here; many, or
a server that came back empty, as one difference in batches, what is saved meanwhile first. Nothing that is missing
there is ever read as a deletion.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import trio
import trio.lowlevel

from caiafs.backends.base import Revision
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.log import CommitRecord
from caiafs.core.errors import CaiaError, Misconfigured, Unreachable
from caiafs.core.types import EMPTY_TREE, Change, DocPath, ObjectId, Signature
from caiafs.store.batches import Batches
from caiafs.store.cursors import Cursor
from caiafs.store.govc_store import GovcStore
from caiafs.store.meeting import Meeting, decide_meeting
from caiafs.store.reconnection import look_again
from caiafs.store.refusals import Refusals
from caiafs.store.trailers import operation_of, writer_of

log = logging.getLogger(__name__)

REPLAY_MAX_COMMITS = 200
_MET_SEARCH_GOVC = 64
_MET_SEARCH_GIT = 4096
_UNMET_PAUSE_S = 10.0
_FUTILE_PAUSE_S = 1.0
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
        self.batches = Batches(govc, git, writer_id=writer_id, author=author)
        self._refusals = Refusals()
        self._asked = 0
        self._adopts = trio.Event()
        self._left: int | None = None
        self.in_background = True
        """False: only while somebody asks for it (enable_sync=false)."""
        self.progress: Callable[[], None] = lambda: None

    @property
    def is_current(self) -> bool:
        """Whether govc holds what the branch holds; while something is being sent, nobody knows."""
        govc = self._govc
        if govc.cursor is None or govc.sending or not govc.is_connected:
            return False
        return govc.cursor.tree == self._branch.tree

    @property
    def is_wanted(self) -> bool:
        """Whether govc is to be brought up to date now."""
        return self.in_background or self._asked > 0

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Bring it up to date within the body, whatever the settings."""
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    def adopt(self) -> None:
        """A person said that both belong together: merge two collections that never met."""
        self._adopts.set()

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
                elif self.is_wanted and not self.is_current and not self._govc.ahead:
                    await self._step()
                elif self.is_wanted and (refused := self._due_refusals()):
                    await self._retry_refused(refused)
                else:
                    await self._wait_work()
            except (Unreachable, Misconfigured):
                await trio.sleep(self._govc.pause_s)
            except CaiaError as exc:
                if str(exc) != self._govc.problem:
                    log.warning("bringing govc up to date failed: %s", exc)
                self._govc.lose(str(exc))
                await trio.sleep(self._govc.reset_s)
            except Exception:  # a bug here must not stop saves
                log.exception("bringing govc up to date broke")
                self._govc.lose("an internal error; see the log")
                await trio.sleep(self._govc.reset_s)
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
                with trio.move_on_after(_UNMET_PAUSE_S):
                    await self._adopts.wait()
                return
            assert govc.cursor is not None, "they have met"
            since = await govc.new_revisions()
            if since is None:
                log.warning("govc lost what it had; it is filled again from git")
                newest = await govc.call("head", govc.backend.head, timeout_s=10)
                await govc.drop_cursor(Cursor(head=newest, newest=newest))
            else:
                cursor = self._fast_forward(govc.cursor, since)
                govc.cursor = await look_again(
                    govc, self._git, cursor, since, writer_id=self._writer_id
                )
            govc.use()
            self._refusals.begin(govc.cursor.refused)
            self._refusals.begin_again()

    def _due_refusals(self) -> list[DocPath]:
        cursor = self._govc.cursor
        if cursor is None or self._govc.ahead:
            return []
        return self._refusals.due(cursor.refused, trio.current_time())

    async def _retry_refused(self, paths: list[DocPath]) -> None:
        """Send again what govc refused before: it, or its configuration, may be another by now, or it was a mistake."""
        govc = self._govc
        self._refusals.tried(paths, trio.current_time())
        async with govc.lock:
            cursor = govc.cursor
            if cursor is None or govc.ahead or not self.is_current or await govc.has_moved():
                return
            _, foreign = await self.batches.send_again(cursor, paths)
        if foreign:
            await self._take_foreign(foreign)

    def _fast_forward(self, cursor: Cursor, since: Iterable[Revision]) -> Cursor:
        """Return the cursor moved to the newest commit of ours that govc's log shows and the branch has.

        It is not written at every group, so after a crash govc is ahead of it.
        """
        there = {
            str(found)
            for revision in since
            # Others' operations came here in commits of ours that hold more than theirs.
            if (found := operation_of(revision.message)) is not None
            and found.writer_id == self._writer_id
        }
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
        stays_apart = decision is Meeting.ADOPT and not self._adopts.is_set()
        govc.unmet = UNMET if stays_apart else ""
        govc.changed()
        if govc.unmet:
            return False
        govc.cursor = Cursor()
        if decision is Meeting.KNOWN:
            govc.cursor = Cursor(head=newest[0].id, newest=newest[0].id)
        return True

    def _shares_history(self, messages: Sequence[str]) -> bool:
        if any(writer_of(text) == self._writer_id for text in messages):
            return True
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
        if self._govc.cursor is cursor:
            # Nothing came of it: it cannot be read, or its log does not show its head.
            await trio.sleep(_FUTILE_PAUSE_S)

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
            await self.batches.send_pieces(changes, operation_id, record.author, record.message)
            cursor = replace(self._govc.cursor or cursor, tree=record.tree, published=record.oid)
            await self._govc.move_cursor(cursor, save=False)
            self._left -= 1
            self.progress()
            if await self._govc.has_moved():
                return

    def _operation_id(self, record: CommitRecord) -> str:
        operation = operation_of(record.message)
        return str(operation) if operation is not None else f"{self._writer_id}-git-{record.oid}"

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
            foreign = await self.batches.send_batch(waiting, first)
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
