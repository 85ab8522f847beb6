"""Turns the op log into commits, group by group, and tells the mount what is settled.

One task of the store process. Starts as soon as something is due and it is idle, after a pause in which save
dances end. Every step can be repeated: objects first, then the primary, then the branch; the commit's operation trailer
says what is settled, so dying between any two of them loses and doubles nothing.
"""

import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from caiafs.backends.git.backend import BuiltCommit, DamagedContent
from caiafs.core.config import CommitPolicy
from caiafs.core.errors import CaiaError, RevisionConflict, StoreError
from caiafs.core.types import NO_OBJECT, ChangeSet, ObjectId
from caiafs.link.channel import LinkError
from caiafs.link.messages import Changes, Due, Message, Settled, to_text
from caiafs.state.ops import Op
from caiafs.sync.composition import Composer
from caiafs.sync.groups import LOOK_AHEAD, GroupLimits
from caiafs.sync.merged_versions import build_keeping, versions_onto
from caiafs.sync.news import split_changes
from caiafs.sync.published import Published
from caiafs.sync.replay import Merging, Replay, replay
from caiafs.sync.selection import Group, OpSource, Selection
from caiafs.sync.view import TreeReader

log = logging.getLogger(__name__)

SETTLE_MAX_S = 1.0
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 5.0
_MEETINGS_MAX = 8


class Stores(Protocol):
    """Where groups go; `store.hybrid` routes them."""

    async def build_merge(self, change_set: ChangeSet, parents: Sequence[ObjectId]) -> BuiltCommit:
        """Make the commit on the first of `parents`, objects on disk."""
        ...

    async def publish(
        self, change_set: ChangeSet, built: BuiltCommit, expected: ObjectId | None, *, resent: bool
    ) -> None:
        """Store it where routing says and move the branch.

        Raises:
            RevisionConflict: the branch is not at `expected`: somebody pushed.
            Unreachable, Misconfigured: nowhere that counts as stored.
        """
        ...

    def hold_on(self) -> None:
        """The primary has a group that the branch has not yet: it is not to be taken back."""
        ...

    def let_go(self) -> None:
        """A group that met a conflict has nothing left to publish: others put the same there."""
        ...


