"""Two stores as one: where a group counts as stored, and how the other store follows.

Used by `sync.publisher`. The primary is asked first and the other store only where it cannot be used; a refusal of one
document is no outage. git's branch moves in any case, because the mount's contents live in its objects; with govc as
the primary and no fallback, it moves only after govc has the group.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import replace

import trio

from caiafs.backends.git.backend import BuiltCommit, GitBackend
from caiafs.backends.git.refs import LOST
from caiafs.backends.govc.limits import OVER_LIMIT
from caiafs.core.config import BackendName, Config
from caiafs.core.errors import RevisionConflict, StoreError, Unreachable
from caiafs.core.types import Change, ChangeSet, DocPath, ObjectId
from caiafs.link.messages import to_text
from caiafs.link.report import BackendReport, Condition, RefusedDocument
from caiafs.store.breaker import BreakerState
from caiafs.store.catchup import CatchUp
from caiafs.store.govc_store import GovcStore
from caiafs.store.meter import Meter
from caiafs.store.pieces import BATCH_DOCUMENTS
from caiafs.store.tally import Tally

log = logging.getLogger(__name__)

_ADOPT_LOOK_S = 0.1


class HybridStore:
    """Routes groups to the stores."""

    def __init__(
        self,
        git: GitBackend,
        govc: GovcStore | None,
        catch_up: CatchUp | None,
        tally: Tally,
        config: Config,
    ) -> None:
        self._git = git
        self._tally = tally
        self._govc = govc
        self._catch_up = catch_up
        self._config = config
        self._git_meter = Meter()
        self._git_refused: dict[DocPath, str] = {}
        self._falls_back = False

    @property
    def mode(self) -> str:
        """What the configuration makes of it."""
        return "git only" if self._govc is None else "hybrid"

    @property
    def is_hybrid(self) -> bool:
        """Whether govc is in use."""
        return self._govc is not None

    @property
    def govc_is_primary(self) -> bool:
        """Whether a group counts as stored when govc has it."""
        return self._govc is not None and self._config.primary_backend is BackendName.GOVC

    async def build_merge(self, change_set: ChangeSet, parents: Sequence[ObjectId]) -> BuiltCommit:
        """Make the commit on the first of `parents`, objects on disk; documents that git cannot hold are left out.

        Those are named in health, and their contents stay under refs/caia/lost/: the mount forgets what is settled.
        """
        async with self._git_meter.measure("build"):
            built = await self._git.build_merge(change_set, parents)
        self._note_refused(change_set, built)
        await self._keep_refused(change_set, built)
        return built

    async def publish(
        self,
        change_set: ChangeSet,
        built: BuiltCommit,
        expected: ObjectId | None,
        *,
        resent: bool,
    ) -> None:
        """Store a group where routing says, and move the branch; see `sync.publisher.Stores`."""
        govc = self._govc if self.govc_is_primary else None
        if govc is not None and not resent:
            await self._try_govc(govc, change_set, built, expected)
        # Where git does not take it the group comes again, and govc stays ahead until then: taken back
        # there meanwhile, it would not be sent a second time.
        async with self._git_meter.measure("commit"):
            await self._git.advance(built, expected)
        if govc is not None:
            govc.ahead = False

    def _note_refused(self, change_set: ChangeSet, built: BuiltCommit) -> None:
        for change in change_set.changes:
            self._git_refused.pop(change.path, None)
        for path, reason in built.refused:
            if self._git_refused.get(path) != reason:
                log.error("git cannot hold %s: %s", to_text(path), reason)
            self._git_refused[path] = reason

    async def _keep_refused(self, change_set: ChangeSet, built: BuiltCommit) -> None:
        left_out = {path for path, _ in built.refused} - {lost.path for lost in built.damaged}
        left = [(c.path, c.after) for c in change_set.changes if c.path in left_out and c.after]
        if not left:
            return
        text = "Keep what git cannot hold at its path\n\n"
        text += "".join(f"{entry.oid} {to_text(path)}\n" for path, entry in left)
        contents = {Change(DocPath(entry.oid.encode()), None, entry) for _, entry in left}
        changes = tuple(sorted(contents, key=lambda change: change.path))
        kept = await self._git.build(ChangeSet("", change_set.author, text, changes), None)
        await self._git.move_ref(f"{LOST}{kept.commit}", kept.commit, None)

    def hold_on(self) -> None:
        """Note that govc has a group that the branch has not yet; see `sync.publisher.Stores`."""
        if self._govc is not None:
            self._govc.ahead = True

    def let_go(self) -> None:
        """A group that govc may have is settled without being published; see `sync.publisher.Stores`."""
        if self._govc is not None:
            self._govc.ahead = False

    async def _try_govc(
        self,
        govc: GovcStore,
        change_set: ChangeSet,
        built: BuiltCommit,
        expected: ObjectId | None,
    ) -> None:
        try:
            await self._store_in_govc(govc, change_set, built, expected)
        except RevisionConflict:
            raise
        except StoreError as exc:
            # Nonsense in an answer is no reason for a save to wait, either.
            if not self._config.enable_fallback:
                raise
            if not self._falls_back:
                log.info("git takes what govc does not: %s", exc)
            self._falls_back = True
        else:
            self._falls_back = False

    async def _store_in_govc(
        self,
        govc: GovcStore,
        change_set: ChangeSet,
        built: BuiltCommit,
        expected: ObjectId | None,
    ) -> None:
        """Commit a group to govc where that is in step with the branch.

        Raises:
            RevisionConflict: somebody committed to govc; take that in first.
            Unreachable, Misconfigured: it cannot be used, or is being brought up to date.
        """
        if not govc.is_connected:
            reason = govc.unmet or govc.problem or "not connected yet"
            raise Unreachable(f"govc: {reason}", backend="govc", operation="commit")
        too_many = len(change_set.changes) > BATCH_DOCUMENTS * 10
        if govc.sending or (too_many and self._config.enable_fallback):
            raise Unreachable("govc is busy", backend="govc", operation="commit")
        async with self._held(govc):
            cursor = govc.cursor
            if cursor is not None and cursor.tree == built.tree:
                return  # from before git failed
            if cursor is None or cursor.tree != self._git.repository.tree_of(expected):
                govc.ahead = False  # catch-up has to go first
                raise Unreachable("govc is behind", backend="govc", operation="commit")
            if await govc.has_moved():
                raise RevisionConflict(
                    "somebody committed to govc", backend="govc", operation="commit"
                )
            govc.ahead = True
            refused = dict(built.refused)
            kept = tuple(c for c in change_set.changes if c.path not in refused)
            size_bytes = sum(max(c.after.size_bytes, 0) for c in kept if c.after is not None)
            await govc.commit(replace(change_set, changes=kept), size_bytes)
            cursor = govc.cursor or cursor
            await govc.move_cursor(
                replace(cursor, tree=built.tree, published=built.commit), save=False
            )

    @asynccontextmanager
    async def _held(self, govc: GovcStore) -> AsyncIterator[None]:
        """Hold govc's lock; whoever has it may send for minutes, and saves wait meanwhile.

        Raises:
            Unreachable: somebody else needs it for longer than one request may take.
        """
        with trio.move_on_after(self._config.operation_timeout_s) as waiting:
            await govc.lock.acquire()
        if waiting.cancelled_caught:
            raise Unreachable("govc is busy", backend="govc", operation="commit")
        try:
            yield
        finally:
            govc.lock.release()

    def documents_left(self) -> dict[str, int]:
        """Return how many documents each store lacks that is to be brought up to date, the branch aside."""
        if self._catch_up is None or not self._catch_up.is_wanted:
            return {}
        return {"govc": self._catch_up.documents_left()}

    def asked(self) -> AbstractContextManager[None]:
        """Bring the other store up to date within the body, whatever the settings."""
        return nullcontext() if self._catch_up is None else self._catch_up.asked()

    @property
    def may_catch_up(self) -> bool:
        """Whether waiting for the other store makes sense: it answers."""
        return self._govc is not None and self._govc.is_connected

    async def adopt(self, timeout_s: float) -> str:
        """Merge the two collections though they never met; return why it is not done, "" when it is."""
        govc = self._govc
        if govc is None or self._catch_up is None:
            return "govc is not configured"
        self._catch_up.adopt()
        with trio.move_on_after(timeout_s):
            while not govc.is_connected:  # noqa: ASYNC110
                # Several things end this, and some of them say nothing.
                await trio.sleep(_ADOPT_LOOK_S)
        return (
            "" if govc.is_connected else (govc.unmet or govc.problem or "govc did not answer yet")
        )

    def reset_metrics(self) -> None:
        """Forget latencies and counts of both stores so far."""
        self._git_meter.reset()
        if self._govc is not None:
            self._govc.meter.reset()

    def govc_has(self, path: DocPath) -> bool:
        """Whether govc is known to hold a document at `path`."""
        cursor = self._govc.cursor if self._govc is not None else None
        if cursor is None:
            return False
        found = self._git.repository.reader.entry_at(cursor.tree, path)
        return found is not None and not found.is_dir

    def reasons(self) -> tuple[str, ...]:
        """Return why a store lacks something."""
        return self.govc_report().reasons

    # --- reports

    def git_report(self, head: ObjectId | None) -> BackendReport:
        """Return how git is."""
        refused = tuple(
            RefusedDocument(to_text(path), reason)
            for path, reason in sorted(self._git_refused.items())
        )
        return BackendReport(
            configured=True,
            implementation="git",
            condition=Condition.DEGRADED if refused else Condition.OK,
            reasons=("git cannot hold some documents",) if refused else (),
            head=head,
            documents=self._tally.documents,
            refused=refused,
            operations=self._git_meter.statistics(),
            last_error=self._git_meter.last_error,
            last_error_age_s=self._git_meter.last_error_age_s,
        )

    def govc_report(self) -> BackendReport:
        """Return how govc is; off where it is not configured."""
        govc = self._govc
        if govc is None or self._catch_up is None:
            return BackendReport(configured=False)
        cursor = govc.cursor
        not_held = tuple(
            RefusedDocument(to_text(path), found.reason)
            for path, found in sorted(cursor.refused.items() if cursor is not None else ())
        )
        too_large = tuple(found for found in not_held if found.reason.startswith(OVER_LIMIT))
        refused = tuple(found for found in not_held if found not in too_large)
        behind = self._catch_up.documents_left()
        reasons = list(self._govc_reasons(govc, behind))
        if refused:
            reasons.append(f"govc does not hold {len(refused)} of the documents")
        capabilities = govc.backend.capabilities
        return BackendReport(
            configured=True,
            implementation=capabilities.implementation,
            condition=self._govc_condition(govc, reasons),
            breaker=govc.breaker.value,
            reasons=tuple(reasons),
            head=cursor.newest if cursor is not None else None,
            documents=self._govc_documents(govc),
            behind=behind,
            listing="complete" if capabilities.lists else "partial",
            refused=refused,
            too_large=too_large,
            operations=govc.meter.statistics(),
            last_error=govc.meter.last_error,
            last_error_age_s=govc.meter.last_error_age_s,
        )

    def _govc_documents(self, govc: GovcStore) -> int:
        """Return what it holds: the cursor's tree without what it refused; a stranger's is what it lists."""
        cursor = govc.cursor
        if cursor is None:
            return govc.backend.documents
        return max(self._tally.documents_in(cursor.tree) - len(cursor.refused), 0)

    def _govc_condition(self, govc: GovcStore, reasons: list[str]) -> Condition:
        if govc.is_connected:
            return Condition.DEGRADED if reasons else Condition.OK
        if govc.misconfigured or govc.unmet or govc.breaker is BreakerState.HALF_OPEN:
            return Condition.DEGRADED
        return Condition.FAILED if govc.problem else Condition.DEGRADED

    def _govc_reasons(self, govc: GovcStore, behind: int) -> list[str]:
        if govc.unmet:
            return [govc.unmet]
        if govc.problem:
            return [govc.problem]
        if not govc.is_connected:
            return ["govc has not answered yet"]
        if behind > 1 and self._catch_up is not None and self._catch_up.is_wanted:
            return [f"govc lacks {behind} documents; they are being sent"]
        return []
