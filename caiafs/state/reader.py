"""Read-only view of the state DB for the store process: ops and the contents they put.

Synchronous; every call is one short read transaction, because an open snapshot stops the WAL from
being reset.
Raises StateCorrupt where SQLite or the spool does.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caiafs.core.errors import NotFound, StateCorrupt
from caiafs.core.types import DocPath, Entry, GitMode, InodeNo, ObjectId, git_mode
from caiafs.state.extents import Extents
from caiafs.state.flags import InodeFlag
from caiafs.state.guard import spool_file
from caiafs.state.ops import Op, OpKind
from caiafs.state.said import Note, Transaction
from caiafs.state.view import StateView

_OP_COLUMNS = (
    "seq, kind, path, target, mode, oid, size, content, replaced, ino, uid, program, time_ns, aside"
)


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A content row: bytes that git may not have yet. Their blob id is in the op that puts them.

    Attributes:
        data: whole content when inline.
        spool: spool file otherwise, laid over `extents.base` by `extents`.
    """

    size_bytes: int
    data: bytes | None = field(repr=False)
    spool: Path | None
    extents: Extents | None


@dataclass(frozen=True, slots=True)
class ShownName:
    """A name in a directory of the mount.

    Attributes:
        entry: what the stores are to have there; None for a directory, and for what they never had.
        is_loaded: of a directory, whether its names are in the state DB.
    """

    name: bytes
    ino: InodeNo
    is_directory: bool
    is_loaded: bool
    entry: Entry | None


def to_object_id(raw: bytes | None) -> ObjectId | None:
    """Return an object id column as an id."""
    return ObjectId(raw.hex()) if raw is not None else None


def to_op(row: tuple[Any, ...]) -> Op:
    """Return a row of `op` as an Op."""
    seq, kind, path, target, mode, oid, size, content, replaced, *who, aside = row
    ino, uid, program, time_ns = who
    return Op(
        seq=seq,
        kind=OpKind(kind),
        path=DocPath(path),
        target=DocPath(target) if target is not None else None,
        mode=mode,
        oid=to_object_id(oid),
        size_bytes=size,
        content_id=content,
        replaced=to_object_id(replaced),
        ino=ino,
        uid=uid,
        program=program,
        time_ns=time_ns,
        aside=bool(aside),
    )


class StateReader(StateView):
    """Reads ops and contents in the state DB of a mount that is running."""

    def ops_after(self, seq: int, limit: int) -> list[Op]:
        """Return at most `limit` ops that follow `seq`, in order.

        Ends before a put whose content is still being hashed: what comes after it has to wait.
        """
        sql = f"SELECT {_OP_COLUMNS} FROM op WHERE seq>? ORDER BY seq LIMIT ?"  # noqa: S608  # ours
        ops = [to_op(row) for row in self._rows(sql, seq, limit)]
        unhashed = (i for i, op in enumerate(ops) if op.kind is OpKind.PUT and op.oid is None)
        return ops[: next(unhashed, len(ops))]

    def is_loaded(self, directory: InodeNo) -> bool:
        """Whether the names in a directory are in the state DB."""
        rows = self._rows("SELECT flags FROM inode WHERE ino=?", directory)
        return bool(rows and rows[0][0] & InodeFlag.LOADED)

    def shown_names(self, directory: InodeNo) -> list[ShownName]:
        """Return the names in a directory that is loaded."""
        sql = (
            "SELECT d.name, i.ino, i.mode, i.flags, i.oid FROM dentry d JOIN inode i ON i.ino = d.ino"
            " WHERE d.parent=?"
        )
        return [_to_shown(*row) for row in self._rows(sql, directory)]

    def pending_paths(self) -> set[DocPath]:
        """Return every path that an op names."""
        rows = self._rows("SELECT path, target FROM op")
        return {DocPath(path) for row in rows for path in row if path is not None}

    def next_seq(self, seq: int) -> int | None:
        """Return the position of the op that follows `seq`, hashed or not; None without one."""
        found = self._rows("SELECT min(seq) FROM op WHERE seq>?", seq)[0][0]
        return None if found is None else int(found)

    def transaction_from(self, seq: int) -> Transaction | None:
        """Return the first committed transaction that has op `seq` or a later one."""
        sql = "SELECT * FROM txn WHERE last_seq>=? ORDER BY first_seq LIMIT 1"
        rows = self._rows(sql, seq)
        return Transaction(*rows[0]) if rows else None

    def notes(self, first_seq: int, last_seq: int) -> list[Note]:
        """Return what was said of ops `first_seq` to `last_seq`, in order."""
        sql = "SELECT seq, kind, value FROM note WHERE seq BETWEEN ? AND ? ORDER BY seq, kind"
        return [Note(*row) for row in self._rows(sql, first_seq, last_seq)]

    def content(self, content_id: int) -> StoredContent:
        """Return a content row.

        Raises:
            NotFound: the row is gone, because what it holds is settled.
        """
        rows = self._rows("SELECT size, data, spool, extents FROM content WHERE id=?", content_id)
        if not rows:
            raise NotFound(f"content {content_id} is not in the state database")
        size, data, spool, extents = rows[0]
        return StoredContent(
            size_bytes=size,
            data=data,
            spool=spool_file(self._state_dir, spool) if spool is not None else None,
            extents=Extents.from_bytes(extents) if extents is not None else None,
        )

    def content_with_id(self, oid: ObjectId) -> StoredContent | None:
        """Return the content of blob `oid` as an op still holds it, None where none does."""
        sql = "SELECT content FROM op WHERE oid=? AND content IS NOT NULL LIMIT 1"
        rows = self._rows(sql, bytes.fromhex(oid))
        if not rows:
            return None
        try:
            return self.content(rows[0][0])
        except NotFound:
            return None


def _to_shown(name: bytes, ino: int, mode: int, flags: int, oid: bytes | None) -> ShownName:
    kind = git_mode(mode)
    is_directory = kind is GitMode.DIRECTORY
    entry = None
    if oid is not None and kind is not None and not is_directory and not flags & InodeFlag.LOCAL:
        entry = Entry(int(kind), ObjectId(oid.hex()))
    return ShownName(name, InodeNo(ino), is_directory, bool(flags & InodeFlag.LOADED), entry)


def read_spooled(spool_fd: int, base_fd: int | None, extents: Extents, span: range) -> bytes:
    """Return bytes `span` of a content that lies in a spool file over a base.

    Args:
        spool_fd: descriptor of the spool file.
        base_fd: descriptor of the base as a plain file; None where the span needs none.
        extents: the map.
        span: absolute offsets [start, stop), step 1; cut at the content's end.

    Raises:
        StateCorrupt: a file is shorter than the map says.
    """
    parts: list[bytes] = []
    for source in extents.plan_read(span.start, span.stop):
        length = source.stop - source.start
        if source.origin == "zero":
            parts.append(bytes(length))
            continue
        fd = spool_fd if source.origin == "spool" else base_fd
        assert fd is not None, "the caller opens the base before it reads through it"
        try:
            part = os.pread(fd, length, source.offset)
        except OSError as exc:
            raise StateCorrupt(f"a {source.origin} file cannot be read: {exc.strerror}") from exc
        if len(part) != length:
            raise StateCorrupt(f"a {source.origin} file ends at {source.offset + len(part)} bytes")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