class GroupContents(Protocol):
    """Where contents of a group are found."""

    def expect(self, ops: Sequence[Op]) -> None:
        """Note the ops whose contents are asked for next."""
        ...

    def hold(self, contents: dict[ObjectId, bytes]) -> None:
        """Keep merged contents."""
        ...

    def release(self) -> None:
        """Forget both."""
        ...


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """How to publish.

    Attributes:
        writer_id: in every operation id.
        limits: bounds of a group.
        settle_s: pause after the newest save.
        policy, interval_s: `commit=` and its interval.
        pending_max: above it versions coalesce.
        exact_last: where the first group ends, because the primary has it already; 0: anywhere.
    """

    writer_id: str
    limits: GroupLimits
    settle_s: float
    policy: CommitPolicy
    interval_s: float
    pending_max: int
    exact_last: int = 0


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What was published, and what waits.

    Attributes:
        last_seq: newest op known to be due.
        oldest_pending_ns: time of the oldest op that is due and not settled, 0 without.
        reason: why nothing goes on, empty when it does.
    """

    last_seq: int
    pending_ops: int
    oldest_pending_ns: int
    groups: int
    documents: int
    conflicts: int
    coalescing: bool
    reason: str


@dataclass(frozen=True, slots=True)
class PublisherParts:
    """What a publisher works with.

    Attributes:
        reader: published trees.
        send: tells the mount.
        take_in: takes in what others did to the branch or to govc; called with `published.lock` held.
        tell_damage: has the mount set aside what cannot be read, and raises Corrupt; see `sync.damage`.
    """

    ops: OpSource
    contents: GroupContents
    reader: TreeReader
    stores: Stores
    published: Published
    composer: Composer
    merging: Merging
    send: Callable[[Message], Awaitable[None]]
    take_in: Callable[[], Awaitable[None]]
    tell_damage: Callable[[Sequence[Op], Sequence[DamagedContent]], Awaitable[None]]


class Publisher:
    """Publishes what is due."""

    def __init__(self, settings: PublisherSettings, parts: PublisherParts) -> None:
        published = parts.published
        self._settings = settings
        self._parts = parts
        self._published = published
        self._due_seq = published.settled_seq
        self._urgent = False
        self._wake = trio.Event()
        self._exact_last = settings.exact_last
        self._selection = Selection(parts.ops, settings.limits, settings.pending_max)
        if settings.exact_last:
            parts.stores.hold_on()
        self._groups = self._documents = self._conflicts = 0
        self._oldest_ns = 0
        self._reason = ""
        self._last_commit_time = -math.inf
        self.changed: Callable[[], None] = lambda: None

    def statistics(self) -> PublisherStatistics:
        """Return what was published, and what waits."""
        pending = max(0, self._due_seq - self._published.settled_seq)
        return PublisherStatistics(
            last_seq=max(self._due_seq, self._published.settled_seq),
            pending_ops=pending,
            oldest_pending_ns=self._oldest_ns if pending else 0,
            groups=self._groups,
            documents=self._documents,
            conflicts=self._conflicts,
            coalescing=self._selection.coalescing,
            reason=self._reason,
        )

    def due(self, message: Due) -> None:
        """Note what may be published; never waits."""
        self._due_seq = max(self._due_seq, message.last_seq)
        self._urgent = self._urgent or message.urgent
        self._wake.set()

    def retry_now(self) -> None:
        """Try again what failed: a store came back."""
        self._wake.set()

    @property
    def is_idle(self) -> bool:
        """Whether everything due is settled."""
        return self._published.settled_seq >= self._due_seq

    async def run(self) -> None:
        """Publish whenever something is due, for ever."""
        backoff_s = _BACKOFF_FIRST_S
        while True:
            await self._wait_due()
            try:
                await self.publish_group()
            except LinkError:
                raise
            except Exception as exc:  # a bug must not become a crash loop
                if not isinstance(exc, CaiaError):
                    log.exception("publishing broke")
                self._note_failure(str(exc) or repr(exc))
                await self._pause(backoff_s)
                backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
            else:
                backoff_s = _BACKOFF_FIRST_S
                self._reason = ""
            self.changed()

    def _note_failure(self, reason: str) -> None:
        if reason != self._reason:
            log.warning("publishing waits: %s", reason)
        self._reason = reason

    async def _pause(self, seconds: float) -> None:
        """Wait, or until something new is due."""
        self._wake = trio.Event()
        with trio.move_on_after(seconds):
            await self._wake.wait()

    async def _wait_due(self) -> None:
        """Wait until a group should be cut now."""
        while self.is_idle:
            self._urgent = False
            self._wake = trio.Event()
            await self._wake.wait()
        give_up = trio.current_time() + SETTLE_MAX_S
        while not self._urgent and not self._has_backlog():
            pause_s = self._settings.settle_s
            if self._settings.policy is CommitPolicy.INTERVAL:
                next_commit = self._last_commit_time + self._settings.interval_s
                pause_s = max(pause_s, next_commit - trio.current_time())
                give_up = max(give_up, next_commit)
            seen = self._due_seq
            await self._pause_until(trio.current_time() + pause_s)
            if self._due_seq == seen or trio.current_time() >= give_up:
                return

    async def _pause_until(self, deadline: float) -> None:
        """Wait until `deadline`, or until somebody is in a hurry."""
        with trio.move_on_at(deadline):
            while not self._urgent:
                self._wake = trio.Event()
                await self._wake.wait()

    def _has_backlog(self) -> bool:
        """Whether a whole group waits: it is cut by its bounds, not where saving pauses."""
        if self._settings.policy is CommitPolicy.INTERVAL:
            return False
        waiting = self._due_seq - self._published.settled_seq
        return waiting > self._settings.limits.documents + LOOK_AHEAD

    async def publish_group(self) -> None:
        """Cut one group and publish it.

        Raises:
            StoreError: it is not stored; nothing is settled.
            StateError: the op log or a spooled content cannot be read.
        """
        async with self._published.lock:
            settled = self._published.settled_seq
            group = self._selection.next_group(settled, self._due_seq, self._exact_last)
            if group is None:
                self._pass_gap()
                return
            self._oldest_ns = group.ops[0].time_ns
            self.changed()
            try:
                await self._publish(group)
            finally:
                self._parts.contents.release()
        self._last_commit_time = trio.current_time()

    def _pass_gap(self) -> None:
        """Nothing can be published: ops were dropped in the mount, or the next is being hashed."""
        following = self._parts.ops.next_seq(self._published.settled_seq)
        if following is None or following > self._due_seq:
            published = self._published
            # Whoever waits for these has to hear of it.
            published.move(published.commit, published.tree, settled_seq=self._due_seq)
        else:
            self._due_seq = following - 1  # the mount says Due again when the hash is there

    async def _publish(self, group: Group) -> None:
        resent = False
        for meeting in itertools.count(1):
            self._parts.contents.expect(group.ops)  # again: taking others' changes in forgets it
            plan = replay(
                group.ops,
                self._parts.reader,
                self._published.tree,
                self._parts.merging,
                self._published.unseen,
            )
            self._parts.contents.hold(dict(plan.contents))
            if not plan.changes:
                self._parts.stores.let_go()
                await self._settle(group.ops, plan)
                return
            change_set = await self._parts.composer.change_set(group, plan, self._published.tree)
            expected = self._published.commit
            merged = versions_onto(self._parts.reader, self._published.tree, plan.merged)
            built = await build_keeping(self._parts.stores, change_set, expected, merged)
            await self._parts.tell_damage(group.ops, built.damaged)
            if built.tree == self._published.tree:
                self._parts.stores.let_go()
                await self._settle(group.ops, plan)
                return
            try:
                await self._parts.stores.publish(change_set, built, expected, resent=resent)
            except RevisionConflict as exc:
                # When git refused, the primary may have it: the difference to what we build now follows.
                # A primary that says without end that somebody was there first is left to catch-up.
                resent = resent or exc.backend == "git" or meeting >= _MEETINGS_MAX
                await self._parts.take_in()
                continue
            except StoreError:
                # Unknown whether a store has it, nonsense in an answer included: it must come again as the same operation.
                self._exact_last = group.ops[-1].seq
                raise
            self._published.move(built.commit, built.tree)
            self._parts.composer.published(built.commit, group, change_set)
            self._groups += 1
            self._documents += len(plan.changes)
            self._conflicts += len(plan.conflicts)
            await self._settle(group.ops, plan)
            return

    async def _settle(self, group: Sequence[Op], plan: Replay) -> None:
        published = self._published
        last_seq = group[-1].seq
        published.move(published.commit, published.tree, settled_seq=last_seq)
        published.forget_unseen(group)
        if plan.news:  # what follows may have been saved before it is heard of
            published.unseen.note(plan.news)
        commit = published.commit or NO_OBJECT
        conflicts = tuple(to_text(conflict.copy) for conflict in plan.conflicts)
        # Before Settled: a mount that dies in between compares again from the commit before.
        pieces = split_changes(plan.news)
        for number, news in enumerate(pieces, start=1):
            await self._parts.send(
                Changes(
                    commit,
                    last_seq,
                    news,
                    commit_time_ns=group[-1].time_ns,
                    conflicts=conflicts,
                    is_last=number == len(pieces),
                    number=published.unseen.newest,
                )
            )
        await self._parts.send(Settled(last_seq, commit, published.tree))
