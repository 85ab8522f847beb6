"""Takes the branch of the git remote into ours: forwards where one goes on from the other, else by a merge.

Used by `sync.remote`. The remote's branch is what puts the commits of all machines in one order: ours come after what is
there, so in a conflict ours keeps the name, and what others see afterwards is our merge. A merge has the remote's head as
its first parent: what no document is (submodules, names that cannot be shown) stays as the remote has it.
"""

import logging
from collections.abc import Callable

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.log import CommitRecord
from caiafs.backends.git.objects import ObjectReader
from caiafs.core.types import EMPTY_TREE, ChangeSet, DocPath, Entry, ObjectId, Signature
from caiafs.sync.conflict_notes import trailers_of
from caiafs.sync.contents import Contents
from caiafs.sync.merge import Conflict, Side
from caiafs.sync.published import Published
from caiafs.sync.pushes import Pushes
from caiafs.sync.tree_merge import merge_changes

log = logging.getLogger(__name__)

UNMET = (
    "it and the repository both hold documents and have never met: nothing is taken or sent; "
    "`caiafs adopt` merges them"
)
_LOOKS_MAX = 2000
READ_ONLY = "it went another way than the branch, and a mount that is read-only merges nothing"


class RemoteMerge:
    """Brings commits of a remote into the published branch."""

    def __init__(
        self,
        git: GitBackend,
        published: Published,
        pushes: Pushes,
        contents: Contents,
        *,
        author: Callable[[int], Signature],
        read_only: bool,
    ) -> None:
        self._git = git
        self._published = published
        self._pushes = pushes
        self._contents = contents
        self._author = author
        self._read_only = read_only
        self.merges = 0
        self.conflicts = 0

    async def take(self, theirs: ObjectId, *, source: str, adopts: bool) -> str:
        """Take `theirs` in; return why it may not be, "" where the branch has it now.

        Args:
            theirs: a commit that is here with all that it needs.
            source: where it comes from, for the message.
            adopts: a person said that two histories that never met belong together.

        Raises:
            RevisionConflict: somebody moved the branch meanwhile.
            Unreachable, Corrupt: it cannot be read, or the merge not be written.
        """
        async with self._published.lock:
            await self._pushes.take()
            ours = self._published.commit
            history = self._git.log_of
            if ours is None or history.is_ancestor(ours, theirs):
                await self._go_to(theirs, ours)
                return ""
            if history.is_ancestor(theirs, ours):
                return ""
            base = history.merge_base(ours, theirs)
            if base is None and not adopts and self._both_hold_documents(theirs):
                return UNMET
            if self._read_only:
                return READ_ONLY
            try:
                await self._merge(base, ours, theirs, source)
            finally:
                self._contents.release()
            return ""

    def _both_hold_documents(self, theirs: ObjectId) -> bool:
        there = self._git.repository.tree_of(theirs)
        return EMPTY_TREE not in {self._published.tree, there}

    async def _go_to(self, theirs: ObjectId, ours: ObjectId | None) -> None:
        if theirs == ours:
            return
        before = self._published.tree
        await self._git.move_ref(self._git.repository.branch_ref, theirs, ours)
        self._published.move(theirs, self._git.repository.tree_of(theirs))
        await self._pushes.announce(before, self._published.tree, theirs)

    async def _merge(
        self, base: ObjectId | None, ours: ObjectId, theirs: ObjectId, source: str
    ) -> None:
        git, history = self._git, self._git.log_of
        base_tree = git.repository.tree_of(base)
        mine, other = history.commit(ours), history.commit(theirs)
        result = merge_changes(
            self._contents,
            await git.diff(base_tree, mine.tree),
            await git.diff(base_tree, other.tree),
            ours_time_ns=mine.author.time_ns,
            theirs_time_ns=other.author.time_ns,
            time_of=lambda found: self._time_of(
                other if found.side is Side.THEIRS else mine, found
            ),
        )
        # Git's walks go by time: a merge is never older than what it merges, whatever our clock says.
        author = self._author(max(mine.committer.time_ns, other.committer.time_ns))
        notes = "\n".join(trailers_of(result.conflicts))
        text = f"Merge {source}\n" + (f"\n{notes}\n" if notes else "")
        change_set = ChangeSet("", author, text, result.onto_theirs)
        built = await git.build_merge(change_set, (theirs, ours))
        await git.advance(built, ours)
        copies = [conflict.copy_path for conflict in result.conflicts]
        self.merges += 1
        self.conflicts += len(copies)
        log.info("merged %s, conflict copies: %d", source, len(copies))
        before = self._published.tree
        self._published.move(built.commit, built.tree)
        await self._pushes.announce(
            before, built.tree, built.commit, time_ns=other.author.time_ns, conflicts=copies
        )

    def _time_of(self, head: CommitRecord, conflict: Conflict) -> int:
        """Return when the version that goes beside was committed: all who merge it name its copy alike."""
        reader, history = self._git.repository.reader, self._git.log_of
        commit = head
        for _ in range(_LOOKS_MAX):
            having = (
                parent
                for parent in map(history.commit, commit.parents)
                if conflict.beside.same_content(_document(reader, parent.tree, conflict.path))
            )
            earlier = next(having, None)
            if earlier is None:
                break
            commit = earlier
        return commit.author.time_ns


def _document(reader: ObjectReader, tree: ObjectId, path: DocPath) -> Entry | None:
    found = reader.entry_at(tree, path)
    return Entry(int(found.mode), found.oid) if found is not None and not found.is_dir else None
