"""Versions that cannot be read any more: set aside one by one, so that everything else goes on.

Used by app (the store process found one), `vfs.hashing` and `vfs.recovery`, on the trio thread; nothing here awaits.

The op that put such a version is taken out of the log, and what later ops say they replaced is put right: in the stores
the version before it stands, and the next save of the document replaces that. In the mount the document keeps its name
and reading it fails with EIO, for the version before would be other bytes than were saved; saving or removing it ends that.
What is left of the content goes to `damaged/` first (`state.damaged`).
"""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from caiafs.cache.memory import BlobCache
from caiafs.core.errors import NotFound, StateCorrupt
from caiafs.core.types import DocPath, InodeNo, ObjectId, blob_id, display
from caiafs.state import damaged
from caiafs.state.damaged import DamagedVersion, Remains
from caiafs.state.extents import Extents
from caiafs.state.guard import spool_file
from caiafs.state.journal import Journal, raw_id
from caiafs.state.ops import OpKind
from caiafs.vfs.body import SmallBody
from caiafs.vfs.contents import Contents
from caiafs.vfs.inode import DAMAGED, UNLOGGED, Inode
from caiafs.vfs.table import InodeTable

log = logging.getLogger(__name__)

_TOLD_MAX = 5
_OPS_OF_BLOB = (
    "SELECT seq, kind, path, target, ino, replaced, replaced_content FROM op"
    " WHERE content IS NULL AND oid=? ORDER BY seq"
)
# Some ops leave it to one before them to say which row it is.
_OPS_OF_ROW = (
    "SELECT seq, kind, path, target, ino, replaced, replaced_content FROM op WHERE content=?"
    " OR (content IS NULL AND oid=? AND ino IN (SELECT ino FROM op WHERE content=?)) ORDER BY seq"
)


class Known(NamedTuple):
    """What the log has at a path: a blob, or a content row that is still being hashed; or nothing."""

    oid: bytes | None = None
    row: int | None = None


class LoggedOp(NamedTuple):
    """An op that puts or moves a damaged content."""

    seq: int
    kind: str
    path: bytes
    target: bytes | None
    ino: int
    replaced: bytes | None
    replaced_content: int | None

    @property
    def known(self) -> Known:
        """What the writer saw."""
        return Known(self.replaced, self.replaced_content)


def plan_stands(ops: Sequence[LoggedOp], lost: Known) -> dict[bytes, Known]:
    """Return what stands instead of `lost`, by the paths that the log's end has it at.

    Args:
        ops: all that put or move it, in order.
        lost: the damaged version as other ops name it.
    """
    stands: dict[bytes, Known] = {}
    for op in ops:
        before = Known() if _is(op.known, lost) else op.known
        if op.kind == OpKind.PUT:
            stands.setdefault(op.path, before)
        elif op.target is not None:
            moved = stands.pop(op.path, Known())
            stands[op.target] = moved if moved != Known() else before
    return stands


def _is(known: Known, lost: Known) -> bool:
    same_oid = known.oid is not None and known.oid == lost.oid
    return same_oid or (known.row is not None and known.row == lost.row)


