"""Merges two sides' changes with the contents that it takes, ready to be committed.

Used by `sync.foreign` (govc) and `sync.pushes` (the branch). What to do is decided in `sync.merge`; here the contents are
read and what comes out of them is held for the commit.
"""

from collections.abc import Callable, Iterable, Sequence

from caiafs.core.types import Change, DocPath, Entry, ObjectId, blob_id
from caiafs.sync.contents import Contents
from caiafs.sync.merge import Conflict, MergeResult, Side, finish_merge, merge_text, plan_merge
from caiafs.sync.view import TreeReader, TreeView


def merge_changes(
    contents: Contents,
    ours: Sequence[Change],
    theirs: Sequence[Change],
    *,
    ours_time_ns: int,
    theirs_time_ns: int,
    later: Side = Side.OURS,
    time_of: Callable[[Conflict], int] | None = None,
) -> MergeResult:
    """Merge two diffs of one base; `later` keeps the name. `contents` holds what is merged.

    `time_of` is what `finish_merge` takes.
    """
    plan = plan_merge(
        {change.path: change for change in ours},
        {change.path: change for change in theirs},
        later=later,
    )
    merged: dict[DocPath, Entry] = {}
    for item in plan.merges:
        base, our_text, their_text = (
            contents.read_small(entry.oid) for entry in (item.base, item.ours, item.theirs)
        )
        if base is None or our_text is None or their_text is None:
            continue
        text = merge_text(base, our_text, their_text, path=item.path)
        if text is None:
            continue
        oid = blob_id(text)
        contents.hold({oid: text})
        merged[item.path] = Entry(item.mode, oid, len(text))
    return finish_merge(
        plan,
        merged,
        ours_time_ns=ours_time_ns,
        theirs_time_ns=theirs_time_ns,
        time_of=time_of,
    )


def with_clashing(
    reader: TreeReader, tree: ObjectId, ours: Sequence[Change], theirs: Iterable[Change]
) -> list[Change]:
    """Return `ours` with what `tree` has where theirs puts a directory over a document, or the other way round.

    govc's names are flat: a client that puts `d` there does not know that we have `d/e`, and no diff names it.
    """
    view = TreeView(reader, tree)
    touched = {change.path for change in ours}
    found: dict[DocPath, Entry] = {}
    for change in theirs:
        touched.add(change.path)
        if change.after is None:
            continue
        found.update(view.below(change.path))
        above = view.document_above(change.path)
        entry = view.get(above) if above is not None else None
        if above is not None and entry is not None:
            found[above] = entry
    untouched = sorted(item for item in found.items() if item[0] not in touched)
    return [*ours, *(Change(path, entry, entry) for path, entry in untouched)]
