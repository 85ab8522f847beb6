"""How many documents the branch and govc hold, and in how many they differ.

One task of the store process; `store.hybrid` reports the figures. The tree is walked once; after that the figures follow from
the differences of trees, at most a few times a second, so that a report costs nothing. They may lag by that much.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.core.errors import CaiaError
from caiafs.core.types import EMPTY_TREE, Change, GitMode, ObjectId

log = logging.getLogger(__name__)

_PAUSE_S = 0.25
_PAUSE_MAX_S = 60.0
_LOOK_S = 0.5


class Branch(Protocol):
    """The published branch."""

    tree: ObjectId

    async def wait_moved(self) -> None:
        """Wait until it moves."""
        ...


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of two trees.

    Attributes:
        tree, documents: the branch's, and how many it holds.
        other, other_documents: what govc is known to hold.
        differing: documents that differ between the two.
    """

    tree: ObjectId = EMPTY_TREE
    documents: int = 0
    other: ObjectId = EMPTY_TREE
    other_documents: int = 0
    differing: int = 0


class Tally:
    """Keeps the figures."""

    def __init__(
        self, git: GitBackend, branch: Branch, other_tree: Callable[[], ObjectId | None]
    ) -> None:
        self._git = git
        self._branch = branch
        self._other_tree = other_tree
        self._counted = Counted()
        self.changed: Callable[[], None] = lambda: None

    @property
    def documents(self) -> int:
        """How many documents the branch holds."""
        return self._counted.documents

    def documents_in(self, tree: ObjectId) -> int:
        """Return how many documents `tree` holds, the newest figure where it is not counted yet."""
        if tree == EMPTY_TREE:
            return 0
        if tree == self._branch.tree:
            return self._counted.documents
        return self._counted.other_documents

    def differing(self, other: ObjectId) -> int | None:
        """Return in how many documents `other` and the branch differ; None where that is not counted."""
        if other == self._branch.tree:
            return 0
        pair = (self._counted.tree, self._counted.other)
        return self._counted.differing if pair == (self._branch.tree, other) else None

    async def run(self) -> None:
        """Keep them, for ever."""
        pause_s = _PAUSE_S
        while True:
            tree = self._branch.tree
            other = self._other_tree() or EMPTY_TREE
            if (tree, other) != (self._counted.tree, self._counted.other):
                try:
                    self._counted = await self._count(tree, other)
                except CaiaError as exc:  # figures only; what is wrong shows where it matters
                    log.debug("documents cannot be counted: %s", exc)
                    pause_s = min(2 * pause_s, _PAUSE_MAX_S)  # each try may walk the whole tree
                else:
                    pause_s = _PAUSE_S
                self.changed()
                await trio.sleep(pause_s)
            if tree == self._branch.tree:
                with trio.move_on_after(_LOOK_S):
                    await self._branch.wait_moved()

    async def _count(self, tree: ObjectId, other: ObjectId) -> Counted:
        before = self._counted
        if before.tree == EMPTY_TREE and tree != EMPTY_TREE:
            documents = await trio.to_thread.run_sync(self._walk, tree, abandon_on_cancel=True)
        else:
            documents = before.documents + _grown(await self._git.diff(before.tree, tree))
        changes = await self._git.diff(other, tree) if other != EMPTY_TREE else []
        if other == EMPTY_TREE:
            return Counted(tree, documents, other, 0, documents)
        return Counted(tree, documents, other, documents - _grown(changes), len(changes))

    def _walk(self, tree: ObjectId) -> int:
        walked = self._git.repository.new_reader().walk(tree)
        return sum(1 for _, entry in walked if entry.mode != GitMode.GITLINK)


def _grown(changes: list[Change]) -> int:
    """Return by how many documents a tree grows."""
    return sum((change.after is not None) - (change.before is not None) for change in changes)
