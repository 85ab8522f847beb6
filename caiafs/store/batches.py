"""Sends differences to govc: pieces of a commit, and batches that look first at what is there.

Used by `store.catchup`, with `GovcStore.lock` held. A batch that is sent twice makes one commit.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from caiafs.backends.git.backend import GitBackend
from caiafs.core.conflicts import MARK
from caiafs.core.types import Change, ChangeSet, DocPath, Entry, ObjectId, Signature
from caiafs.store.cursors import Cursor
from caiafs.store.govc_store import GovcStore
from caiafs.store.pieces import BATCH_BYTES, BATCH_DOCUMENTS, plan_pieces
from caiafs.store.trailers import (
    NamedConflict,
    conflict_trailers,
    named_conflicts,
    with_operation,
)

_CONFLICTS_SEARCH = 1000


class Batches:
    """Sends changes to one govc repository."""

    def __init__(
        self,
        govc: GovcStore,
        git: GitBackend,
        *,
        writer_id: str,
        author: Callable[[], Signature],
    ) -> None:
        self._govc = govc
        self._git = git
        self._writer_id = writer_id
        self._author = author

    async def send_pieces(
        self, changes: Sequence[Change], operation_id: str, author: Signature, message: str
    ) -> None:
        """Send one commit, in several where it is too much for one."""
        pieces = plan_pieces(changes, [await self._size_of(change) for change in changes])
        for number, piece in enumerate(pieces, start=1):
            piece_id, text = operation_id, message
            if number < len(pieces):
                piece_id = self.piece_id(piece.changes)
                subject = message.partition("\n")[0]
                text = f"{subject} (part {number} of {len(pieces)})\n"
            change_set = ChangeSet(piece_id, author, with_operation(text, piece_id), piece.changes)
            await self._govc.commit(change_set, piece.size_bytes)

    async def send_batch(
        self, waiting: dict[DocPath, Change], first: list[DocPath]
    ) -> set[DocPath]:
        """Send one batch out of `waiting`, live saves (`first`) first."""
        batch: list[Change] = []
        sizes: list[int] = []
        for path in (*first, *waiting):
            if len(batch) >= BATCH_DOCUMENTS or sum(sizes) > BATCH_BYTES:
                break
            if path in waiting and all(path != change.path for change in batch):
                batch.append(waiting[path])
                sizes.append(await self._size_of(waiting[path]))
        there = await self._govc.current([change.path for change in batch])
        foreign = {c.path for c in batch if self._is_foreign(c, there.get(c.path))}
        if foreign:
            return foreign
        to_send = tuple(c for c in batch if not _holds(there.get(c.path), c.after))
        self._govc.note_held({c.path for c in batch} - {c.path for c in to_send})
        if to_send:
            operation_id = self.piece_id(to_send)
            plural = "s" if len(to_send) > 1 else ""
            notes = "\n".join(self._conflicts_among(to_send))
            text = f"Bring {len(to_send)} document{plural} up to date\n"
            text += f"\n{notes}\n" if notes else ""
            change_set = ChangeSet(
                operation_id, self._author(), with_operation(text, operation_id), to_send
            )
            await self._govc.commit(change_set, sum(sizes))
        cursor = self._govc.cursor
        assert cursor is not None, "it is connected"
        done = ChangeSet("", self._author(), "", tuple(batch))
        await self._govc.advance_cursor(cursor, done, save=True)
        for change in batch:
            del waiting[change.path]
        first[:] = [path for path in first if path in waiting]
        return set()

    async def send_again(
        self, cursor: Cursor, paths: Iterable[DocPath]
    ) -> tuple[int, set[DocPath]]:
        """Send what govc lacks at `paths` though `cursor`, where it is now, counts it as held.

        Returns:
            How many documents were looked at and, where they were missing, sent; and paths where govc has what we never saw.

        Raises:
            Unreachable, Misconfigured: govc cannot be asked.
        """
        govc, foreign, sent = self._govc, set[DocPath](), 0
        waiting = {path: self._as_it_is(cursor.tree, path) for path in paths}
        govc.sending = True
        try:
            while waiting:
                before = len(waiting)
                strange = await self.send_batch(waiting, [])
                foreign |= strange
                for path in strange:
                    del waiting[path]
                sent += before - len(waiting) - len(strange)
            # The tree is what it was, so that the commit with that tree is too.
            held = replace(govc.cursor or cursor, published=cursor.published)
            await govc.move_cursor(held, save=True)
        finally:
            govc.sending = False
        return sent, foreign

    def _as_it_is(self, tree: ObjectId, path: DocPath) -> Change:
        item = self._git.repository.reader.entry_at(tree, path)
        if item is None or item.is_dir:
            return Change(path, None, None)
        entry = Entry(int(item.mode), item.oid)
        return Change(path, entry, entry)

    def _conflicts_among(self, changes: Sequence[Change]) -> list[str]:
        """Return the trailers of conflict copies in a difference: its commits, which name them, are not sent."""
        copies = {c.path for c in changes if c.before is None and MARK in bytes(c.path)}
        found: list[NamedConflict] = []
        if not copies:
            return []
        history = self._git.log_of.newest(self._git.repository.head_commit())
        for record in itertools.islice(history, _CONFLICTS_SEARCH):
            if "Caiafs-Conflict: " in record.message:
                found += [c for c in named_conflicts(record.message) if c.copy in copies]
        return conflict_trailers(dict.fromkeys(found))

    def _is_foreign(self, change: Change, there: Entry | None) -> bool:
        """Whether govc has a content at this path that was never ours."""
        if there is None or not there.oid or _holds(there, change.after):
            return False
        if change.before is not None and there.oid == change.before.oid:
            return False
        return not self._git.repository.reader.exists(there.oid)

    async def _size_of(self, change: Change) -> int:
        if change.after is None:
            return 0
        if change.after.size_bytes >= 0:
            return change.after.size_bytes
        return self._git.repository.reader.size(change.after.oid)

    def piece_id(self, changes: Iterable[Change]) -> str:
        """Return the operation id of a step that has none of its own."""
        digest = hashlib.sha1()
        for change in changes:
            before = change.before.oid if change.before else "-"
            after = f"{change.after.mode:o} {change.after.oid}" if change.after else "-"
            digest.update(b"%s\0%s\0%s\n" % (change.path, before.encode(), after.encode()))
        # The head makes two identical steps at different times two operations.
        digest.update(repr(self._govc.cursor.newest if self._govc.cursor else None).encode())
        return f"{self._writer_id}-diff-{digest.hexdigest()[:20]}"


def _holds(there: Entry | None, wanted: Entry | None) -> bool:
    return there is None if wanted is None else wanted.same_content(there)
