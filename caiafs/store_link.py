"""The mount process's end of the link, in the terms of the parts that need the store process.

Used by mount_process and app. It supplies what vfs asks for (`BlobLoader`, `StoredWaiter`), what
`.caia/control` asks for (`Commands`), and takes what the store process tells (`LinkEvents`).
"""

import collections
import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from caiafs.core.errors import (
    Absent,
    Busy,
    CaiaError,
    DeadlineExceeded,
    NotFound,
    ReadOnly,
    StateError,
    StateFull,
    Unreachable,
)
from caiafs.core.types import NO_OBJECT, DocPath, ObjectId
from caiafs.link.codec import from_json
from caiafs.link.gathered import Gathered
from caiafs.link.messages import (
    AdoptDone,
    AdoptRequest,
    Changes,
    ConflictCopiesDone,
    ConflictCopiesRequest,
    Current,
    Damaged,
    Due,
    FetchDone,
    FetchRequest,
    LoadDone,
    LoadRequest,
    Origin,
    OriginsDone,
    OriginsRequest,
    Ready,
    Report,
    Seen,
    Settled,
    Start,
    StoredDone,
    StoredRequest,
    SyncDone,
    SyncProgress,
    SyncRequest,
    to_path,
    to_text,
)
from caiafs.link.report import StoreReport
from caiafs.link.supervisor import StoreProcess
from caiafs.state.journal import BACKGROUND_DELAY_S

if TYPE_CHECKING:
    from caiafs.mount_process import MountProcess
    from caiafs.vfs.transactions import Transactions

log = logging.getLogger(__name__)

_STORED_TIMEOUT_S = 60.0
_FULL_PAUSE_S = 1.0
_ADOPT_TIMEOUT_S = 30.0


