"""From a group of ops and what differs to the change set that the stores get: author, message, trailers, document ids.

Used by `sync.publisher`, with `Published.lock` held.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from caiafs.core.errors import CaiaError
from caiafs.core.types import Change, ChangeSet, DocPath, ObjectId
from caiafs.store.trailers import Operation
from caiafs.sync import message as messages
from caiafs.sync.conflict_notes import notes_of
from caiafs.sync.document_history import DocumentHistory
from caiafs.sync.document_trailers import Told, told_by
from caiafs.sync.documents import Documents
from caiafs.sync.identity import Identities
from caiafs.sync.replay import Replay
from caiafs.sync.selection import Group
from caiafs.sync.view import TreeReader, TreeView

log = logging.getLogger(__name__)


class Composer:
    """Composes the commits of one writer."""

    def __init__(
        self,
        writer_id: str,
        identities: Identities,
        reader: TreeReader,
        documents: Documents,
        history: DocumentHistory,
    ) -> None:
        self._writer_id = writer_id
        self._identities = identities
        self._reader = reader
        self._documents = documents
        self._history = history
        self._knows_ids = True

    async def change_set(self, group: Group, plan: Replay, tree: ObjectId) -> ChangeSet:
        """Return what `group` makes of the published tree `tree`."""
        ops, identities = group.ops, self._identities
        operation = Operation(self._writer_id, ops[0].seq, ops[-1].seq)
        programs = tuple(dict.fromkeys(op.program for op in ops if op.program))
        users = dict.fromkeys([group.uid, *(op.uid for op in ops)])
        provenance = messages.Provenance(
            identities.host, tuple(identities.login(uid) for uid in users), programs
        )
        notes = notes_of(plan, self._reader, tree)
        told = await self._plan_ids(group, plan, str(operation))
        text = messages.compose(
            plan.changes,
            operation,
            provenance,
            replace(notes, trailers=(*notes.trailers, *told.trailers())),
            said=group.said,
            directories=_Directories(TreeView(self._reader, tree), plan.changes),
        )
        author = identities.signature(group.uid, ops[-1].time_ns)
        return ChangeSet(str(operation), author, text, plan.changes)

    def published(self, commit: ObjectId, group: Group, change_set: ChangeSet) -> None:
        """Note that the branch has `change_set`, as `commit`."""
        if not self._knows_ids:
            return  # learned from the commit, as soon as ids can be learned again
        told = told_by(change_set.message)
        try:
            self._documents.note_group(commit, group.ops, change_set.changes, told)
        except CaiaError as exc:
            log.warning("ids of documents are not noted: %s", exc)

    async def _plan_ids(self, group: Group, plan: Replay, operation: str) -> Told:
        """Return what the commit tells of ids; nothing where they are not known: no save waits for that."""
        try:
            await self._history.catch_up()
            self._knows_ids = True
            return self._documents.plan(group.ops, plan.changes, operation)
        except CaiaError as exc:
            if self._knows_ids:
                log.warning("ids of documents are not known: %s", exc)
            self._knows_ids = False
            return Told()


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
