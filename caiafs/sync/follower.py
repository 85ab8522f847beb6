"""Notices what others do to the branch and to govc, and has it taken in.

One task of the store process; also called by publisher and catch-up when they meet something that is not ours.
"""

import logging
from collections.abc import Iterable

import trio

from caiafs.core.errors import CaiaError, Misconfigured, RevisionConflict, StoreError, Unreachable
from caiafs.core.types import DocPath
from caiafs.store.govc_store import GovcStore
from caiafs.sync.foreign import ForeignCommits
from caiafs.sync.published import Published
from caiafs.sync.pushes import Pushes

log = logging.getLogger(__name__)

_BUG_PAUSE_S = 10.0


class Follower:
    """Polls the branch and govc."""

    def __init__(
        self,
        published: Published,
        pushes: Pushes,
        govc: GovcStore | None,
        foreign: ForeignCommits | None,
        *,
        interval_s: float,
    ) -> None:
        self._published = published
        self._pushes = pushes
        self._govc = govc
        self._foreign = foreign
        self._interval_s = interval_s
        self._problem = ""

    async def run(self) -> None:
        """Poll, for ever."""
        while True:
            await trio.sleep(self._interval_s)
            try:
                await self._poll()
            except (Unreachable, Misconfigured):
                continue  # the govc store has noted it
            except CaiaError as exc:
                if str(exc) != self._problem:
                    log.warning("following others failed: %s", exc)
                self._problem = str(exc)
            except Exception:  # a bug here must not stop saves
                log.exception("following others broke")
                await trio.sleep(_BUG_PAUSE_S)
            else:
                self._problem = ""

    async def _poll(self) -> None:
        if self._pushes.has_moved():
            async with self._published.lock:
                await self._pushes.take()
        govc, foreign = self._govc, self._foreign
        if govc is None or foreign is None or not govc.is_connected or govc.lock.locked():
            return
        head = await govc.call("head", govc.backend.head, timeout_s=self._interval_s + 5)
        if govc.cursor is None or head == govc.cursor.head or await foreign.is_all_ours():
            return
        await self.take_foreign()

    async def take_in(self) -> None:
        """Take in what keeps the publisher from going on; with `Published.lock` held."""
        if await self._pushes.take():
            return
        if self._foreign is None or self._govc is None:
            return
        try:
            await self._foreign.take()
        except RevisionConflict:
            raise
        except StoreError as exc:
            # What cannot be read there must not keep saves waiting; git takes them meanwhile.
            self._govc.lose(str(exc))

    async def take_foreign(self, also: Iterable[DocPath] = ()) -> None:
        """Take in what is new in govc, and look at `also`."""
        if self._foreign is None:
            return
        async with self._published.lock:
            await self._foreign.take(also)

    async def fetch(self, paths: Iterable[DocPath]) -> None:
        """Look these paths up in govc and take in what differs.

        Raises:
            Unreachable: govc cannot be asked now.
        """
        if self._govc is None:
            raise Unreachable("govc is not configured", backend="govc", operation="fetch")
        if not self._govc.is_connected:
            raise Unreachable(
                self._govc.unmet or self._govc.problem or "govc has not answered yet",
                backend="govc",
                operation="fetch",
            )
        await self.take_foreign(paths)