class Damage:
    """Sets versions aside, and knows which documents wait for a person."""

    def __init__(
        self, journal: Journal, table: InodeTable, contents: Contents, cache: BlobCache
    ) -> None:
        self._journal = journal
        self._table = table
        self._contents = contents
        self._cache = cache
        self._state_dir = journal.db.state_dir
        self._documents: dict[InodeNo, DamagedVersion | None] = {}

    def load(self) -> None:
        """Take up what earlier mounts set aside."""
        rows = self._journal.db.rows("SELECT ino FROM inode WHERE flags & ?", DAMAGED)
        if rows:
            known = {
                InodeNo(version.inode): version for version in damaged.read_all(self._state_dir)
            }
            self._documents = {InodeNo(ino): known.get(InodeNo(ino)) for (ino,) in rows}

    def reasons(self) -> list[str]:
        """Return for health which documents are damaged, and what to do."""
        found = []
        for ino, version in tuple(self._documents.items()):
            inode = self._find(ino)
            if inode is None or not inode.flags & DAMAGED or not inode.nlink:
                del self._documents[ino]
                continue
            found.append(_sentence(self._table.paths(inode), version))
        more = len(found) - _TOLD_MAX
        return found[:_TOLD_MAX] + ([f"{more} more documents are damaged"] if more > 0 else [])

    def _find(self, ino: InodeNo) -> Inode | None:
        try:
            return self._table.get(ino)
        except NotFound:
            return None

    # --- setting aside

    def set_aside_op(self, seq: int, reason: str) -> None:
        """Set aside the version that op `seq` puts; nothing happens where that is done already.

        Raises:
            StateFull, StateCorrupt: it is not done.
        """
        self._journal.commit()
        sql = "SELECT content, oid FROM op WHERE seq=? AND kind IN ('put', 'move')"
        for content_id, oid in self._journal.db.rows(sql, seq):
            if oid is not None or content_id is not None:
                self._set_aside(Known(oid, content_id), reason)

    def set_aside_content(self, content_id: int, reason: str) -> None:
        """Set aside the version in a content row; raises as `set_aside_op`."""
        self._journal.commit()
        self._set_aside(Known(None, content_id), reason)

    def set_aside_unlogged(self, inode: Inode, reason: str) -> None:
        """Set aside what an inode has that no op put yet; raises as `set_aside_op`."""
        version = self._keep(Known(None, inode.content), [inode.ino], (), reason)
        self._contents.drop_content(inode)
        inode.flags = inode.flags & ~UNLOGGED | DAMAGED
        self._journal.touch(inode)
        self._journal.commit()
        self._documents[inode.ino] = version

    def _set_aside(self, lost: Known, reason: str) -> None:
        if self._repair(lost):
            return
        ops = self._ops(lost)
        inos = list(dict.fromkeys(op.ino for op in ops)) + self._holders(lost.row)
        stands = plan_stands(ops, lost)
        instead = next((known for known in stands.values() if known != Known()), Known())
        version = self._keep(lost, inos, [op.path for op in ops], reason, before=instead.oid)
        for op in ops:
            self._take_out(op, stands.get(op.target or op.path, instead))
        self._put_right(lost, ops, stands, instead)
        for ino in dict.fromkeys(inos):
            self._mark(InodeNo(ino), lost, instead, version)
        if lost.row is not None:
            self._journal.run_sql("DELETE FROM content WHERE id=?", lost.row)
        self._journal.commit()
        self._journal.count_ops()

    def _repair(self, lost: Known) -> bool:
        """Write the content again where memory still has it; return whether it has."""
        if lost.oid is None or lost.row is None:
            return False
        content = self._cache.get(ObjectId(lost.oid.hex()))
        for inode in self._table.in_memory():
            if content is None and inode.content == lost.row and isinstance(inode.body, SmallBody):
                content = bytes(inode.body.content)
        if content is None or raw_id(blob_id(content)) != lost.oid:
            return False
        sql = "UPDATE content SET size=?, spool=NULL, extents=NULL, data=? WHERE id=?"
        self._journal.run_sql(sql, len(content), content, lost.row)
        self._journal.commit()
        log.warning("a damaged content was written again from memory: %s", lost.oid.hex())
        return True

    def _ops(self, lost: Known) -> list[LoggedOp]:
        rows = self._journal.db.rows
        if lost.row is None:
            return [LoggedOp(*row) for row in rows(_OPS_OF_BLOB, lost.oid)]
        return [LoggedOp(*row) for row in rows(_OPS_OF_ROW, lost.row, lost.oid, lost.row)]

    def _holders(self, row: int | None) -> list[int]:
        return [
            ino for (ino,) in self._journal.db.rows("SELECT ino FROM inode WHERE content=?", row)
        ]

    def _keep(
        self,
        lost: Known,
        inos: Sequence[int],
        logged_paths: Iterable[bytes],
        reason: str,
        *,
        before: bytes | None = None,
    ) -> DamagedVersion:
        """Keep what is left of a content in `damaged/`."""
        shown = [path for ino in inos for path in self._paths(InodeNo(ino))]
        at = tuple(dict.fromkeys([*shown, *logged_paths]))
        size, remains = self._remains(lost.row)
        ino = inos[0] if inos else 0
        version = DamagedVersion(
            name=damaged.new_name(ino, self._state_dir),
            paths=tuple(path.decode("utf-8", "surrogateescape") for path in at),
            inode=ino,
            blob=lost.oid.hex() if lost.oid is not None else "",
            size_bytes=size,
            reason=reason,
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            before=before.hex() if before is not None else "",
        )
        version = damaged.set_aside(self._state_dir, version, remains)
        named = ", ".join(display(path) for path in at)
        log.error(
            "a saved version of %s is damaged and set aside as %s: %s", named, version.name, reason
        )
        return version

    def _paths(self, ino: InodeNo) -> list[DocPath]:
        inode = self._find(ino)
        return self._table.paths(inode) if inode is not None and inode.nlink else []

    def _remains(self, row: int | None) -> tuple[int, Remains]:
        rows = self._journal.db.rows(
            "SELECT size, spool, extents, data FROM content WHERE id=?", row
        )
        if not rows:
            return 0, Remains()
        size, spool, packed, data = rows[0]
        if spool is None:
            return size, Remains(data)
        sql = "SELECT 1 FROM content WHERE spool=? AND id<>?"
        is_shared = bool(self._journal.db.rows(sql, spool, row))
        try:
            file = spool_file(self._state_dir, spool)
        except StateCorrupt:  # it names a file elsewhere, which is not ours to move
            return size, Remains()
        try:
            extents = Extents.from_bytes(packed)
        except StateCorrupt:  # the file as it stands is all that is left
            extents = None
        return size, Remains(None, file, extents, is_shared)

    # --- the log and the inodes

    def _take_out(self, op: LoggedOp, stands: Known) -> None:
        if op.kind == OpKind.PUT:
            self._journal.run_sql("DELETE FROM op WHERE seq=?", op.seq)
            return
        # It moves what stands there; where nothing does, nothing.
        sql = "SELECT content FROM op WHERE oid=? AND content NOT NULL AND seq<? LIMIT 1"
        rows = self._journal.db.rows(sql, stands.oid, op.seq)
        row = rows[0][0] if rows else stands.row
        sql = "UPDATE op SET oid=?, content=? WHERE seq=?"
        self._journal.run_sql(sql, stands.oid, row, op.seq)

    def _put_right(
        self, lost: Known, ops: Sequence[LoggedOp], stands: dict[bytes, Known], instead: Known
    ) -> None:
        """Have whatever replaced the lost version replace what stands instead."""
        rows = self._journal.db.rows
        sql = "SELECT 1 FROM op WHERE oid=? AND content IS NOT ? AND kind='put' LIMIT 1"
        elsewhere = bool(rows(sql, lost.oid, lost.row))
        gone = {op.seq for op in ops if op.kind == OpKind.PUT}
        sql = "SELECT seq, path, target, ino FROM op WHERE seq>? AND (replaced=? OR replaced_content=?)"
        inos = {op.ino for op in ops}
        first = ops[0].seq if ops else 0
        for seq, path, target, ino in rows(sql, first, lost.oid, lost.row):
            at = target or path
            if seq in gone or (elsewhere and at not in stands and ino not in inos):
                continue
            known = stands.get(at, instead)
            sql = "UPDATE op SET replaced=?, replaced_content=? WHERE seq=?"
            self._journal.run_sql(sql, known.oid, known.row, seq)
        sql = "UPDATE replaced SET oid=?, content=? WHERE oid=? OR content=?"
        self._journal.run_sql(sql, instead.oid, instead.row, lost.oid, lost.row)
        for inode in self._table.in_memory():
            if _is(Known(raw_id(inode.replaced), inode.replaced_row), lost):
                inode.replaced, inode.replaced_row = _object_id(instead.oid), instead.row

    def _mark(self, ino: InodeNo, lost: Known, stands: Known, version: DamagedVersion) -> None:
        """Bring an inode to where the log is now; one that shows the lost version can't be read."""
        inode = self._find(ino)
        if inode is None:
            return
        at_end = Known(raw_id(inode.oid), inode.unhashed)
        was_shown = inode.content == lost.row and not inode.flags & UNLOGGED and not inode.dirty
        if _is(at_end, lost):
            inode.oid, inode.unhashed = _object_id(stands.oid), stands.row
        else:
            was_shown = was_shown and lost.row is not None
        if inode.content == lost.row and not inode.row_open:
            inode.content = None
        if was_shown:
            if inode.body is not None:
                inode.body.close()
                inode.body = None
            inode.flags |= DAMAGED
            self._documents[ino] = version
        self._journal.touch(inode)


def _object_id(raw: bytes | None) -> ObjectId | None:
    return ObjectId(raw.hex()) if raw is not None else None


def _sentence(at: Sequence[DocPath], version: DamagedVersion | None) -> str:
    name = display(at[0]) if at else "a document"
    if version is None:
        return f"{name} is damaged: save it again or remove it"
    left = (
        f"what is left of it is damaged/{version.file}" if version.file else "nothing is left of it"
    )
    instead = "the version before stands in the stores" if version.before else "no store has it"
    return (
        f"the newest version of {name} is damaged ({version.reason}); {left} in the state directory, "
        f"and {instead}: save it again or remove it"
    )
