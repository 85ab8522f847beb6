"""Keeps what was merged in the history: the version that somebody saved is a commit of its own, a parent of the merge.

Used by publisher and foreign. The text that comes of a merge has both sides' lines, yet is neither's version; without
this, one of them would be in no commit.
"""

from collections.abc import Sequence
from typing import Protocol

from caiafs.backends.git.backend import BuiltCommit
from caiafs.core.types import Change, ChangeSet, DocPath, Entry, ObjectId
from caiafs.sync.message import describe
from caiafs.sync.view import TreeReader, TreeView


class Builder(Protocol):
    """Makes commits; `store.hybrid` and `backends.git` have it."""

    async def build_merge(self, change_set: ChangeSet, parents: Sequence[ObjectId]) -> BuiltCommit:
        """Make the commit of `change_set` on the first of `parents`, objects on disk."""
        ...


async def build_keeping(
    builder: Builder,
    change_set: ChangeSet,
    parent: ObjectId | None,
    versions: Sequence[Change],
) -> BuiltCommit:
    """Make the commit of `change_set` on `parent`; `versions` are those that were merged into it."""
    if parent is None:
        return await builder.build_merge(change_set, ())
    if not versions:
        return await builder.build_merge(change_set, (parent,))
    text = f"{describe(versions)[0]}, before a merge\n"
    kept = await builder.build_merge(
        ChangeSet("", change_set.author, text, tuple(versions)), (parent,)
    )
    return await builder.build_merge(change_set, (parent, kept.commit))


def versions_onto(
    reader: TreeReader, tree: ObjectId, merged: Sequence[tuple[DocPath, Entry]]
) -> list[Change]:
    """Return the changes that put versions where they were saved; without those that `tree` holds there."""
    view = TreeView(reader, tree)
    changes = [Change(path, view.get(path), entry) for path, entry in dict(merged).items()]
    return sorted(
        (c for c in changes if c.after is not None and not c.after.same_content(c.before)),
        key=lambda change: change.path,
    )
