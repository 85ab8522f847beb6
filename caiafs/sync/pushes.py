"""Takes in what somebody else did to the branch: a `git push`, a `git commit` in another work tree, a rewind.

Used by publisher and follower, with `Published.lock` held.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.trees import changed_tree_ids
from caiafs.core.types import NO_OBJECT, Change, DocPath, ObjectId
from caiafs.link.messages import Changes, Message, to_text
from caiafs.sync.published import Published
from caiafs.sync.publisher import split_changes

log = logging.getLogger(__name__)


class Pushes:
    """Follows the branch."""

    def __init__(
        self, git: GitBackend, published: Published, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self._git = git
        self._published = published
        self._send = send

    def has_moved(self) -> bool:
        """Whether the branch is not where we left it; cheap."""
        if self._published.lock.locked():
            return False
        return self._git.repository.head_commit() != self._published.commit

    async def take(self) -> bool:
        """Take in the branch as it is now; return whether it had moved."""
        head = self._git.repository.head_commit()
        if head == self._published.commit:
            return False
        tree = self._git.repository.tree_of(head)
        log.info("somebody moved the branch to %s", head)
        await self.announce(self._published.tree, tree, head)
        self._published.move(head, tree)
        return True

    async def announce(
        self,
        old_tree: ObjectId,
        new_tree: ObjectId,
        commit: ObjectId | None,
        *,
        time_ns: int = 0,
        conflicts: Iterable[DocPath] = (),
    ) -> list[Change]:
        """Tell the mount what differs between two published trees."""
        changes = await self._git.diff(old_tree, new_tree)
        if not changes:
            return []
        if not time_ns and commit is not None:
            time_ns = self._git.log_of.commit(commit).author.time_ns
        self._published.note_foreign(changes, time_ns)
        copies = frozenset(conflicts)
        reader = self._git.repository.reader
        trees = changed_tree_ids(reader, old_tree, new_tree)
        pieces = split_changes(changes)
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
                )
            )
        return changes
