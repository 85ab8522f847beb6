"""Keeps the branch level with a git remote: looks, takes in what is new there, pushes what is new here.

One task of the store process, where `git_remote` is set; saves never wait for it. A round is look, fetch, merge, push; it comes every
`git_remote_interval`, and sooner when the branch has moved and rests. Of several machines that push at once one is
first; the others merge what it pushed and push again. With nothing new nothing is committed, so they come to rest at
one commit.
"""

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.refs import LOST, RefUpdate
from caiafs.backends.git.remote import GitRemote
from caiafs.core.errors import CaiaError, RevisionConflict, Unreachable
from caiafs.core.types import EMPTY_TREE, ObjectId
from caiafs.link.report import Condition, RemoteReport
from caiafs.store.meter import Meter
from caiafs.sync.published import Published
from caiafs.sync.remote_merge import RemoteMerge

log = logging.getLogger(__name__)

IDLE_S = 2.0
_BACKOFF_MAX_S = 300.0
_PUSHES_MAX = 12
_JITTER_FIRST_S = 0.05
_JITTER_MAX_S = 3.0
_UPKEEP_FETCHES = 32
_TRIES_WHILE_WAITED_FOR = 2
_MOVED = "its branch moves faster than we can merge"


@dataclass(frozen=True, slots=True)
class _Counted:
    """How far two commits are apart: commits on either side, documents that differ."""

    ours: ObjectId | None = None
    theirs: ObjectId | None = None
    ahead: int = 0
    behind: int = 0
    documents: int = 0


