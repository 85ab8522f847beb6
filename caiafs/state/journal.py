"""What the vfs has changed and the state DB has not seen yet, committed as one transaction.

Used by vfs only, on the trio thread. Nothing here awaits except `run`: everything between two
commits is one transaction, so the DB never shows half an operation. An operation whose result a
crash may not take back calls `commit`; the rest says `commit_within` and rides along with the next
one.
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import trio

from caiafs.core.errors import StateError, StateFull
from caiafs.core.types import ROOT_INODE, InodeNo, ObjectId
from caiafs.state.database import StateDatabase
from caiafs.state.ops import NewOp

log = logging.getLogger(__name__)

_PUT_INODE = "INSERT OR REPLACE INTO inode VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_PUT_OP = "INSERT INTO op VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_PUT_DENTRY = "INSERT OR REPLACE INTO dentry VALUES (?,?,?,?)"
_DROP_DENTRY = "DELETE FROM dentry WHERE parent=? AND name=?"

_PUT_META = "INSERT OR REPLACE INTO meta VALUES (?,?)"
_IDS_RESERVED = 1024
_SKIPPED_AFTER_REBOOT = 1 << 20
"""A power cut may have taken ops back whose numbers the stores have seen; an op that gets such a number would pass for settled."""

BACKGROUND_DELAY_S = 0.5
"""What nobody was promised yet reaches the DB after this long."""


def raw_id(oid: ObjectId | None) -> bytes | None:
    """Return an object id as its column holds it."""
    return bytes.fromhex(oid) if oid is not None else None


class RowSource(Protocol):
    """An inode, as far as its row goes."""

    ino: InodeNo

    def row(self) -> tuple[Any, ...]:
        """Return the columns of `inode`, in order, without `round`."""
        ...


class Journal:
    """Collects changes of the state DB and commits them."""

    def __init__(self, db: StateDatabase) -> None:
        self.db = db
        self._rows: dict[InodeNo, RowSource] = {}
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        self._next_ino = self._reserved_ino = max(db.meta("next_ino") or 0, ROOT_INODE + 1)
        settled = db.meta("settled_seq") or 0
        self._last_seq = max(_highest(db, "SELECT max(seq) FROM op"), settled)
        self._skipped_seqs = _SKIPPED_AFTER_REBOOT if db.rebooted else 0
        self._lazy_rows: dict[InodeNo, RowSource] = {}
        self.ops_logged = 0
        """How many ops were logged since the mount began; positions do not tell, they skip some."""
        self.count_ops()
        self._next_content = self._reserved_content = db.meta("next_content") or 1
        self._committed_seq = self._last_seq
        # The clock too: the row with the highest number may have been removed.
        last_round = _highest(db, "SELECT max(round) FROM inode")
        self._round = max(last_round + 1, time.time_ns() // 1000)
        self._deadline = float("inf")
        self._wanted = trio.Event()
        self.names_changed = 0
        """Grows with every name that is put or dropped."""
        self._last_error: StateError | None = None
        self.on_logged: Callable[[int], None] = lambda _seq: None
        """Told the newest op's position after each commit that holds new ops."""

    def count_ops(self) -> None:
        """Learn from the DB which inodes and contents have ops: some were taken out."""
        rows = self.db.rows
        self.waiting_ops: int = rows("SELECT count(*) FROM op")[0][0]
        """Ops that are not settled, or settled and not forgotten yet."""
        self._newest_op: dict[int, int] = dict(rows("SELECT ino, max(seq) FROM op GROUP BY ino"))
        held = rows("SELECT content, count(*) FROM op WHERE content NOT NULL GROUP BY content")
        self._op_contents = Counter(dict(held))
        sizes = rows("SELECT id, size FROM content WHERE id IN (SELECT content FROM op)")
        self._content_bytes: dict[int, int] = dict(sizes)
        self.waiting_bytes = sum(self._content_bytes.values())
        """Bytes of contents that an op puts and no store has settled."""

    @property
    def last_seq(self) -> int:
        """Position of the newest op that is committed."""
        return self._committed_seq

    @property
    def last_error(self) -> StateError | None:
        """Why the newest commit failed; None when it did not."""
        return self._last_error

    def new_inode_number(self) -> InodeNo:
        """Return a number that was never used in this DB."""
        if self._next_ino >= self._reserved_ino:
            self._reserved_ino += _IDS_RESERVED
            self.put_meta("next_ino", self._reserved_ino)
        self._next_ino += 1
        return InodeNo(self._next_ino - 1)

    def new_content_id(self) -> int:
        """Return the id of a content row to be; a number that a settled one had is not reused."""
        if self._next_content >= self._reserved_content:
            self._reserved_content += _IDS_RESERVED
            self.put_meta("next_content", self._reserved_content)
        self._next_content += 1
        return self._next_content - 1

    def touch(self, inode: RowSource) -> None:
        """Write the inode's row, as it is then, with the next commit."""
        self._rows[inode.ino] = inode
        self._lazy_rows.pop(inode.ino, None)

    def touch_times(self, inode: RowSource) -> None:
        """Write the inode's row within half a second: only times changed, which may lag."""
        if inode.ino not in self._rows:
            self._lazy_rows[inode.ino] = inode
            self.commit_within(BACKGROUND_DELAY_S)

    def drop_inode(self, ino: InodeNo) -> None:
        """Remove an inode's row with the next commit."""
        self._rows.pop(ino, None)
        self._lazy_rows.pop(ino, None)
        self._statements.append(("DELETE FROM inode WHERE ino=?", (ino,)))

    def put_dentry(self, parent: InodeNo, name: bytes, ino: InodeNo, *, shared: int = 0) -> None:
        """Put a name into a directory with the next commit; `shared`: the inode has others."""
        self.names_changed += 1
        self._statements.append((_PUT_DENTRY, (parent, name, ino, shared)))

    def drop_dentry(self, parent: InodeNo, name: bytes) -> None:
        """Take a name out of a directory with the next commit."""
        self.names_changed += 1
        self._statements.append((_DROP_DENTRY, (parent, name)))

    def put_meta(self, key: str, value: str | int) -> None:
        """Set a value of `meta` with the next commit."""
        self._statements.append((_PUT_META, (key, value)))

    def run_sql(self, sql: str, *arguments: Any) -> None:
        """Run a statement with the next commit, after those before it."""
        self._statements.append((sql, arguments))

    def log_op(self, op: NewOp) -> int:
        """Append an op, committed with the next commit; return its position."""
        self._last_seq += 1 + self._skipped_seqs
        self._skipped_seqs = 0
        row = (
            self._last_seq,
            op.kind.value,
            op.path,
            op.target,
            op.mode,
            raw_id(op.oid),
            op.size_bytes,
            op.content_id,
            raw_id(op.replaced),
            op.replaced_content,
            op.ino,
            op.uid,
            op.program,
            op.time_ns,
            op.aside,
        )
        # In order with the other statements: a content row is dropped unless an op before it refers
        # to it.
        self._statements.append((_PUT_OP, row))
        self.waiting_ops += 1
        self.ops_logged += 1
        self._newest_op[op.ino] = self._last_seq
        if op.content_id is not None:
            self._op_contents[op.content_id] += 1
            if op.content_id not in self._content_bytes:
                self._content_bytes[op.content_id] = op.size_bytes
                self.waiting_bytes += op.size_bytes
        return self._last_seq

    def newest_op(self, ino: InodeNo) -> int:
        """Return the position of an inode's newest op that is not settled, 0 without one."""
        return self._newest_op.get(ino, 0)

    def is_op_content(self, content_id: int) -> bool:
        """Whether an op refers to a content row."""
        return content_id in self._op_contents

    def op_settled(self, seq: int, ino: int, content_id: int | None) -> None:
        """Note that an op is being removed."""
        self.waiting_ops -= 1
        if self._newest_op.get(ino) == seq:
            del self._newest_op[ino]
        if content_id is None:
            return
        self._op_contents[content_id] -= 1
        if self._op_contents[content_id] <= 0:
            del self._op_contents[content_id]
            self.waiting_bytes -= self._content_bytes.pop(content_id, 0)

    def is_touched(self, ino: InodeNo) -> bool:
        """Whether the inode's row is still to be written."""
        return ino in self._rows or ino in self._lazy_rows

    def commit_everything(self) -> None:
        """Commit, times that may lag included.

        Raises:
            StateFull, StateCorrupt: as `commit`.
        """
        self._rows = {**self._lazy_rows, **self._rows}
        self._lazy_rows.clear()
        self.commit()

    def commit(self) -> None:
        """Commit everything so far, but for times that may lag.

        Raises:
            StateFull, StateCorrupt: nothing of it was committed; it goes with a later commit.
        """
        if not (self._rows or self._statements):
            return
        try:
            with self.db.transaction() as db:
                if self._rows:
                    rows = [(*source.row(), self._round) for source in self._rows.values()]
                    db.executemany(_PUT_INODE, rows)
                for sql, arguments in self._statements:
                    db.execute(sql, arguments)
        except StateError as exc:
            self._last_error = exc
            self.commit_within(BACKGROUND_DELAY_S)
            raise
        self._last_error = None
        self._round += 1
        self._rows.clear()
        self._statements.clear()
        if not self._lazy_rows:
            self._deadline = float("inf")
        if self._last_seq != self._committed_seq:
            self._committed_seq = self._last_seq
            self.on_logged(self._last_seq)

    def commit_if_possible(self) -> None:
        """Commit; on a full disk it is tried again in the background, and nobody waits for that."""
        with contextlib.suppress(StateFull):
            self.commit()

    def commit_within(self, delay_s: float) -> None:
        """Have everything so far committed within `delay_s`, without waiting for it."""
        deadline = trio.current_time() + delay_s
        if deadline < self._deadline:
            self._deadline = deadline
            self._wanted.set()

    async def run(self) -> None:
        """Commit what nobody waits for, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            with trio.move_on_at(self._deadline):
                await self._wanted.wait()
                continue
            self._deadline = float("inf")
            try:
                self.commit_everything()
            except StateError as exc:
                log.error("changes wait in memory, the state database refuses: %s", exc)  # noqa: TRY400  # expected, no bug


def _highest(db: StateDatabase, sql: str) -> int:
    rows = db.rows(sql)
    return int(rows[0][0] or 0) if rows else 0
