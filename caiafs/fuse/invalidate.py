"""Tells the kernel what changed without it.

Every notify runs in a thread with a limiter of its own, after the state DB's commit and holding
nothing that a handler needs: on the trio thread an invalidation can deadlock with a request of the
same directory, beyond `kill -9` (tried). Threads are abandoned at shutdown.
"""

import errno
import logging

import pyfuse3
import trio

from caiafs.core.types import InodeNo

log = logging.getLogger(__name__)

_THREADS = 4
_QUEUED_MAX = 100_000


class KernelCache:
    """The kernel's cache of names, attributes and pages."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[InodeNo, bytes, InodeNo | None]](
            _QUEUED_MAX
        )
        self._is_mounted = False
        self._queued = 0
        self._told = trio.Event()
        self.sent = 0
        self.failed = 0

    async def forget_name(
        self, directory: InodeNo, name: bytes, removed: InodeNo | None = None
    ) -> None:
        """Have the kernel look `name` up again.

        With `removed`, the inode that lost the name for good, watchers are told of a deletion.
        """
        await self._queue(directory, name, removed)

    async def forget_attributes(self, ino: InodeNo) -> None:
        """Have the kernel ask for an inode's attributes again; its pages stay."""
        await self._queue(ino, b"", None)

    async def _queue(self, ino: InodeNo, name: bytes, removed: InodeNo | None) -> None:
        if self._is_mounted:
            self._queued += 1
            await self._send.send((ino, name, removed))

    async def wait_told(self) -> None:
        """Return when the kernel has heard what was queued so far; holding nothing that a handler needs."""
        queued = self._queued
        while self.sent + self.failed < queued:
            await self._told.wait()

    async def run(self) -> None:
        """Carry notifies out, until cancelled; before that the kernel knows nothing of us."""
        self._is_mounted = True
        limiter = trio.CapacityLimiter(_THREADS)
        async with trio.open_nursery() as nursery:
            for _ in range(_THREADS):
                nursery.start_soon(self._work, self._receive.clone(), limiter)

    async def _work(
        self,
        receive: "trio.MemoryReceiveChannel[tuple[InodeNo, bytes, InodeNo | None]]",
        limiter: trio.CapacityLimiter,
    ) -> None:
        async with receive:
            async for directory, name, removed in receive:
                try:
                    await trio.to_thread.run_sync(
                        _notify, directory, name, removed, abandon_on_cancel=True, limiter=limiter
                    )
                except OSError as exc:
                    self.failed += 1
                    log.warning("the kernel did not take a notify: %s", exc)
                else:
                    self.sent += 1
                self._told.set()
                self._told = trio.Event()


def _notify(directory: InodeNo, name: bytes, removed: InodeNo | None) -> None:
    """Send one notify. That the kernel does not know the name is as good as done."""
    parent = pyfuse3.InodeT(directory)
    try:
        if not name:
            pyfuse3.invalidate_inode(parent, attr_only=True)
        elif removed is None:
            pyfuse3.invalidate_entry(parent, pyfuse3.FileNameT(name))
        else:
            pyfuse3.invalidate_entry(parent, pyfuse3.FileNameT(name), pyfuse3.InodeT(removed))
    except OSError as exc:
        if exc.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
            raise
