"""What govc holds when it is met again: its log knows more than the cursor, which is not written at every commit.

Used by `store.catchup`, with `GovcStore.lock` held.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from caiafs.backends.base import Revision
from caiafs.backends.git.backend import GitBackend
from caiafs.core.types import Change, ChangeSet, DocPath, Entry, Signature
from caiafs.store.cursors import Cursor
from caiafs.store.govc_store import GovcStore
from caiafs.store.trailers import named_changes, writer_of


async def look_again(
    govc: GovcStore,
    git: GitBackend,
    cursor: Cursor,
    since: Sequence[Revision],
    *,
    writer_id: str,
) -> Cursor:
    """Return the cursor with what our own commits did that came after it was written.

    A process that died in between knows nothing of them, and what they changed may be no step towards the branch as
    it is now.

    Args:
        govc: answers.
        git: has the cursor's tree.
        cursor: as it was written, or further on.
        since: govc's commits after the cursor's head, newest first.
        writer_id: ours.
    """
    known = cursor.newest
    # Up to the first of somebody else's: what comes after that is not known to be there.
    ours = list(itertools.takewhile(lambda r: writer_of(r.message) == writer_id, reversed(since)))
    if ours:
        cursor = replace(cursor, newest=ours[-1].id)
    paths: set[DocPath] = set()
    for revision in itertools.takewhile(lambda r: r.id != known, since):
        if writer_of(revision.message) == writer_id:
            paths.update(change.path for change in named_changes(revision.message) or ())
    changes = await _find_changes(govc, git, cursor, sorted(paths)) if paths else ()
    if changes:
        author = Signature("caiafs", "caiafs@localhost", 0)
        await govc.advance_cursor(cursor, ChangeSet("", author, "", changes), save=True)
        return govc.cursor or cursor
    return cursor


async def _find_changes(
    govc: GovcStore, git: GitBackend, cursor: Cursor, paths: Sequence[DocPath]
) -> tuple[Change, ...]:
    """Return where govc has something else than the cursor says, but for contents that were never ours."""
    there = await govc.current(paths)
    reader = git.repository.reader
    changes = []
    for path in paths:
        after = there[path]
        item = reader.entry_at(cursor.tree, path)
        is_document = item is not None and not item.is_dir
        before = Entry(int(item.mode), item.oid) if item is not None and is_document else None
        if after is not None and not (after.oid and reader.exists(after.oid)):
            continue
        if not (before is after or (before is not None and before.same_content(after))):
            changes.append(Change(path, before, after))
    return tuple(changes)
