"""Takes the branch of the git remote into ours: forwards where one goes on from the other, else by a merge.

Used by `sync.remote`. The remote's branch is what puts the commits of all machines in one order: ours come after what is
there, so in a conflict ours keeps the name, and what others see afterwards is our merge. A merge has the remote's head as
its first parent: what no document is (submodules, names that cannot be shown) stays as the remote has it.
"""

import logging

from caiafs.backends.git.backend import GitBackend
from caiafs.core.types import EMPTY_TREE, ObjectId
from caiafs.sync.contents import Contents
from caiafs.sync.published import Published
from caiafs.sync.pushes import Pushes

log = logging.getLogger(__name__)

UNMET = (
    "it and the repository both hold documents and have never met: nothing is taken or sent; "
    "`caiafs adopt` merges them"
)
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
        read_only: bool,
    ) -> None:
        self._git = git
        self._published = published
        self._pushes = pushes
        self._contents = contents
        self._read_only = read_only
        self.merges = 0

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
            if not adopts and self._never_met(ours, theirs):
                return UNMET
            if self._read_only:
                return READ_ONLY
            try:
                merged = await self._pushes.merge(ours, theirs, f"Merge {source}", expected=ours)
            finally:
                self._contents.release()
            self.merges += 1
            log.info("merged %s, conflict copies: %d", source, len(merged.copies))
            return ""

    def _never_met(self, ours: ObjectId, theirs: ObjectId) -> bool:
        if self._git.log_of.merge_base(ours, theirs) is not None:
            return False
        return EMPTY_TREE not in {self._published.tree, self._git.repository.tree_of(theirs)}

    async def _go_to(self, theirs: ObjectId, ours: ObjectId | None) -> None:
        if theirs == ours:
            return
        await self._git.move_ref(self._git.repository.branch_ref, theirs, ours)
        await self._pushes.go_to(theirs)
