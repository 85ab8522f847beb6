"""govc to git: the documents that a govc repository shows, as commits of a git repository.

What govc cannot list (its default form shows the first level only) is taken from the changes that commits of caiafs name in its
log, and from the paths that the user names.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from caiafs.backends.base import Revision
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.objects import ObjectReader
from caiafs.backends.git.repository import open_repository
from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.errors import CaiaError, Corrupt, NotFound
from caiafs.core.types import Change, ChangeSet, DocPath, Entry, ObjectId, display
from caiafs.store.cursors import Cursor, CursorStore
from caiafs.store.trailers import named_changes, to_ascii_line, with_operation
from caiafs.upkeep.check_govc import documents_of
from caiafs.upkeep.git_run import check_objects
from caiafs.upkeep.migration import (
    Migrated,
    author_now,
    batches,
    operation_id,
    plan_step,
    writer_id,
)
from caiafs.upkeep.place import Place

_LOG_MAX = 16_384
_LOG_SHOWN = 20
_STEP = 200
_IN_MEMORY_BYTES = 1 << 20


@dataclass(slots=True)
class Fetched:
    """Contents just read from govc: small ones in memory, large ones as files; a `ContentSource`."""

    directory: Path
    contents: dict[ObjectId, bytes | Path] = field(default_factory=dict)

    async def read(self, oid: ObjectId) -> bytes:
        """Return a whole content."""
        return await self.read_range(oid, 0, await self.size(oid))

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of a content."""
        found = self._find(oid)
        if isinstance(found, bytes):
            return found[start:stop]
        return await trio.to_thread.run_sync(_read, found, start, stop)

    async def size(self, oid: ObjectId) -> int:
        """Return the length of a content."""
        found = self._find(oid)
        return len(found) if isinstance(found, bytes) else (await trio.Path(found).stat()).st_size

    def _find(self, oid: ObjectId) -> bytes | Path:
        if oid not in self.contents:
            raise NotFound(f"content {oid} was not fetched")
        return self.contents[oid]

    def clear(self) -> None:
        """Forget all of them."""
        for found in self.contents.values():
            if isinstance(found, Path):
                found.unlink(missing_ok=True)
        self.contents.clear()


