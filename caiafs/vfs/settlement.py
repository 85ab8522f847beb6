"""What the state DB may forget: ops and contents that a ref on disk reaches.

Called by app for each `Settled`, on the trio thread. Works in small transactions with checkpoints
between them, so that a group of thousands does not hold requests up.
"""

import trio

from caiafs.core.types import InodeNo, ObjectId
from caiafs.state.extents import Extents
from caiafs.state.journal import Journal
from caiafs.state.spool import Spool
from caiafs.vfs.body import SpoolBody
from caiafs.vfs.table import InodeTable

_SLICE = 200


class Settlement:
    """Forgets what is settled."""

    def __init__(self, journal: Journal, table: InodeTable, spool: Spool) -> None:
        self._journal = journal
        self._table = table
        self._spool = spool

    async def settled(self, last_seq: int) -> None:
        """Forget ops up to `last_seq`, and the contents that only they needed."""
        sql = "SELECT seq, ino, content, oid FROM op WHERE seq<=? ORDER BY seq LIMIT ?"
        while rows := self._journal.db.rows(sql, last_seq, _SLICE):
            self._forget(rows)
            await trio.lowlevel.checkpoint()

    def _forget(self, rows: list[tuple[int, int, int | None, bytes | None]]) -> None:
        journal = self._journal
        journal.run_sql("DELETE FROM op WHERE seq<=?", rows[-1][0])
        spooled: list[tuple[str, ObjectId | None]] = []
        for _, ino, content, oid in rows:
            if content is None:
                continue
            self._release(InodeNo(ino), content)
            spooled += self._plain_files(content, oid)
            journal.run_sql(
                "DELETE FROM content WHERE id=?1"
                " AND NOT EXISTS (SELECT 1 FROM op WHERE content=?1)"
                " AND NOT EXISTS (SELECT 1 FROM inode WHERE ino=?2 AND content=?1)",
                content,
                ino,
            )
        journal.commit()
        for name, blob in spooled:
            self._drop_file(name, blob)

    def _release(self, ino: InodeNo, content: int) -> None:
        """Note that git has what a content row has."""
        inode = self._table.peek(ino)
        if inode is None:
            sql = "UPDATE inode SET content=NULL WHERE ino=? AND content=?"
            self._journal.run_sql(sql, ino, content)
        elif inode.content == content and not inode.row_open:
            inode.content = None
            self._journal.touch(inode)

    def _plain_files(self, content: int, oid: bytes | None) -> list[tuple[str, ObjectId | None]]:
        """Return a content's spool file, with the blob that it is when it is just that."""
        sql = "SELECT spool, extents FROM content WHERE id=? AND spool NOT NULL"
        found: list[tuple[str, ObjectId | None]] = []
        for name, packed in self._journal.db.rows(sql, content):
            is_plain = oid is not None and Extents.from_bytes(packed).is_plain_file
            found.append((name, ObjectId(oid.hex()) if is_plain and oid else None))
        return found

    def _drop_file(self, name: str, blob: ObjectId | None) -> None:
        """Remove a spool file, or make it the disk cache's, unless somebody still writes there."""
        if self._journal.db.rows("SELECT 1 FROM content WHERE spool=? LIMIT 1", name):
            return
        for inode in self._table.in_memory():
            if isinstance(inode.body, SpoolBody) and inode.body.spool.name == name:
                return  # `Contents.let_go` removes it
        if blob is not None:
            self._spool.adopt(name, blob)
        else:
            self._spool.remove(name)
