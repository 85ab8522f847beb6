"""Two stores as one: where a group counts as stored, and how the other store follows.

Used by `sync.publisher`. git alone so far.
"""

from caiafs.backends.git.backend import BuiltCommit, GitBackend
from caiafs.core.types import ChangeSet, DocPath, ObjectId
from caiafs.link.messages import to_text
from caiafs.link.report import BackendReport, Condition, RefusedDocument
from caiafs.store.meter import Meter


class HybridStore:
    """Routes groups to the stores."""

    def __init__(self, git: GitBackend) -> None:
        self._git = git
        self._git_meter = Meter()
        self._git_refused: dict[DocPath, str] = {}

    async def build(self, change_set: ChangeSet, parent: ObjectId | None) -> BuiltCommit:
        """Make the commit, objects on disk; documents that git cannot hold are left out and noted."""
        async with self._git_meter.measure("build"):
            built = await self._git.build(change_set, parent)
        for change in change_set.changes:
            self._git_refused.pop(change.path, None)
        self._git_refused.update(built.refused)
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
        async with self._git_meter.measure("commit"):
            await self._git.advance(built, expected)

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
            refused=refused,
            operations=self._git_meter.statistics(),
            last_error=self._git_meter.last_error,
            last_error_age_s=self._git_meter.last_error_age_s,
        )
