"""Answers the mount process: one task per request, one loop that reads the link.

Used by `store_process`. Ends when the mount says Stop, or is gone.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from caiafs.core.errors import CaiaError
from caiafs.core.types import DocPath
from caiafs.link.channel import Channel, LinkError
from caiafs.link.messages import (
    AdoptDone,
    AdoptRequest,
    ConflictCopiesDone,
    ConflictCopiesRequest,
    Due,
    FetchDone,
    FetchRequest,
    LoadDone,
    LoadRequest,
    Message,
    Origin,
    OriginsDone,
    OriginsRequest,
    ResetMetrics,
    Seen,
    Stop,
    Stopped,
    StoredDone,
    StoredRequest,
    SyncDone,
    SyncProgress,
    SyncRequest,
    to_path,
    to_text,
)
from caiafs.store.hybrid import HybridStore
from caiafs.sync.attributes import AttributeSaver
from caiafs.sync.conflict_origins import ConflictHistory
from caiafs.sync.contents import Contents
from caiafs.sync.follower import Follower
from caiafs.sync.published import Published
from caiafs.sync.publisher import Publisher
from caiafs.sync.remote import Remote

log = logging.getLogger(__name__)

_LOADS_AT_ONCE = 2
PROGRESS_INTERVAL_S = 0.2


class Service:
    """Serves one link."""

    def __init__(  # noqa: PLR0913  # the parts that answer
        self,
        channel: Channel,
        *,
        published: Published,
        publisher: Publisher,
        stores: HybridStore,
        follower: Follower,
        contents: Contents,
        attributes: AttributeSaver | None,
        conflicts: ConflictHistory,
        remote: Remote | None,
    ) -> None:
        self._channel = channel
        self._published = published
        self._publisher = publisher
        self._stores = stores
        self._follower = follower
        self._contents = contents
        self._attributes = attributes
        self._conflicts = conflicts
        self._remote = remote
        self._loads = trio.CapacityLimiter(_LOADS_AT_ONCE)
        self._requests: dict[type[Message], Callable[[Any], Awaitable[None]]] = {
            StoredRequest: self._stored,
            LoadRequest: self._load,
            SyncRequest: self._sync,
            FetchRequest: self._fetch,
            AdoptRequest: self._adopt,
            ConflictCopiesRequest: self._find_copies,
            OriginsRequest: self._find_origins,
        }

    async def send(self, message: Message) -> None:
        """Tell the mount something."""
        await self._channel.send(message)

    async def run(self) -> None:
        """Serve until Stop was answered or the mount is gone."""
        async with trio.open_nursery() as nursery:
            while (message := await self._receive()) is not None:
                if isinstance(message, Stop):
                    await self._stop(message)
                    break
                self._start(message, nursery)
            nursery.cancel_scope.cancel()

    async def _receive(self) -> Message | None:
        message = await self._channel.receive()
        if message is None:
            log.info("the mount process is gone")
        return message

    def _start(self, message: Message, nursery: trio.Nursery) -> None:
        request = self._requests.get(type(message))
        if request is not None:
            nursery.start_soon(request, message)
        elif isinstance(message, Due):
            self._publisher.due(message)
        elif isinstance(message, Seen):
            self._published.seen(message.number, message.last_seq)
        elif isinstance(message, ResetMetrics):
            self._stores.reset_metrics()
        else:
            raise LinkError(f"a {type(message).__name__} does not come from the mount process")

    async def _stored(self, request: StoredRequest) -> None:
        self._publisher.due(Due(request.last_seq, urgent=True))
        done = await self._published.wait_settled(request.last_seq, request.timeout_s)
        reason = self._publisher.statistics().reason or "it takes longer than allowed"
        await self.send(StoredDone(request.request_id, "" if done else reason))

    async def _sync(self, request: SyncRequest) -> None:
        """Wait until every configured store has everything, telling how far it is."""
        with self._stores.asked():
            remote_left = await self._wait_level(request)
            left = self._left(request.last_seq) | remote_left
        if self._attributes is not None:
            await self._attributes.save()
        reasons = self._stores.reasons() if any(left.values()) else ()
        if left["git"] and self._publisher.statistics().reason:
            reasons = (self._publisher.statistics().reason, *reasons)
        if any(remote_left.values()) and self._remote is not None:
            reasons = (*reasons, *self._remote.reasons())
        await self.send(SyncDone(request.request_id, left, reasons))

    async def _wait_level(self, request: SyncRequest) -> dict[str, int]:
        """Wait for the stores and for the git remote; return what that lacks."""
        remote_left: dict[str, int] = {}
        with trio.move_on_after(request.timeout_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed_remote, request.last_seq, remote_left)
                await self._wait_stores(request)
            await self._wait_stores(request)  # for what the remote brought
        return remote_left

    async def _wait_stores(self, request: SyncRequest) -> None:
        told: dict[str, int] = {}
        while any((left := self._left(request.last_seq)).values()):
            self._publisher.due(Due(request.last_seq, urgent=True))
            if left != told:
                told = left
                await self.send(SyncProgress(request.request_id, left))
            # Several things end this wait, stores among them that say nothing when they do.
            await trio.sleep(PROGRESS_INTERVAL_S if told else 0)

    async def _feed_remote(self, last_seq: int, left: dict[str, int]) -> None:
        """Have the git remote take ops up to `last_seq`, and put into `left` what it lacks; nothing without a remote."""
        if self._remote is not None:
            left["remote"] = max(1, self._remote.left())  # until it has answered
            await self._published.wait_settled(last_seq)
            left["remote"] = await self._remote.bring_level()

    def _left(self, last_seq: int) -> dict[str, int]:
        """Return how many documents each store lacks; ops that are not settled count for all."""
        pending = max(0, last_seq - self._published.settled_seq)
        others = self._stores.documents_left()
        return {"git": pending} | {name: pending + count for name, count in others.items()}

    async def _fetch(self, request: FetchRequest) -> None:
        paths = [to_path(text) for text in request.paths]
        found: list[str] = []
        error = ""
        try:
            await self._follower.fetch(paths)
            found = [to_text(path) for path in paths if self._stores.govc_has(path)]
        except CaiaError as exc:
            error = str(exc) or repr(exc)
        missing = () if error else tuple(text for text in request.paths if text not in found)
        await self.send(FetchDone(request.request_id, tuple(found), missing, error))

    async def _adopt(self, request: AdoptRequest) -> None:
        error = await self._adopt_all(request.timeout_s)
        await self.send(AdoptDone(request.request_id, error))

    async def _find_copies(self, request: ConflictCopiesRequest) -> None:
        found: list[DocPath] = []
        error = ""
        try:
            found = await self._conflicts.copies()
        except CaiaError as exc:
            error = str(exc) or repr(exc)
            log.warning("conflict copies cannot be looked for: %s", error)
        copies = tuple(to_text(path) for path in found)
        await self.send(ConflictCopiesDone(request.request_id, copies, error))

    async def _find_origins(self, request: OriginsRequest) -> None:
        found: list[Origin] = []
        error = ""
        try:
            found = await self._conflicts.origins([to_path(text) for text in request.copies])
        except CaiaError as exc:
            error = str(exc) or repr(exc)
            log.warning("the history of conflicts cannot be read: %s", error)
        await self.send(OriginsDone(request.request_id, tuple(found), error))

    async def _adopt_all(self, timeout_s: float) -> str:
        """Merge with whatever this repository never met; return why it is not done."""
        if self._remote is None:
            return await self._stores.adopt(timeout_s)
        errors = []
        if self._remote.is_unmet:
            with trio.move_on_after(timeout_s) as scope:
                errors.append(await self._remote.adopt())
            if scope.cancelled_caught:
                errors.append("the git remote did not answer yet")
        if self._stores.is_hybrid and not self._stores.may_catch_up:
            errors.append(await self._stores.adopt(timeout_s))
        return "; ".join(error for error in errors if error)

    async def _load(self, request: LoadRequest) -> None:
        error, size = "", 0
        async with self._loads:
            try:
                _, size = await self._contents.cache_file(request.oid)
            except CaiaError as exc:
                error = str(exc) or repr(exc)
                log.warning("blob %s cannot be loaded: %s", request.oid, error)
        await self.send(LoadDone(request.request_id, request.oid, size, error))

    async def _stop(self, message: Stop) -> None:
        """Publish what is pending and bring the stores level, within the grace period."""
        last_seq = self._publisher.statistics().last_seq
        self._publisher.due(Due(last_seq, urgent=True))
        remote_left: dict[str, int] = {}
        with trio.move_on_after(message.grace_s):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed_remote, last_seq, remote_left)
                await self._published.wait_settled(last_seq)
                if self._attributes is not None:
                    await self._attributes.save()
                while self._stores.may_catch_up and any(self._left(last_seq).values()):  # noqa: ASYNC110
                    # A store that is lost meanwhile says nothing: there is no event for all ends of this.
                    await trio.sleep(PROGRESS_INTERVAL_S / 4)
        await self.send(Stopped(self._left(last_seq) | remote_left))
