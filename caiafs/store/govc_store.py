"""govc as the hybrid store uses it: connected when it can be, left alone when it cannot, and followed by a cursor.

Used by `store.hybrid`, `store.catchup` and `sync.follower`. `lock` is held by whoever writes to govc or moves the cursor.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import stamina
import trio

from caiafs.backends.base import Capabilities, Revision
from caiafs.backends.govc import GovcBackend
from caiafs.core.config import Config
from caiafs.core.errors import (
    CaiaError,
    DeadlineExceeded,
    Misconfigured,
    StoreError,
    Unreachable,
)
from caiafs.core.types import Change, ChangeSet, DocPath, Entry
from caiafs.store.breaker import Breaker, BreakerState
from caiafs.store.cursors import Cursor, CursorStore, RefusedContent
from caiafs.store.meter import Meter
from caiafs.store.trailers import with_named_changes

log = logging.getLogger(__name__)

T = TypeVar("T")

_PER_DOCUMENT_S = 0.05
_PER_BYTE_S = 1 / (1 << 20)
_LOOK_BYTES = 1 << 20
_LOG_STEPS = (16, 128, 1024, 8192)


class BackendMaker(Protocol):
    """Makes the backend; `renewed` reads the token from its file again."""

    def __call__(self, *, renewed: bool = False) -> GovcBackend:
        """Return a backend that is not connected."""
        ...


class GovcStore:
    """One govc repository."""

    def __init__(self, make_backend: BackendMaker, cursors: CursorStore, config: Config) -> None:
        self._make_backend = make_backend
        self.backend = make_backend()
        self.meter = Meter()
        self.lock = trio.Lock()
        self.cursor: Cursor | None = None
        """None: not looked at yet, or it never met our repository."""
        self.problem = ""
        self.misconfigured = False
        self.ahead = False
        """It may have a group that the branch has not yet: not the time to make it equal to the branch."""
        self.sending = False
        """Catch-up is sending: that takes a while."""
        self.unmet = ""
        """Why the two may not be mixed; empty when they may."""
        self.changed: Callable[[], None] = lambda: None
        self.told_of: Callable[[Sequence[Change]], Sequence[str]] = lambda _changes: ()
        """Trailers that documents new to govc come with."""
        self._cursors = cursors
        self._config = config
        self._breaker = Breaker(failures=config.breaker_failures, reset_s=config.breaker_reset_s)
        self._connected = False
        self._writing = trio.Lock()
        """Held while commits of the cursor are made: saving happens without `lock`, too."""
        self._saved_s = 0.0

    # --- calls

    @property
    def is_connected(self) -> bool:
        """Whether the last we heard of it was good, and it was looked at since."""
        return self._connected

    @property
    def breaker(self) -> BreakerState:
        """The breaker's state."""
        return self._breaker.state(trio.current_time())

    @property
    def reset_s(self) -> float:
        """How long to leave it alone after what a quick retry does not mend."""
        return self._config.breaker_reset_s

    @property
    def pause_s(self) -> float:
        """How long to leave it alone before the next try to connect."""
        if self.misconfigured:
            return self.reset_s
        wait_s = self._breaker.wait_s(trio.current_time())
        return wait_s or self._config.retry_backoff_s

    def deadline_s(self, documents: int, size_bytes: int) -> float:
        """Return how long a group of that size may take: an untar is no outage."""
        return (
            self._config.operation_timeout_s
            + documents * _PER_DOCUMENT_S
            + size_bytes * _PER_BYTE_S
        )

    async def call(
        self, operation: str, function: Callable[[], Awaitable[T]], *, timeout_s: float
    ) -> T:
        """Call the backend once, counted, watched by the breaker, within `timeout_s`.

        Raises:
            Unreachable: it failed, or is left alone.
            Misconfigured: a person must act.
            Refused, Corrupt: as the backend; the store itself is well.
        """
        if not self._breaker.admit(trio.current_time()):
            raise Unreachable(
                f"govc is left alone for a while: {self.problem}",
                backend="govc",
                operation=operation,
            )
        try:
            async with self.meter.measure(operation):
                try:
                    with trio.fail_after(timeout_s):
                        found = await function()
                except trio.TooSlowError as exc:
                    raise DeadlineExceeded(
                        f"govc took more than {timeout_s:.0f} s",
                        backend="govc",
                        operation=operation,
                    ) from exc
        except (Unreachable, Misconfigured) as exc:
            self._note_failure(exc)
            raise
        except BaseException:
            self._breaker.record_nothing()
            raise
        self._note_success()
        return found

    async def current(
        self, paths: Sequence[DocPath], *, operation: str = "read"
    ) -> dict[DocPath, Entry | None]:
        """Return what govc holds at `paths`; an oid is empty where nobody can say. Raises as `call`.

        Most answers carry the whole document, of any size: one that hangs ends at its own request's deadline.
        """
        timeout_s = self.deadline_s(len(paths), len(paths) * _LOOK_BYTES)
        return await self.call(operation, lambda: self.backend.current(paths), timeout_s=timeout_s)

    async def call_again(
        self, operation: str, function: Callable[[], Awaitable[T]], *, timeout_s: float
    ) -> T:
        """As `call`, and tries again with growing, jittered pauses while that may help, within `timeout_s`."""
        give_up = trio.current_time() + timeout_s
        was_connected = self._connected

        def should_retry(exc: Exception) -> bool | float:
            if not isinstance(exc, StoreError) or not exc.retryable:
                return False
            if self.breaker is not BreakerState.CLOSED:
                return False
            return exc.retry_after_s if exc.retry_after_s is not None else True

        async for attempt in stamina.retry_context(
            on=should_retry,
            attempts=self._config.retry_max,
            timeout=timeout_s,
            wait_initial=self._config.retry_backoff_s,
            wait_max=self._config.retry_backoff_max_s,
            wait_jitter=self._config.retry_backoff_s,
        ):
            with attempt:
                left_s = max(give_up - trio.current_time(), 0.05)
                found = await self.call(operation, function, timeout_s=left_s)
                if was_connected and not self._connected:
                    self.use()
                return found
        raise AssertionError("stamina raises the last error")

    def _note_failure(self, exc: StoreError) -> None:
        self._connected = False
        self.misconfigured = isinstance(exc, Misconfigured)
        if not self.problem:
            log.warning("govc: %s", exc)
        self.problem = str(exc)
        self._breaker.record_failure(trio.current_time(), exc.retry_after_s)
        self.changed()

    def _note_success(self) -> None:
        self._breaker.record_success()
        if self.problem:
            self.changed()

    # --- connecting

    async def connect(self) -> Capabilities:
        """Reach govc and load the cursor; the caller looks at what is there before it says `use`."""
        if self.misconfigured:
            # The token may have been renewed: what reads it is made again.
            await self.backend.aclose()
            self.backend = self._make_backend(renewed=True)
        if self.cursor is None:
            self.cursor = await self._cursors.load()
        timeout_s = self._config.operation_timeout_s * 2
        return await self.call("connect", self.backend.connect, timeout_s=timeout_s)

    def use(self) -> None:
        """Use it: govc is as the cursor says."""
        if self.problem or not self._connected:
            log.info("govc is connected (%s)", self.backend.capabilities.implementation)
        self._connected = True
        self.misconfigured = False
        self.problem = ""
        self.changed()

    def lose(self, reason: str) -> None:
        """It is not what it was: connect again, and look."""
        self._connected = False
        self.problem = reason
        self.changed()

    async def new_revisions(self) -> tuple[Revision, ...] | None:
        """Return govc's commits after the cursor's head, newest first; None where it lost what it had.

        Where nothing was looked at yet that may be the newest of more: the last one has a parent then.
        """
        cursor = self.cursor or Cursor()
        found = await self._revisions_since(cursor.head)
        if found is None or cursor.newest in (None, cursor.head):
            return found
        return found if any(revision.id == cursor.newest for revision in found) else None

    async def _revisions_since(self, head: str | None) -> tuple[Revision, ...] | None:
        for limit in _LOG_STEPS:
            found = await self.call(
                "log", partial(self.backend.log, limit), timeout_s=self.deadline_s(limit // 8, 0)
            )
            for index, revision in enumerate(found):
                if revision.id == head:
                    return found[:index]
            if len(found) < limit or limit == _LOG_STEPS[-1]:
                return found if head is None else None
        raise AssertionError("the last step returns")

    async def has_moved(self) -> bool:
        """Whether somebody committed since our newest commit there."""
        head = await self.call(
            "head", self.backend.head, timeout_s=self._config.operation_timeout_s
        )
        return head != (self.cursor or Cursor()).newest

    # --- writing

    async def commit(self, change_set: ChangeSet, size_bytes: int) -> None:
        """Commit a change set there; refused documents are noted. The cursor is the caller's to move."""
        changes = change_set.changes
        text = with_named_changes(change_set.message, changes, self.told_of(changes))
        sent = replace(change_set, message=text)
        timeout_s = self.deadline_s(len(change_set.changes), size_bytes)
        result = await self.call_again(
            "commit", lambda: self.backend.commit(sent), timeout_s=timeout_s
        )
        assert self.cursor is not None, "nothing is sent before the two have met"
        refused = dict(self.cursor.refused)
        for change in change_set.changes:
            refused.pop(change.path, None)
        by_path = {change.path: change for change in change_set.changes}
        for path, reason in result.refused:
            wanted = by_path[path].after if path in by_path else None
            if wanted is not None:
                log.warning("govc will not hold a document: %s", reason)
                refused[path] = RefusedContent(wanted.oid, " ".join(reason.split()))
        newest = result.revision or self.cursor.newest
        self.cursor = replace(self.cursor, newest=newest, refused=refused)

    def note_held(self, paths: Iterable[DocPath]) -> None:
        """Note that govc was seen to hold what is wanted at `paths`: a refusal was a mistake."""
        assert self.cursor is not None, "nothing is sent before the two have met"
        found = self.cursor.refused.keys() & set(paths)
        if found:
            refused = {path: r for path, r in self.cursor.refused.items() if path not in found}
            self.cursor = replace(self.cursor, refused=refused)

    async def move_cursor(self, cursor: Cursor, *, save: bool) -> None:
        """Note what govc holds now; on disk at once, or with the next save."""
        self.cursor = cursor
        self.changed()
        if save or time.monotonic() - self._saved_s > 1.0:
            await self.save_cursor()

    async def advance_cursor(self, cursor: Cursor, changes: ChangeSet, *, save: bool) -> None:
        """As `move_cursor`, to `cursor`'s tree with changes applied."""
        async with self._writing:
            cursor = self.cursor = await self._cursors.apply(cursor, changes.changes)
        await self.move_cursor(cursor, save=save)

    async def save_cursor(self) -> None:
        """Write the cursor to its ref."""
        # Whoever waited writes the newest: an older one has a tree that nothing is built on any more.
        async with self._writing:
            if self.cursor is not None:
                await self._cursors.save(self.cursor, self.backend.capabilities.implementation)
                self._saved_s = time.monotonic()

    async def drop_cursor(self, cursor: Cursor) -> None:
        """Start again from `cursor`, which holds nothing: govc lost what it had."""
        async with self._writing:
            await self._cursors.drop()
            self.cursor = cursor

    async def aclose(self) -> None:
        """Save the cursor, close the connections."""
        try:
            await self.save_cursor()
        except CaiaError as exc:
            log.warning("the govc cursor could not be saved: %s", exc)
        await self.backend.aclose()