def _read(file: Path, start: int, stop: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(stop - start)


@dataclass(frozen=True, slots=True)
class ToGit:
    """One migration; `named` are paths that govc may not list."""

    settings: GovcSettings
    place: Place
    overwrite: bool
    named: tuple[DocPath, ...] = ()

    async def run(self, advance: Callable[[int], None] = lambda _: None) -> Migrated:
        """Commit what the repository lacks, then read it back.

        Raises:
            StoreError: govc cannot be used, or the repository does not have what was committed; running it again goes on.
        """
        with tempfile.TemporaryDirectory(prefix=".migrate-", dir=self._beside) as scratch:
            fetched = Fetched(Path(scratch))
            govc = GovcBackend(self.settings, fetched)
            try:
                await govc.connect()
                return await self._run(govc, fetched, advance)
            finally:
                await govc.aclose()

    @property
    def _beside(self) -> Path:
        return self.place.repository.git_dir

    async def _run(
        self, govc: GovcBackend, fetched: Fetched, advance: Callable[[int], None]
    ) -> Migrated:
        done = Migrated()
        log = await govc.log(_LOG_MAX)
        head = log[0].id if log else None
        wanted = await self._documents(govc, log, done)
        git = GitBackend(self.place.repository, fetched)
        reader = self.place.repository.new_reader()
        for batch in batches(wanted):
            tree = self.place.repository.tree_of(self.place.repository.head_commit())
            there = {path: _entry_at(reader, tree, path) for path in batch}
            step = plan_step(batch, there, overwrite=self.overwrite)
            done.same += step.same
            done.differing += map(display, step.differing)
            if step.changes:
                await self._take(govc, git, (step.changes, log), fetched, done)
            fetched.clear()
            advance(len(batch))
        await self._verify(wanted, done)
        if head != await govc.head():
            done.notes.append("somebody wrote to govc meanwhile; run it again for what is new")
        elif done.is_complete:
            await self._remember(git, wanted, head)
        return done

    async def _documents(
        self, govc: GovcBackend, log: Iterable[Revision], done: Migrated
    ) -> dict[DocPath, Entry]:
        """Return what govc holds, as far as anybody can name it."""
        listing = await govc.listing()
        found = {path: entry for path, entry in listing.entries.items() if entry.oid}
        unknown = {path for path, entry in listing.entries.items() if not entry.oid}
        unknown.update(self.named)
        if not listing.complete:
            for revision in log:
                unknown.update(change.path for change in named_changes(revision.message) or ())
            if not self.named:
                done.is_partial = True
                done.notes.append(
                    "this govc lists its first level only; what lies deeper was found by the commits of"
                    " caiafs in its log; name more with --from FILE"
                )
        paths = sorted(unknown - set(found))
        for start in range(0, len(paths), _STEP):
            there = await govc.current(paths[start : start + _STEP])
            for path, entry in there.items():
                if entry is not None and entry.oid:
                    found[path] = entry
                elif entry is not None:
                    done.refused.append((display(path), "what govc has there cannot be read"))
                elif path in self.named:
                    done.refused.append((display(path), "govc does not have it"))
        return found

    async def _take(
        self,
        govc: GovcBackend,
        git: GitBackend,
        planned: tuple[tuple[Change, ...], tuple[Revision, ...]],
        fetched: Fetched,
        done: Migrated,
    ) -> None:
        """Fetch contents and commit them as one commit."""
        changes, log = planned
        kept = []
        for change in changes:
            try:
                await self._fetch(govc, change, fetched)
            except CaiaError as exc:
                if getattr(exc, "retryable", False):
                    raise
                done.refused.append((display(change.path), str(exc)))
            else:
                kept.append(change)
        if not kept:
            return
        before = self.place.repository.head_commit()
        operation = operation_id(self._writer, before, kept)
        message = self._message(len(kept), log if before is None else (), operation)
        result = await git.commit(ChangeSet(operation, author_now(), message, tuple(kept)))
        done.refused += [(display(path), reason) for path, reason in result.refused]
        done.copied += len(kept) - len(result.refused)

    async def _fetch(self, govc: GovcBackend, change: Change, fetched: Fetched) -> None:
        assert change.after is not None, "a migration deletes nothing"
        if change.after.size_bytes <= _IN_MEMORY_BYTES:
            document = await govc.read(change.path)
            if document is None or document.entry.oid != change.after.oid:
                raise Corrupt("it changed while it was read; run it again", backend="govc")
            fetched.contents[change.after.oid] = document.content
            return
        target = fetched.directory / change.after.oid
        with target.open("wb") as file:
            entry = await govc.read_to(change.path, file)
        if entry is None or entry.oid != change.after.oid:
            raise Corrupt("it changed while it was read; run it again", backend="govc")
        fetched.contents[change.after.oid] = target

    @property
    def _source(self) -> str:
        return f"{self.settings.url}#{self.settings.repo_name}"

    @property
    def _writer(self) -> str:
        return writer_id(self._source, str(self.place.config.repository))

    def _message(self, count: int, log: tuple[Revision, ...], operation: str) -> str:
        lines = [f"Bring {count} document{'s' if count > 1 else ''} from govc", ""]
        if log:
            lines += ["The newest commits there:", ""]
            for revision in log[:_LOG_SHOWN]:
                subject = to_ascii_line(revision.message.partition("\n")[0])[:72]
                lines.append(f"  {to_ascii_line(revision.id)[:12]} {subject}")
            lines.append("")
        head = f"Caiafs-Source-Head: {to_ascii_line(log[0].id)}\n" if log else ""
        text = "\n".join(lines) + f"\nCaiafs-Source: {to_ascii_line(self._source)}\n{head}"
        return with_operation(text, operation)

    async def _verify(self, wanted: dict[DocPath, Entry], done: Migrated) -> None:
        """Read the repository afresh: every document is there, and every object is what its id says."""
        repository = open_repository(
            self.place.config.repository, branch=self.place.config.branch, create=False
        )
        found = documents_of(repository.new_reader(), repository.tree_of(repository.head_commit()))
        left_out = {*done.differing, *(path for path, _ in done.refused)}
        for path, entry in wanted.items():
            if display(path) not in left_out and not entry.same_content(found.get(path)):
                raise Corrupt(
                    f"{display(path)} is not in git as it was fetched; run it again",
                    backend="git",
                    operation="migrate",
                )
        await check_objects(repository)

    async def _remember(
        self, git: GitBackend, wanted: dict[DocPath, Entry], newest: str | None
    ) -> None:
        """Note that the two have met where they hold the same, so that a mount of both needs no `adopt`."""
        repository = self.place.repository
        head = repository.head_commit()
        tree = repository.tree_of(head)
        if set(documents_of(repository.new_reader(), tree)) != set(wanted):
            return
        cursors = CursorStore(git, self.settings.url, self.settings.repo_name)
        if await cursors.load() is None:
            await cursors.save(Cursor(tree, head, newest, newest), "migrate")


def _entry_at(reader: ObjectReader, tree: ObjectId, path: DocPath) -> Entry | None:
    found = reader.entry_at(tree, path)
    return Entry(int(found.mode), found.oid) if found is not None else None
