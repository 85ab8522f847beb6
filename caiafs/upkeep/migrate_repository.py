"""Repository to repository: all commits and references; a reference that went another way in the target is left alone.

Objects travel as one pack from git to git, in bounded memory, and are checked on arrival. References move last and together.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import trio

from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.refs import LOST, RefUpdate
from caiafs.backends.git.repository import Repository, open_repository
from caiafs.backends.git.trees import diff_trees
from caiafs.core.errors import ConfigError, Corrupt
from caiafs.core.types import ObjectId, display
from caiafs.store.cursors import GOVC_REFS
from caiafs.upkeep.git_run import PIECE_BYTES, check_objects, feed_git, git_output
from caiafs.upkeep.migration import Migrated
from caiafs.upkeep.place import Place

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ToRepository:
    """One migration."""

    source: Place
    target: Place
    overwrite: bool

    async def run(self, advance: Callable[[int], None] = lambda _: None) -> Migrated:
        """Send what the target lacks, move its references, and check every object.

        Raises:
            StoreError: a repository cannot be used, or is damaged; running it again goes on.
        """
        source, target = self.source.repository, self.target.repository
        wanted = source.refs.names("refs/")
        if not wanted:
            raise ConfigError(f"{self.source.config.repository} holds no commit", exit_code=1)
        before = target.refs.names("refs/")
        if any(before.get(name) != oid for name, oid in wanted.items()):
            await self._send(list(dict.fromkeys(wanted.values())), list(before.values()), advance)
        done = Migrated()
        # Cursors last: whether they may go along depends on whether the branches could.
        names = sorted(wanted, key=lambda name: name.startswith(GOVC_REFS))
        updates = [u for name in names for u in self._plan(name, wanted[name], before, done)]
        await trio.to_thread.run_sync(target.refs.update_all, updates)
        done.copied = sum(update.name in wanted for update in updates)
        await self._verify(wanted, done)
        return done

    async def _send(
        self, wanted: list[ObjectId], there: list[ObjectId], advance: Callable[[int], None]
    ) -> None:
        source = self.source.repository
        known = [oid for oid in there if source.reader.exists(oid)]
        text = "".join([*(f"{oid}\n" for oid in wanted), *(f"^{oid}\n" for oid in known)])
        with tempfile.TemporaryFile() as listed:
            listed.write(text.encode())
            listed.seek(0)
            arguments = ("pack-objects", "--revs", "--stdout", "--delta-base-offset", "-q")
            async with git_output(source, *arguments, stdin=listed) as stream:

                async def feed(stdin: trio.abc.SendStream) -> None:
                    while piece := await stream.receive_some(PIECE_BYTES):
                        await stdin.send_all(piece)
                        advance(len(piece))

                index = ("index-pack", "--stdin", "--strict", "--fix-thin")
                await feed_git(self.target.repository, index, feed)

    def _plan(
        self, name: str, oid: ObjectId, before: dict[str, ObjectId], done: Migrated
    ) -> list[RefUpdate]:
        """Return how one reference moves; what stays goes into `done`."""
        old = before.get(name)
        if old == oid:
            done.same += 1
            return []
        if old is None:
            return [RefUpdate(name, oid, None)]
        history = CommitLog(self.target.repository.new_reader())
        if not name.startswith("refs/tags/"):
            if history.is_ancestor(old, oid):
                return [RefUpdate(name, oid, old)]
            if history.is_ancestor(oid, old):
                done.same += 1  # the target has it, and more
                return []
        goes_along = name.startswith(GOVC_REFS) and not done.differing
        if not (self.overwrite or goes_along):
            done.differing += self._differences(name, old, oid)
            return []
        kept = f"{LOST}{old}"
        return [RefUpdate(kept, old, before.get(kept)), RefUpdate(name, oid, old)]

    def _differences(self, name: str, old: ObjectId, new: ObjectId) -> list[str]:
        """Return the documents in which two heads of a branch differ, or just the reference."""
        if not name.startswith("refs/heads/"):
            return [name]
        repository = self.target.repository
        reader = repository.new_reader()
        changes = diff_trees(reader, repository.tree_of(old), repository.tree_of(new))
        shown = [f"{name}: {display(change.path)}" for change in changes[:_SHOWN]]
        more = len(changes) - len(shown)
        return (shown or [name]) + ([f"{name}: {more} more"] if more > 0 else [])

    async def _verify(self, wanted: dict[str, ObjectId], done: Migrated) -> None:
        config = self.target.config
        repository = open_repository(config.repository, branch=config.branch, create=False)
        await check_objects(repository)
        if done.differing:
            return
        there = repository.refs.names("refs/")
        for name, oid in wanted.items():
            if name not in there or not _reaches(repository, there[name], oid):
                raise Corrupt(f"{name} is not where it was put", backend="git", operation="migrate")


def _reaches(repository: Repository, there: ObjectId, oid: ObjectId) -> bool:
    return there == oid or CommitLog(repository.reader).is_ancestor(oid, there)