class StoreLink:
    """Asks the store process, and carries out what it tells."""

    def __init__(self, config_json: str) -> None:
        self._config_json = config_json
        self._mount: MountProcess | None = None
        self._current = trio.Event()
        self._incoming = Gathered()
        self._arrived: collections.deque[tuple[Changes, Gathered]] = collections.deque()
        self._taking = trio.Lock()
        self._full = trio.Event()
        self._loading: dict[ObjectId, trio.Event] = {}
        self.process = StoreProcess(self._start_message, self)
        self._report_json = ""
        self.settled_seq = 0
        self.on_reset: Callable[[], None] = lambda: None

    def tie(self, mount: "MountProcess") -> None:
        """Say whose link this is; before the process is started."""
        self._mount = mount
        mount.journal.on_logged = self._on_logged
        mount.transactions.on_ended = self._say_due
        self.settled_seq = int(mount.db.meta("settled_seq") or 0)

    @property
    def mount(self) -> "MountProcess":
        """The parts that this link belongs to."""
        assert self._mount is not None, "tie was called"
        return self._mount

    @property
    def pending_ops(self) -> int:
        """How many ops no store has settled.

        Positions skip many after a power cut; a full disk keeps ops in the log that are settled.
        """
        journal = self.mount.journal
        return min(journal.waiting_ops, max(0, journal.last_seq - self.settled_seq))

    def _on_logged(self, _last_seq: int) -> None:
        self.process.notify(Due(self._transactions.due_seq))

    @property
    def _transactions(self) -> "Transactions":
        return self.mount.transactions

    def _say_due(self) -> None:
        self.process.notify(Due(self._transactions.due_seq, urgent=True))

    def _start_message(self) -> Start:
        db = self.mount.db
        known = db.meta("known_commit")
        return Start(
            config=self._config_json,
            state_dir=str(db.state_dir),
            settled_seq=self.settled_seq,
            known_commit=ObjectId(known) if known else None,
            writer_id=str(db.meta("writer_id")),
        )

    # --- what the store process tells

    async def on_ready(self, _message: Ready) -> None:
        """Say what is due."""
        self._incoming = Gathered()
        self.process.notify(Due(self._transactions.due_seq))

    async def on_current(self, _message: Current) -> None:
        """Let the mount begin."""
        self._current.set()

    async def wait_current(self) -> None:
        """Return when all that happened while nothing was mounted has been taken in."""
        await self._current.wait()

    async def on_settled(self, message: Settled) -> None:
        """Forget what is settled."""
        self._note_commit(message.commit)
        await self._settle(message.last_seq)

    async def _settle(self, last_seq: int) -> None:
        if last_seq <= self.settled_seq:
            return
        self.settled_seq = last_seq
        with contextlib.suppress(StateError):  # what is said here goes with a later commit, if any
            self.mount.notes.settled(last_seq)
            self._transactions.settled(last_seq)
        if await self.mount.settlement.settled(last_seq):
            self.mount.disk_cache.note_growth()

    async def on_damaged(self, message: Damaged) -> None:
        """Set a version aside, and let the publisher go on without it."""
        try:
            self.mount.damage.set_aside_op(message.seq, message.reason)
        except StateError as exc:  # the publisher says it again
            log.error("op %d is damaged: %s; %s", message.seq, message.reason, exc)  # noqa: TRY400
        else:
            self._say_due()

    async def on_changes(self, message: Changes) -> None:
        """Take in what others wrote, once all messages of it are here."""
        self._incoming.add(message.changes)
        if not message.is_last:
            return
        changes, self._incoming = self._incoming, Gathered()
        self._arrived.append((dataclasses.replace(message, changes=()), changes))
        await self._take_arrived()

    async def run(self) -> None:
        """Take in what a full disk kept waiting, until cancelled."""
        while True:
            await self._full.wait()
            self._full = trio.Event()
            await trio.sleep(_FULL_PAUSE_S)
            await self._take_arrived()

    async def _take_arrived(self) -> None:
        """Take in changes in their order, as far as the disk has room: nobody is to do them by halves."""
        async with self._taking:
            while self._arrived:
                message, changes = self._arrived[0]
                try:
                    await self._take(message, changes)
                except StateFull as exc:
                    log.warning("changes of others wait: %s", exc)
                    self._full.set()
                    return
                except StateError as exc:  # damage: the next mount is told of them again
                    log.error("changes of others are left out: %s", exc)  # noqa: TRY400  # no bug
                self._arrived.popleft()
                if message.last_seq <= self.settled_seq:  # else `Settled` follows
                    self._note_commit(message.commit)

    async def _take(self, message: Changes, changes: Gathered) -> None:
        if message.commit_time_ns:
            self.mount.table.import_time_ns = message.commit_time_ns
        trees = {to_path(path): oid for path, oid in message.trees.items()}
        await self.mount.remote.apply(changes, trees, last_seq=message.last_seq)
        self.mount.conflicts.noticed(change.path for change in changes if change.after is not None)
        if message.number and not self.mount.remote.is_waiting:
            self.process.seen(Seen(message.number, self.mount.journal.last_seq))

    def _note_commit(self, commit: ObjectId) -> None:
        """Note that the state DB shows what `commit` brought; a restart compares from there.

        Changes that wait for a writer are in memory only: until then a restart has to hear of them.
        """
        is_behind = self.mount.remote.is_waiting or self._arrived or self.mount.db.damage
        if commit != NO_OBJECT and not is_behind:
            self.mount.journal.put_meta("known_commit", commit)
            self.mount.journal.commit_within(BACKGROUND_DELAY_S)

    async def on_report(self, message: Report) -> None:
        """Keep the newest statistics; most are replaced before anybody looks."""
        self._report_json = message.report

    def report(self) -> StoreReport | None:
        """Return the newest statistics of the store process, None before the first."""
        if not self._report_json:
            return None
        return from_json(StoreReport, json.loads(self._report_json))

    @property
    def report_moment(self) -> str:
        """Something that differs as soon as there are newer statistics."""
        return self._report_json

    # --- what vfs asks for

    async def load(self, oid: ObjectId) -> None:
        """Return when the disk cache has blob `oid`; readers of one blob share one request.

        Raises:
            Absent: the store process cannot give it.
        """
        under_way = self._loading.get(oid)
        if under_way is not None:
            await under_way.wait()
            return
        done = self._loading[oid] = trio.Event()
        try:
            reply = await self.process.request(LoadRequest(0, oid), timeout_s=600.0)
        finally:
            del self._loading[oid]
            done.set()
        assert isinstance(reply, LoadDone)
        self.mount.disk_cache.note_growth()
        if reply.error:
            raise Absent(f"blob {oid}: {reply.error}", backend="git", operation="load")

    async def wait_stored(self) -> None:
        """Return when every op that is due is stored (commit=close): none that a transaction holds.

        Raises:
            DeadlineExceeded: no store took it in time; it stays pending.
        """
        if self._transactions.is_open:
            return
        await self._wait_hashed()
        await self._wait_stored(self._transactions.due_seq)

    async def wait_published(self, timeout_s: float) -> bool:
        """Return whether everything that was logged is published, waiting for what is due."""
        self.mount.journal.commit()
        last_seq = self._transactions.due_seq
        if last_seq > self.settled_seq:
            with trio.move_on_after(timeout_s), contextlib.suppress(CaiaError):
                await self.mount.hasher.wait_idle()
                await self._wait_stored(last_seq)
                return not self._transactions.held
            return False
        return not self._transactions.held

    async def _wait_hashed(self) -> None:
        with trio.move_on_after(_STORED_TIMEOUT_S) as scope:
            await self.mount.hasher.wait_idle()
        if scope.cancelled_caught:
            raise DeadlineExceeded("not stored yet: its blob id waits", operation="commit")

    async def _wait_stored(self, last_seq: int) -> None:
        self.process.notify(Due(last_seq, urgent=True))
        request = StoredRequest(0, last_seq, _STORED_TIMEOUT_S)
        reply = await self.process.request(request)
        assert isinstance(reply, StoredDone)
        if reply.error:
            raise DeadlineExceeded(f"not stored yet: {reply.error}", operation="commit")

    # --- what .caia/control asks for

    async def sync(self, timeout_s: float) -> None:
        """Return when every configured store has everything that was saved before.

        Raises:
            DeadlineExceeded: not within `timeout_s`; says what is left.
            Busy: all but what an open transaction holds back.
        """
        self.mount.files.settle_everything(unflushed=False)
        with trio.move_on_after(timeout_s):
            await self.mount.hasher.wait_idle()
        self.mount.journal.commit_everything()  # attributes are read from the state DB
        request = SyncRequest(0, self._transactions.due_seq, timeout_s)
        reply = await self.process.request(request, progress=_log_progress)
        assert isinstance(reply, SyncDone)
        if any(reply.left.values()):
            left = ", ".join(f"{name}: {count}" for name, count in reply.left.items() if count)
            raise DeadlineExceeded(f"documents left for {left}. {' '.join(reply.reasons)}")
        if self._transactions.held:
            raise Busy(f"a transaction holds {self._transactions.held} changes back")

    def begin(self) -> None:
        """Open a transaction; raises InvalidArgument where one is open."""
        self._transactions.begin()

    async def commit(self, message: str, uid: int) -> None:
        """End the transaction as one commit, and return when a store has it.

        Raises:
            InvalidArgument: none is open, or the message is too long.
            DeadlineExceeded: no store took it in time; it stays pending.
        """
        last_seq = self._transactions.commit(message, uid)
        await self._wait_hashed()
        await self._wait_stored(last_seq)

    def end(self) -> None:
        """Give the transaction up; raises InvalidArgument where none is open."""
        self._transactions.end()

    async def fetch(self, path: DocPath) -> None:
        """Look `path` up in govc and take in what it has.

        Raises:
            NotFound: govc does not have it.
            Unreachable: govc cannot be asked.
        """
        reply = await self.process.request(FetchRequest(0, (to_text(path),)), timeout_s=120.0)
        assert isinstance(reply, FetchDone)
        if reply.error:
            raise Unreachable(reply.error, backend="govc", operation="fetch")
        if reply.missing:
            raise NotFound("govc does not have it")

    async def adopt(self) -> None:
        """Merge two collections that never met.

        Raises:
            Unreachable: govc cannot be used now.
        """
        reply = await self.process.request(AdoptRequest(0, _ADOPT_TIMEOUT_S))
        assert isinstance(reply, AdoptDone)
        if reply.error:
            raise Unreachable(reply.error, backend="govc", operation="adopt")

    async def resolve(self, way: str, key: str, uid: int, given: bytes) -> None:
        """End a conflict; see `vfs.resolution`."""
        if self.mount.config.read_only:
            raise ReadOnly("the mount takes no changes")
        await self.mount.resolver.resolve(way, key, uid, given=given)

    # --- what vfs.conflicts asks for

    async def conflict_copies(self) -> list[DocPath]:
        """Return the paths of all conflict copies of the published tree; raises CaiaError."""
        reply = await self.process.request(ConflictCopiesRequest(0))
        assert isinstance(reply, ConflictCopiesDone)
        if reply.error:
            raise Absent(reply.error, backend="git", operation="conflicts")
        return [to_path(text) for text in reply.copies]

    async def conflict_origins(self, copies: list[DocPath]) -> list[Origin]:
        """Return where these conflict copies come from; raises CaiaError."""
        request = OriginsRequest(0, tuple(to_text(copy) for copy in copies))
        reply = await self.process.request(request)
        assert isinstance(reply, OriginsDone)
        if reply.error:
            raise Absent(reply.error, backend="git", operation="conflicts")
        return list(reply.origins)

    def reset_metrics(self) -> None:
        """Forget latencies and counts so far."""
        self.on_reset()
        self.process.reset_metrics()


def _log_progress(progress: SyncProgress) -> None:
    log.debug("sync: left %s", progress.left)
