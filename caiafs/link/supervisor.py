"""Starts the store process, talks to it, and starts it again when it dies.

Used by the mount process only. `run` owns the process; everything else may be called from any task
of the same trio loop. A store process that is gone is a health reason and delays publication; it
never fails a request of the kernel.
"""

import contextlib
import dataclasses
import logging
import math
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from caiafs.core.errors import DeadlineExceeded, Unreachable
from caiafs.link.channel import Channel, LinkError
from caiafs.link.child import Child
from caiafs.link.messages import (
    AdoptRequest,
    Changes,
    Current,
    Damaged,
    Due,
    Failed,
    Message,
    Ready,
    Reply,
    Report,
    Request,
    ResetMetrics,
    Seen,
    Settled,
    Start,
    Stop,
    Stopped,
    StoredRequest,
    SyncProgress,
    SyncRequest,
)

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
_STEADY_S = 30.0
_REPLY_SLACK_S = 5.0
_DUE_PAUSE_S = 0.01


class LinkEvents(Protocol):
    """What the mount process does with what the store process tells; called one at a time."""

    async def on_ready(self, message: Ready) -> None:
        """The store process (re)started."""
        ...

    async def on_current(self, message: Current) -> None:
        """All that happened while nothing was mounted has been told."""
        ...

    async def on_settled(self, message: Settled) -> None:
        """Ops are settled."""
        ...

    async def on_changes(self, message: Changes) -> None:
        """Content arrived from outside."""
        ...

    async def on_damaged(self, message: Damaged) -> None:
        """A version cannot be read."""
        ...

    async def on_report(self, message: Report) -> None:
        """New statistics."""
        ...


@dataclass(frozen=True, slots=True)
class StoreProcessStatistics:
    """How the store process is.

    Attributes:
        pid: None while there is none.
        ready: it opened the repository.
        restarts: how often it was started again.
        reason: why it is not ready, for health; empty when it is.
    """

    pid: int | None
    ready: bool
    restarts: int
    reason: str


@dataclass(slots=True)
class _Pending:
    request: Request
    done: trio.Event
    progress: Callable[[SyncProgress], None] | None
    reply: Reply | None = None


