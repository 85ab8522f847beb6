"""Compares what govc holds with the branch, document by document, every `sync_interval`, and repairs it.

One task of the store process. By the listing where the server has one, else by the paths that are known. What is missing or one of
our own older versions is sent again; what was never ours is taken in by the follower's rules. Reads in small steps with pauses and
holds no lock meanwhile: live saves go first.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.core.errors import CaiaError, Misconfigured, Unreachable
from caiafs.core.types import DocPath, Entry, GitMode, ObjectId
from caiafs.store.catchup import CatchUp
from caiafs.store.govc_store import GovcStore

log = logging.getLogger(__name__)

STEP_DOCUMENTS = 200
_BUSY_PAUSE_S = 0.5
_LISTING_DOCUMENTS = 5000


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """How far the comparison is.

    Attributes:
        left: documents still to be looked at, 0 between two comparisons.
        looked_at, repaired, foreign: of the one that runs, or of the last one.
        done: comparisons that came to their end.
    """

    left: int = 0
    looked_at: int = 0
    repaired: int = 0
    foreign: int = 0
    done: int = 0


class Comparison:
    """Looks at every document that govc holds."""

    def __init__(
        self,
        govc: GovcStore,
        git: GitBackend,
        catch_up: CatchUp,
        *,
        interval_s: float,
        take_foreign: Callable[[Iterable[DocPath]], Awaitable[None]],
    ) -> None:
        self._govc = govc
        self._git = git
        self._catch_up = catch_up
        self._interval_s = interval_s
        self._take_foreign = take_foreign
        self._left = self._looked_at = self._repaired = self._foreign = self._done = 0
        self.progress: Callable[[], None] = lambda: None

    def statistics(self) -> ComparisonReport:
        """Return how far it is."""
        return ComparisonReport(
            self._left, self._looked_at, self._repaired, self._foreign, self._done
        )

    async def run(self) -> None:
        """Compare every interval, for ever."""
        while True:
            await trio.sleep(self._interval_s)
            try:
                await self.compare()
            except (Unreachable, Misconfigured):
                pass  # the govc store has noted it; catch-up looks when it is back
            except CaiaError as exc:
                log.warning("comparing the stores failed: %s", exc)
            except Exception:  # a bug here must not stop saves
                log.exception("comparing the stores broke")
            self._left = 0
            self.progress()

    async def compare(self) -> None:
        """Look at every document once.

        Raises:
            Unreachable, Misconfigured: govc cannot be asked.
        """
        self._looked_at = self._repaired = self._foreign = 0
        await self._make_way()
        paths = await self._paths()
        self._left = len(paths)
        for start in range(0, len(paths), STEP_DOCUMENTS):
            step = paths[start : start + STEP_DOCUMENTS]
            await self._make_way()
            began = trio.current_time()
            await self._compare_step(step)
            self._looked_at += len(step)
            self._left -= len(step)
            self.progress()
            # Half of the server's time, at most.
            await trio.sleep(min(trio.current_time() - began, 5.0))
        self._done += 1
        if self._repaired or self._foreign:
            log.info("compared with govc: %d sent again", self._repaired)

    async def _make_way(self) -> None:
        """Wait until govc has what was saved: what it lacks until then is no difference."""
        while not self._catch_up.is_current or self._govc.lock.locked():  # noqa: ASYNC110
            # Several things end this, a reconnection and a writer that lets go among them.
            await trio.sleep(_BUSY_PAUSE_S)

    async def _paths(self) -> list[DocPath]:
        """Return what is to be looked at: where a listing has hashes, only what differs by them."""
        govc, tree = self._govc, self._tree()
        known = await trio.to_thread.run_sync(self._walk, tree, abandon_on_cancel=True)
        if not govc.backend.capabilities.lists:
            return list(known)
        listing = await govc.call(
            "list", govc.backend.listing, timeout_s=govc.deadline_s(_LISTING_DOCUMENTS, 0)
        )
        if not listing.complete:
            return list({**known, **listing.entries})
        there = listing.entries
        found = [path for path, entry in known.items() if not entry.same_content(there.get(path))]
        self._looked_at = len(known) - len(found)
        return found + [path for path in there if path not in known]

    def _tree(self) -> ObjectId:
        cursor = self._govc.cursor
        if cursor is None:
            raise Unreachable("govc is not connected", backend="govc", operation="compare")
        return cursor.tree

    def _walk(self, tree: ObjectId) -> dict[DocPath, Entry]:
        walked = self._git.repository.new_reader().walk(tree)
        return {
            path: Entry(int(entry.mode), entry.oid)
            for path, entry in walked
            if entry.mode != GitMode.GITLINK
        }

    async def _compare_step(self, paths: Sequence[DocPath]) -> None:
        govc, tree = self._govc, self._tree()
        there = await govc.current(paths, operation="compare")
        if self._tree() != tree:
            return  # what was saved meanwhile makes these answers old; the next comparison looks again
        differing = [path for path in paths if self._differs(tree, path, there[path])]
        if not differing:
            return
        sent, foreign = await self._repair(differing)
        self._repaired += sent
        if foreign:
            self._foreign += len(foreign)
            await self._take_foreign(foreign)

    async def _repair(self, paths: Iterable[DocPath]) -> tuple[int, set[DocPath]]:
        """Send what govc lacks at `paths` though it counted as held.

        Returns:
            How many documents were sent, and paths where govc has what we never saw.

        Raises:
            Unreachable, Misconfigured: govc cannot be asked.
        """
        govc = self._govc
        async with govc.lock:
            cursor = govc.cursor
            if (
                cursor is None
                or not self._catch_up.is_current
                or govc.ahead
                or await govc.has_moved()
            ):
                return 0, set()
            return await self._catch_up.batches.send_again(cursor, paths)

    def _differs(self, tree: ObjectId, path: DocPath, there: Entry | None) -> bool:
        item = self._git.repository.reader.entry_at(tree, path)
        if item is None or item.is_dir:
            return there is not None
        cursor = self._govc.cursor
        refused = cursor.refused.get(path) if cursor is not None else None
        if refused is not None and refused.oid == item.oid:
            return False  # catch-up sends it again
        return not Entry(int(item.mode), item.oid).same_content(there)
