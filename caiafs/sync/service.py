"""Answers the mount process: one task per request, one loop that reads the link.

Used by `store_process`. Ends when the mount says Stop, or is gone.
"""

import logging

import trio

from caiafs.core.errors import CaiaError
from caiafs.link.channel import Channel, LinkError
from caiafs.link.messages import (
    Due,
    FetchRequest,
    LoadDone,
    LoadRequest,
    Message,
    Stop,
    Stopped,
    StoredDone,
    StoredRequest,
    SyncRequest,
)
from caiafs.sync.contents import Contents
from caiafs.sync.published import Published
from caiafs.sync.publisher import Publisher

log = logging.getLogger(__name__)

_LOADS_AT_ONCE = 2


class Service:
    """Serves one link."""

    def __init__(
        self,
        channel: Channel,
        *,
        published: Published,
        publisher: Publisher,
        contents: Contents,
    ) -> None:
        self._channel = channel
        self._published = published
        self._publisher = publisher
        self._contents = contents
        self._loads = trio.CapacityLimiter(_LOADS_AT_ONCE)

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
        if isinstance(message, Due):
            self._publisher.due(message)
        elif isinstance(message, StoredRequest):
            nursery.start_soon(self._stored, message)
        elif isinstance(message, LoadRequest):
            nursery.start_soon(self._load, message)
        elif isinstance(message, SyncRequest | FetchRequest):
            raise LinkError("not yet")
        else:
            raise LinkError(f"a {type(message).__name__} does not come from the mount process")

    async def _stored(self, request: StoredRequest) -> None:
        self._publisher.due(Due(request.last_seq, urgent=True))
        done = await self._published.wait_settled(request.last_seq, request.timeout_s)
        reason = self._publisher.statistics().reason or "it takes longer than allowed"
        await self.send(StoredDone(request.request_id, "" if done else reason))

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
        last_seq = self._publisher.statistics().last_seq
        self._publisher.due(Due(last_seq, urgent=True))
        await self._published.wait_settled(last_seq, message.grace_s)
        await self.send(Stopped({"git": self._publisher.statistics().pending_ops}))