class StoreProcess:
    """The store process as the mount process sees it."""

    def __init__(
        self,
        start_message: Callable[[], Start],
        events: LinkEvents,
        *,
        command: tuple[str, ...] = (sys.executable, "-m", "caiafs.store_process"),
    ) -> None:
        self._start_message = start_message
        self._events = events
        self._tell: dict[type, Callable[[Any], Awaitable[None]]] = {
            Settled: events.on_settled,
            Damaged: events.on_damaged,
            Changes: events.on_changes,
            Report: events.on_report,
            Current: events.on_current,
            Ready: self._on_ready,
        }
        self._command = command
        self._channel: Channel | None = None
        self._process: Child | None = None
        self._pending: dict[int, _Pending] = {}
        self._last_request_id = 0
        self._due: Due | None = None
        self._seen: Seen | None = None
        self._reset = False
        self._wake = trio.Event()
        self._urgent = trio.Event()
        self._ready = trio.Event()
        self._is_ready = False
        self._restarts = 0
        self._reason = "the store process has not started yet"
        self._stopping = False
        self._stopped: Stopped | None = None
        self._ended = trio.Event()

    def statistics(self) -> StoreProcessStatistics:
        """Return how the store process is."""
        return StoreProcessStatistics(
            pid=self._process.pid if self._process is not None else None,
            ready=self._is_ready,
            restarts=self._restarts,
            reason="" if self._is_ready else self._reason,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a store process running until `stop`; started once the first one is exec'd.

        Mount after that: a process that is started later is exec'd too, but inherits nothing either.

        Raises:
            Unreachable: the first one cannot be started.
        """
        backoff_s = BACKOFF_FIRST_S
        process: Child | None = Child.start(self._command)
        task_status.started()
        try:
            while True:
                began = trio.current_time()
                if process is not None:
                    await self._serve(process)
                if self._stopping:
                    return
                if trio.current_time() - began > _STEADY_S:
                    backoff_s = BACKOFF_FIRST_S
                self._restarts += 1
                await trio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
                process = self._start_again()
        finally:
            self._ended.set()

    def _start_again(self) -> Child | None:
        """Start a process; None where that is to be tried again."""
        try:
            return Child.start(self._command)
        except Unreachable as exc:
            self._reason = str(exc)
            log.warning("%s", exc)
            return None

    async def _serve(self, process: Child) -> None:
        """Serve a process until it ends."""
        self._process = process
        channel = Channel(trio.SocketStream(trio.socket.from_stdlib_socket(process.link)))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_due, channel)
                await self._receive(channel)
                nursery.cancel_scope.cancel()
        finally:
            self._is_ready = False
            self._channel = self._seen = None
            with trio.CancelScope(shield=True):
                await channel.aclose()
                ending = await process.end()
            self._process = None
            if not self._stopping:
                self._reason = f"store process restarted after {ending}"
                log.warning("%s", self._reason)

    async def _receive(self, channel: Channel) -> None:
        try:
            await channel.send(self._start_message())
            self._channel = channel
            while (message := await channel.receive()) is not None:
                await self._dispatch(message)
        except LinkError as exc:
            log.warning("lost the store process: %s", exc)
        except Exception:  # a bug in an event handler: a new process says it all again
            log.exception("handling a message of the store process broke")

    async def _dispatch(self, message: Message) -> None:
        tell = self._tell.get(type(message))
        if tell is not None:
            await tell(message)
        elif isinstance(message, Reply):
            self._on_reply(message)
        elif isinstance(message, SyncProgress):
            pending = self._pending.get(message.request_id)
            if pending is not None and pending.progress is not None:
                pending.progress(message)
        elif isinstance(message, Failed):
            self._reason = message.reason
            log.error("the store process cannot work: %s", message.reason)
        elif isinstance(message, Stopped):
            self._stopped = message
        else:
            raise LinkError(f"a {type(message).__name__} does not come from the store process")

    async def _on_ready(self, message: Ready) -> None:
        await self._events.on_ready(message)
        assert self._channel is not None, "it said Ready over the channel"
        # From here on each sends its own: what comes while these are sent is none of them.
        self._is_ready = True
        for pending in list(self._pending.values()):
            await self._channel.send(pending.request)
        self._ready.set()
        self._wake.set()

    def _on_reply(self, message: Reply) -> None:
        pending = self._pending.get(message.request_id)
        if pending is not None:
            pending.reply = message
            pending.done.set()

    async def _send_due(self, channel: Channel) -> None:
        """Send the newest Due whenever there is one, after Ready."""
        with contextlib.suppress(LinkError):
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                if self._seen is not None and self._is_ready:
                    seen, self._seen = self._seen, None
                    await channel.send(seen)
                if self._reset and self._is_ready:
                    self._reset = False
                    await channel.send(ResetMetrics())
                due = self._due
                if due is not None and self._is_ready:
                    await channel.send(due)
                    if self._due == due:
                        self._due = dataclasses.replace(due, urgent=False)
                if due is not None and not due.urgent:
                    # One frame for what falls due meanwhile: one a rename cost a sixth of the rate.
                    with trio.move_on_after(_DUE_PAUSE_S):
                        await self._urgent.wait()

    def notify(self, message: Due) -> None:
        """Tell what is due, without waiting; the newest is enough."""
        urgent = message.urgent or (self._due is not None and self._due.urgent)
        last_seq = max(message.last_seq, self._due.last_seq if self._due is not None else 0)
        self._due = Due(last_seq=last_seq, urgent=urgent)
        self._wake.set()
        if urgent:
            self._urgent.set()
            self._urgent = trio.Event()

    def seen(self, message: Seen) -> None:
        """Tell what was taken in, without waiting; only the process that told it wants to know."""
        self._seen = message
        self._wake.set()

    def reset_metrics(self) -> None:
        """Have the store process forget its metrics, without waiting; a new one has none."""
        self._reset = self._is_ready
        self._wake.set()

    async def wait_ready(self) -> None:
        """Wait until a store process has opened the repository for the first time."""
        await self._ready.wait()

    async def request(
        self,
        message: Request,
        *,
        timeout_s: float = math.inf,
        progress: Callable[[SyncProgress], None] | None = None,
    ) -> Reply:
        """Send a request and return its reply; its `request_id` is set here.

        A request outlives the process: it is sent again to the next one.

        Raises:
            DeadlineExceeded: no reply within `timeout_s`, or in the request's own time and a little.
            Unreachable: the link was stopped.
        """
        if isinstance(message, SyncRequest | StoredRequest | AdoptRequest):
            timeout_s = min(timeout_s, message.timeout_s + _REPLY_SLACK_S)
        self._last_request_id += 1
        request_id = self._last_request_id
        message = dataclasses.replace(message, request_id=request_id)
        pending = _Pending(message, trio.Event(), progress)
        self._pending[request_id] = pending
        try:
            with trio.move_on_after(timeout_s):
                if self._channel is not None and self._is_ready:
                    with contextlib.suppress(LinkError):
                        await self._channel.send(message)
                await self._wait_reply(pending)
        finally:
            del self._pending[request_id]
        if pending.reply is not None:
            return pending.reply
        if self._ended.is_set():
            raise Unreachable("the store process has ended", operation=type(message).__name__)
        raise DeadlineExceeded("no answer from the store process", operation=type(message).__name__)

    async def _wait_reply(self, pending: _Pending) -> None:
        async with trio.open_nursery() as nursery:

            async def wait(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, pending.done)
            nursery.start_soon(wait, self._ended)

    async def stop(self, grace_s: float) -> Stopped | None:
        """Let it publish what is pending, for `grace_s`, and end it; None where it did not answer."""
        self._stopping = True
        with trio.move_on_after(grace_s + _REPLY_SLACK_S):
            if self._channel is not None:
                with contextlib.suppress(LinkError):
                    if self._due is not None:
                        await self._channel.send(self._due)
                    await self._channel.send(Stop(grace_s=grace_s))
                await self._ended.wait()
        if not self._ended.is_set() and self._process is not None:
            self._process.kill()
        return self._stopped
