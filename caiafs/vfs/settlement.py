"""What the state DB may forget: ops and contents that a ref on disk reaches.

Called by app for each `Settled`, on the trio thread. Works in small transactions with checkpoints
between them, so that a group of thousands does not hold requests up.
"""

import logging
from typing import NamedTuple

import trio

from caiafs.core.errors import StateCorrupt, StateError, StateFull
from caiafs.core.types import InodeNo, ObjectId
from caiafs.state.extents import Extents
from caiafs.state.journal import Journal
from caiafs.state.spool import Spool
from caiafs.vfs.body import SpoolBody
from caiafs.vfs.inode import LOCAL
from caiafs.vfs.table import InodeTable

log = logging.getLogger(__name__)

_SLICE = 200
_RETRY_S = 1.0


class _Row(NamedTuple):
    """An op that is settled, and where its content is."""

    seq: int
    ino: int
    content: int | None
    oid: bytes | None
    spool: str | None
    extents: bytes | None

    def blob(self) -> ObjectId | None:
        """Return the blob that the spool file is, None where it is not just that."""
        if self.oid is None or self.extents is None:
            return None
        try:
            is_plain_file = Extents.from_bytes(self.extents).is_plain_file
        except StateCorrupt:  # it is in git: nobody needs the map any more
            return None
        return ObjectId(self.oid.hex()) if is_plain_file else None


class Settlement:
    """Forgets what is settled."""

    def __init__(self, journal: Journal, table: InodeTable, spool: Spool) -> None:
        self._journal = journal
        self._table = table
        self._spool = spool
        self._wanted_seq = 0
        self._full = trio.Event()
        self._spooled: list[_Row] = []
        """Whose spool files nobody needs once what was said so far is committed."""

    async def settled(self, last_seq: int) -> int:
        """Forget ops up to `last_seq`, and the contents that only they needed; on a full disk later.

        Returns how many spool files were given up, to the disk cache as a rule.
        """
        self._wanted_seq = max(self._wanted_seq, last_seq)
        try:
            return await self._forget_all(last_seq)
        except StateFull as exc:
            log.warning("what is published is forgotten later: %s", exc)
            self._full.set()
        except StateError as exc:  # damage, which health tells of; ops that stay are settled again
            log.error("what is published is not forgotten: %s", exc)  # noqa: TRY400  # no bug
        return 0

    async def run(self) -> None:
        """Forget what a full disk kept, until cancelled."""
        while True:
            await self._full.wait()
            await trio.sleep(_RETRY_S)
            try:
                await self._forget_all(self._wanted_seq)
            except StateFull:
                continue
            except StateError as exc:
                log.error("what is published is not forgotten: %s", exc)  # noqa: TRY400  # as above
            self._full = trio.Event()

    async def _forget_all(self, last_seq: int) -> int:
        self._commit()  # rows that an earlier try has done with are gone then
        spool_files = 0
        sql = (
            "SELECT op.seq, op.ino, op.content, op.oid, content.spool, content.extents"
            " FROM op LEFT JOIN content ON content.id = op.content"
            " WHERE op.seq<=? ORDER BY op.seq LIMIT ?"
        )
        while rows := self._journal.db.rows(sql, last_seq, _SLICE):
            spool_files += self._forget([_Row(*row) for row in rows])
            await trio.lowlevel.checkpoint()
        return spool_files

    def _forget(self, rows: list["_Row"]) -> int:
        journal = self._journal
        journal.run_sql("DELETE FROM op WHERE seq<=?", rows[-1].seq)
        spooled = 0
        for row in rows:
            journal.op_settled(row.seq, row.ino, row.content)
            if row.content is None or self._is_only_here(row):
                continue
            inode = self._table.peek(InodeNo(row.ino))
            if inode is not None and inode.content == row.content and not inode.row_open:
                # Its row keeps the number: a content that is not there any more is in git.
                inode.content = None
            if not journal.is_op_content(row.content):
                journal.run_sql("DELETE FROM content WHERE id=?", row.content)
                if row.spool is not None:
                    journal.run_sql("DELETE FROM synced WHERE content=?", row.content)
                    self._spooled.append(row)
                    spooled += 1
        journal.put_meta("settled_seq", rows[-1].seq)
        self._commit()
        return spooled

    def _is_only_here(self, row: "_Row") -> bool:
        """Whether a file that is not published needs an op's content: where it left its path soon, no commit has it."""
        inode = self._table.peek(InodeNo(row.ino))
        if inode is not None:
            is_private = not inode.nlink or bool(inode.flags & LOCAL)
            return is_private and inode.content == row.content
        sql = "SELECT 1 FROM inode WHERE ino=? AND content=? AND flags & ?"
        return bool(self._journal.db.rows(sql, row.ino, row.content, LOCAL))

    def _commit(self) -> None:
        self._journal.commit()
        spooled, self._spooled = self._spooled, []
        if not spooled:
            return
        bodies = [inode.body for inode in self._table.in_memory()]
        in_use = {body.spool.name for body in bodies if isinstance(body, SpoolBody)}
        for row in spooled:
            assert row.spool is not None, "only those were kept"
            if row.spool not in in_use:  # else `Contents.let_go` removes it
                self._drop_file(row.spool, row.blob())

    def _drop_file(self, name: str, blob: ObjectId | None) -> None:
        """Remove a spool file, or make it the disk cache's, unless another content needs it."""
        if self._journal.db.rows("SELECT 1 FROM content WHERE spool=? LIMIT 1", name):
            return
        if blob is not None:
            self._spool.adopt(name, blob)
        else:
            self._spool.remove(name)
