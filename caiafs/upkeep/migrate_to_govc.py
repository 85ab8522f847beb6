"""git to govc: the documents of a branch, as they are now, in a govc repository."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.contents import GitContents
from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.errors import ConfigError, Corrupt
from caiafs.core.types import ChangeSet, DocPath, Entry, display
from caiafs.store.cursors import Cursor, CursorStore
from caiafs.store.trailers import with_named_changes, with_operation, writer_of
from caiafs.upkeep.check_govc import documents_of, holds_whole
from caiafs.upkeep.migration import (
    Migrated,
    author_now,
    batches,
    operation_id,
    plan_step,
    writer_id,
)
from caiafs.upkeep.place import Place

_LOG_MAX = 4096


@dataclass(frozen=True, slots=True)
class ToGovc:
    """One migration."""

    place: Place
    settings: GovcSettings
    overwrite: bool

    async def run(self, advance: Callable[[int], None] = lambda _: None) -> Migrated:
        """Send what govc lacks, then read everything back.

        Raises:
            StoreError: govc cannot be used, or does not have what it acknowledged; running it again goes on.
        """
        repository = self.place.repository
        head = repository.head_commit()
        if head is None:
            raise ConfigError(f"{self.place.config.repository} holds no documents", exit_code=1)
        reader = repository.new_reader()
        wanted = {
            path: replace(entry, size_bytes=reader.size(entry.oid))
            for path, entry in documents_of(reader, repository.tree_of(head)).items()
        }
        govc = GovcBackend(self.settings, GitContents(repository))
        try:
            await govc.connect()
            is_ours = await self._is_ours(govc)
            done = await self._send(govc, wanted, advance)
        finally:
            await govc.aclose()
        newest = await self._verify(wanted, done)
        if is_ours and done.is_complete:
            await self._remember(newest)
        return done

    @property
    def _writer(self) -> str:
        target = f"{self.settings.url}#{self.settings.repo_name}"
        return writer_id(str(self.place.config.repository), target)

    async def _is_ours(self, govc: GovcBackend) -> bool:
        """Whether nobody but this migration ever wrote there."""
        found = await govc.log(_LOG_MAX)
        ours = all(writer_of(revision.message) == self._writer for revision in found)
        return ours and len(found) < _LOG_MAX

    async def _send(
        self, govc: GovcBackend, wanted: dict[DocPath, Entry], advance: Callable[[int], None]
    ) -> Migrated:
        done = Migrated()
        for batch in batches(wanted):
            step = plan_step(batch, await govc.current(list(batch)), overwrite=self.overwrite)
            done.same += step.same
            done.differing += map(display, step.differing)
            if step.changes:
                operation = operation_id(self._writer, await govc.head(), step.changes)
                plural = "s" if len(step.changes) > 1 else ""
                text = f"Bring {len(step.changes)} document{plural} from git\n"
                message = with_named_changes(with_operation(text, operation), step.changes)
                sent = ChangeSet(operation, author_now(), message, step.changes)
                result = await govc.commit(sent)
                done.refused += [(display(path), reason) for path, reason in result.refused]
                done.copied += len(step.changes) - len(result.refused)
            advance(len(batch))
        return done

    async def _verify(self, wanted: dict[DocPath, Entry], done: Migrated) -> str | None:
        """Read every document with a new connection; return govc's head."""
        left_out = {*done.differing, *(path for path, _ in done.refused)}
        govc = GovcBackend(self.settings, GitContents(self.place.repository))
        try:
            await govc.connect()
            for batch in batches(wanted):
                there = await govc.current(list(batch))
                for path, entry in batch.items():
                    found = there[path]
                    if display(path) in left_out:
                        continue
                    if not entry.same_content(found) or not await holds_whole(govc, path, entry):
                        raise Corrupt(
                            f"{display(path)} is not in govc as it was sent; run it again",
                            backend="govc",
                            operation="migrate",
                        )
            return await govc.head()
        finally:
            await govc.aclose()

    async def _remember(self, newest: str | None) -> None:
        """Note in the repository that the two have met, so that a mount with this govc needs no `adopt`."""
        repository = self.place.repository
        git = GitBackend(repository, GitContents(repository))
        cursors = CursorStore(git, self.settings.url, self.settings.repo_name)
        if await cursors.load() is None:
            head = repository.head_commit()
            tree = await trio.to_thread.run_sync(repository.tree_of, head)
            await cursors.save(Cursor(tree, head, newest, newest), "migrate")
