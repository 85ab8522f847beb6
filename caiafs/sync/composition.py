"""From a group of ops and what differs to the change set that the stores get: author, message, trailers.

Used by `sync.publisher`.
"""

from collections.abc import Sequence

from caiafs.core.types import Change, ChangeSet, DocPath
from caiafs.store.trailers import Operation
from caiafs.sync import message as messages
from caiafs.sync.identity import Identities
from caiafs.sync.selection import Group
from caiafs.sync.view import TreeView


class _Directories:
    """Which directories a commit makes and empties; asked for a few, looks no further than it must."""

    def __init__(self, view: TreeView, changes: Sequence[Change]) -> None:
        self._view = view
        self._changes = changes
        self._is_after = False

    def had(self, directory: DocPath) -> bool:
        assert not self._is_after, "asked in this order"
        return self._view.has_below(directory)

    def has(self, directory: DocPath) -> bool:
        if not self._is_after:
            for change in self._changes:
                self._view.set(change.path, change.after)
            self._is_after = True
        return self._view.has_below(directory)


def change_set_of(
    group: Group,
    changes: tuple[Change, ...],
    *,
    writer_id: str,
    identities: Identities,
    view: TreeView,
    notes: messages.Notes = messages.NO_NOTES,
) -> ChangeSet:
    """Return what `group` makes of the published tree, which is `view`; the view is used up."""
    ops = group.ops
    operation = Operation(writer_id, ops[0].seq, ops[-1].seq)
    programs = tuple(dict.fromkeys(op.program for op in ops if op.program))
    users = dict.fromkeys([group.uid, *(op.uid for op in ops)])
    provenance = messages.Provenance(
        identities.host, tuple(identities.login(uid) for uid in users), programs
    )
    text = messages.compose(
        changes,
        operation,
        provenance,
        notes,
        said=group.said,
        directories=_Directories(view, changes),
    )
    author = identities.signature(group.uid, ops[-1].time_ns)
    return ChangeSet(str(operation), author, text, changes)
