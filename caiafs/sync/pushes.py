"""Takes in what somebody else did to the branch: a `git push`, a commit in another work tree, a rewind.

Used by publisher and follower, with `Published.lock` held. A branch that goes on from ours is taken as it is; one that
does not is merged, and where it was before stays under refs/caia/lost/.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.refs import LOST
from caiafs.backends.git.trees import changed_tree_ids
from caiafs.core.types import NO_OBJECT, Change, DocPath, ObjectId
from caiafs.link.messages import Changes, Message, to_text
from caiafs.sync.branch_merge import BranchMerge, BranchMerged
from caiafs.sync.contents import Contents
from caiafs.sync.identity import Identities
from caiafs.sync.news import split_changes
from caiafs.sync.published import Published

log = logging.getLogger(__name__)


class Pushes:
    """Follows the branch."""

    def __init__(
        self,
        git: GitBackend,
        published: Published,
        contents: Contents,
        send: Callable[[Message], Awaitable[None]],
        identities: Identities,
    ) -> None:
        self._git = git
        self._published = published
        self._merging = BranchMerge(git, contents, identities)
        self._send = send
        self.learn: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Called before the mount hears of commits: what it may ask about them has to be known then."""
        self.conflicts = 0
        self.replaced = ""
        """For health: the repository is not the one that the mount knew."""

    def has_moved(self) -> bool:
        """Whether somebody moved the branch; cheap. Not while we may be moving it."""
        if self._published.lock.locked():
            return False
        return self._git.repository.head_commit() != self._published.commit

    async def take(self) -> bool:
        """Take in the branch as it is now; return whether it had moved.

        Raises:
            RevisionConflict: it moved again meanwhile.
        """
        published = self._published
        head = self._git.repository.head_commit()
        ours = published.commit
        if head == ours:
            return False
        await self._take_in(head, ours)
        log.info("somebody moved the branch to %s", head)
        return True

    async def _take_in(self, head: ObjectId | None, ours: ObjectId | None) -> None:
        history = self._git.log_of
        if ours is None or (head is not None and history.is_ancestor(ours, head)):
            await self.go_to(head)
            return
        await self._git.move_ref(f"{LOST}{ours}", ours, None)
        if head is None or history.is_ancestor(head, ours):
            # Taken back: what was published goes on from there, and nothing changes for the mount.
            await self._git.move_ref(self._git.repository.branch_ref, ours, head)
        else:
            await self._merge(head, ours)

    async def _merge(self, head: ObjectId, ours: ObjectId) -> None:
        """Commit the merge of a branch that went another way."""
        name = self._git.repository.branch_ref.removeprefix("refs/heads/")
        await self.merge(ours, head, f"Merge what was pushed to {name}", expected=head)

    async def merge(
        self, ours: ObjectId, theirs: ObjectId, subject: str, *, expected: ObjectId
    ) -> BranchMerged:
        """Publish the merge of two heads and tell the mount; arguments and errors as `BranchMerge.commit`."""
        merged = await self._merging.commit(ours, theirs, subject, expected=expected)
        self.conflicts += len(merged.copies)
        await self.go_to(
            merged.built.commit, time_ns=merged.theirs_time_ns, conflicts=merged.copies
        )
        return merged

    async def go_to(
        self,
        commit: ObjectId | None,
        *,
        time_ns: int = 0,
        conflicts: Iterable[DocPath] = (),
    ) -> None:
        """Take `commit`, where the branch is, as published, and tell the mount what differs.

        What cannot be read raises before anything counts as taken: the next look at the branch tries again.
        """
        published, reader = self._published, self._git.repository.reader
        tree = self._git.repository.tree_of(commit)
        changes = await self._git.diff(published.tree, tree)
        trees = changed_tree_ids(reader, published.tree, tree)
        published.move(commit, tree)
        await self.tell(changes, trees, commit, time_ns=time_ns, conflicts=conflicts)

    async def tell(
        self,
        changes: Sequence[Change],
        trees: Mapping[DocPath, ObjectId],
        commit: ObjectId | None,
        *,
        time_ns: int = 0,
        conflicts: Iterable[DocPath] = (),
        always: bool = False,
    ) -> None:
        """Tell the mount of changes that it did not make; `before` is what it shows.

        `always`: also where there are none, for the sake of `trees` and `commit`.
        """
        if not changes and not always:
            return
        await self.learn()
        if not time_ns and commit is not None:
            time_ns = self._git.log_of.commit(commit).author.time_ns
        told = self._published.note_foreign(changes, time_ns)
        copies = frozenset(conflicts)
        pieces = split_changes(changes) or [()]
        for number, piece in enumerate(pieces, start=1):
            last = number == len(pieces)
            await self._send(
                Changes(
                    commit or NO_OBJECT,
                    self._published.settled_seq,
                    piece,
                    trees={to_text(path): oid for path, oid in trees.items()} if last else {},
                    commit_time_ns=time_ns,
                    conflicts=tuple(to_text(c.path) for c in piece if c.path in copies),
                    is_last=last,
                    number=told,
                )
            )