class Remote:
    """Follows and feeds one branch of one remote."""

    def __init__(
        self,
        remote: GitRemote,
        git: GitBackend,
        published: Published,
        merge: RemoteMerge,
        *,
        interval_s: float,
        read_only: bool,
    ) -> None:
        self._remote = remote
        self._git = git
        self._published = published
        self.merge = merge
        self._interval_s = interval_s
        self._read_only = read_only
        self._meter = Meter()
        self._ref = ""
        self._head: ObjectId | None = None
        self._wake = trio.Event()
        self._ended = trio.Event()
        self._hurry = False
        self._adopts = False
        self._begun = self._done = 0
        self._failures = 0
        self._error: CaiaError | None = None
        self._unmet = ""
        self._counted = _Counted()
        self._fetched_ns = self._pushed_ns = 0
        self._fetches = 0
        self.changed: Callable[[], None] = lambda: None

    # --- what others ask

    @property
    def is_level(self) -> bool:
        """Whether the remote has what the branch has, as far as is known."""
        return self._read_only or self._published.commit in {None, self._head}

    def left(self) -> int:
        """Return how many documents the remote lacks, 1 where that is not counted yet."""
        return 0 if self.is_level else max(1, self._counted.documents)

    def reasons(self) -> tuple[str, ...]:
        """Return why it is not as it should be; one sentence each."""
        if self._error is not None:
            return (str(self._error),)
        return (f"{self._remote.shown}: {self._unmet}",) if self._unmet else ()

    async def bring_level(self) -> int:
        """Have the remote take what the branch has now; return how many documents it could not, 0 when it has all."""
        for _ in range(_TRIES_WHILE_WAITED_FOR):
            await self._wait_round()
            if self._error is None and not self._unmet:
                return 0
            if self._error is None or not self._error.retryable:
                break
        return self.left()

    async def adopt(self) -> str:
        """Merge with the remote though the two never met; return why it is not done, "" when it is."""
        self._adopts = True
        try:
            await self._wait_round()
        finally:
            self._adopts = False
        return "; ".join(self.reasons())

    @property
    def is_unmet(self) -> bool:
        """Whether a person has to say that both belong together."""
        return bool(self._unmet)

    def report(self) -> RemoteReport:
        """Return how it is."""
        condition = Condition.OK
        if self._error is not None or self._unmet:
            condition = Condition.DEGRADED
        return RemoteReport(
            configured=True,
            url=self._remote.shown,
            branch=self._remote.branch,
            condition=condition,
            reasons=self.reasons(),
            head=self._head,
            ahead=self._counted.ahead,
            behind=self._counted.behind,
            documents_left=self.left(),
            last_fetch_ns=self._fetched_ns,
            last_push_ns=self._pushed_ns,
            merges=self.merge.merges,
            operations=self._meter.statistics(),
            last_error=self._meter.last_error,
            last_error_age_s=self._meter.last_error_age_s,
        )

    def reset_metrics(self) -> None:
        """Forget latencies and counts so far."""
        self._meter.reset()

    # --- the task

    async def run(self) -> None:
        """Keep level, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_branch)
            while True:
                await self.attempt()
                await self._wait_work()

    async def wait_first_round(self) -> None:
        """Wait until `run` has made its first round, whatever came of it."""
        while not self._done:
            await self._ended.wait()

    async def _watch_branch(self) -> None:
        while True:
            await self._published.wait_moved()
            self._wake.set()

    async def _wait_round(self) -> None:
        """Have a round begin now, and return when it has ended."""
        wanted = self._begun + 1
        self._hurry = True
        self._wake.set()
        while self._done < wanted:
            await self._ended.wait()

    async def _wait_work(self) -> None:
        """Wait until the next round: the interval, or the branch rests after it moved, or somebody waits."""
        next_round = trio.current_time() + self._pause_s()
        first_move = resting = math.inf
        seen = self._head
        while not self._hurry:
            if not self.is_level and self._published.commit != seen:
                seen = self._published.commit
                now = trio.current_time()
                first_move = min(first_move, now)
                resting = min(
                    now + min(IDLE_S, self._interval_s / 2), first_move + self._interval_s
                )
            self._wake = trio.Event()
            with trio.move_on_at(min(next_round, resting)) as scope:
                await self._wake.wait()
            if not scope.cancelled_caught:
                continue
            if trio.current_time() >= next_round or not self.reasons():
                return
            # It is left alone for now; what it lacks is to be known all the same.
            resting = math.inf
            await self._count()
            self.changed()

    def _pause_s(self) -> float:
        """Return how long until the next round; machines that began together drift apart."""
        pause_s = self._interval_s
        if self._failures > 1:
            longest = max(_BACKOFF_MAX_S, self._interval_s)
            pause_s = min(self._interval_s * 2 ** min(self._failures - 1, 30), longest)
        return pause_s * random.uniform(0.9, 1.1)  # noqa: S311  # no secret

    async def attempt(self) -> None:
        """Make one round; failures are noted."""
        self._begun += 1
        self._hurry = False
        error: CaiaError | None = None
        try:
            await self._round()
        except CaiaError as exc:
            error = exc
        except Exception:  # a bug here must not stop saves
            log.exception("keeping level with the git remote broke")
            error = Unreachable("an internal error; see the log", backend="remote")
        self._note(error)
        try:
            await self._count()
        except CaiaError as exc:  # figures only
            log.debug("the distance to the git remote cannot be counted: %s", exc)
        self._done = self._begun
        self._ended.set()
        self._ended = trio.Event()
        self.changed()

    def _note(self, error: CaiaError | None) -> None:
        if error is not None and str(error) != str(self._error or ""):
            log.warning("git remote: %s", error)
        elif error is None and self._error is not None:
            log.info("the git remote answers again")
        self._failures = self._failures + 1 if error is not None else 0
        self._error = error
        if error is not None:
            self._ref = ""  # the address of a named remote may be corrected meanwhile

    # --- a round

    async def _round(self) -> None:
        if not self._ref:
            self._ref = await self._remote.resolve()
            self._head = self._git.repository.refs.read(self._ref)
        for attempt in range(_PUSHES_MAX):
            try:
                await self._look()
                if self._unmet or self.is_level:
                    return
                await self._push()
            except RevisionConflict:
                longest = min(_JITTER_FIRST_S * 2**attempt, _JITTER_MAX_S)
                await trio.sleep(random.uniform(0, longest))  # noqa: S311  # no secret
            else:
                return
        raise Unreachable(f"{self._remote.shown}: {_MOVED}", backend="remote", operation="push")

    async def _look(self) -> None:
        """Take in what the remote has."""
        async with self._meter.measure("look"):
            head = await self._remote.look()
        if head is not None and not self._has(head):
            async with self._meter.measure("fetch"):
                await self._remote.fetch(self._tips())
            await self._keep_tidy()
            if not self._git.repository.reader.exists(head):
                raise RevisionConflict("it moved while it was fetched", backend="remote")
        await self._note_head(head)
        self._fetched_ns = time.time_ns()
        if head is None:
            self._unmet = ""
            if self._published.commit is None:
                self._remote.note_empty()
            return
        source = f"{self._remote.branch} of {self._remote.shown}"
        async with self._meter.measure("merge"):
            adopts = self._adopts or self._remote.began_empty
            unmet = await self.merge.take(head, source=source, adopts=adopts)
        if unmet and unmet != self._unmet:
            log.warning("git remote %s: %s", self._remote.shown, unmet)
        self._unmet = unmet

    def _has(self, head: ObjectId) -> bool:
        """Whether a commit is here with all that it needs: something of ours reaches it."""
        ours = self._published.commit
        return head == self._head or (ours is not None and self._git.log_of.is_ancestor(head, ours))

    def _tips(self) -> tuple[ObjectId, ...]:
        known = {self._published.commit, self._head}
        return tuple(sorted(commit for commit in known if commit is not None))

    async def _keep_tidy(self) -> None:
        self._fetches += 1
        if self._fetches % _UPKEEP_FETCHES == 0:
            await self._git.maintain()

    async def _note_head(self, head: ObjectId | None) -> None:
        """Write down where the remote's branch is; where it was stays, if it was taken back or replaced."""
        old = self._head
        if head == old:
            return
        updates = [RefUpdate(self._ref, head, old)]
        if old is not None and (head is None or not self._git.log_of.is_ancestor(old, head)):
            log.warning("the git remote's branch was taken back or replaced; it was at %s", old)
            updates.append(RefUpdate(f"{LOST}{old}", old, None))
        await self._git.move_refs(updates)
        self._head = head

    async def _push(self) -> None:
        commit = self._published.commit
        assert commit is not None, "else it is level"
        async with self._meter.measure("push"):
            await self._remote.push(commit, self._tips())
        await self._note_head(commit)
        self._pushed_ns = time.time_ns()

    # --- figures

    async def _count(self) -> None:
        ours, theirs = self._published.commit, self._head
        if (ours, theirs) == (self._counted.ours, self._counted.theirs):
            return
        counted = _Counted(ours, theirs)
        if ours != theirs:
            ahead, behind = await trio.to_thread.run_sync(self._apart, ours, theirs)
            before = EMPTY_TREE if theirs is None else self._git.repository.tree_of(theirs)
            documents = len(await self._git.diff(before, self._published.tree))
            counted = replace(counted, ahead=ahead, behind=behind, documents=documents)
        self._counted = counted

    def _apart(self, ours: ObjectId | None, theirs: ObjectId | None) -> tuple[int, int]:
        reader = self._git.repository.new_reader()
        ahead = len(reader.commits_between(theirs, ours)) if ours is not None else 0
        behind = len(reader.commits_between(ours, theirs)) if theirs is not None else 0
        return ahead, behind
