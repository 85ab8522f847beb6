"""Reads what is left of a state DB that SQLite itself refuses: page by page, row by row, whatever surrounds them.

Used by `salvage`. Formats: sqlite.org/fileformat2.html. The rows of ops, contents, inodes and meta are known by their shape and
put into a fresh database; a page that makes no sense costs its rows. Old rows may come along, from pages that are free:
the caller leaves out settled ops, and believes a content only by its hash.
"""

import mmap
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from caiafs.state import paths
from caiafs.state.ops import OpKind
from caiafs.state.schema import SCHEMA

_TABLE_LEAF, _INDEX_LEAF = 0x0D, 0x0A
_INTS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_KINDS = {kind.value for kind in OpKind}
_META_KEYS = {"writer_id", "settled_seq", "known_commit", "next_ino", "next_content"}
_FRAME = 24
_WAL_HEADER = 32
_DEFAULT_PAGE = 4096
_OP_COLUMNS = 14

Value = int | float | str | bytes | None


def salvage_pages(state_dir: Path) -> sqlite3.Connection:
    """Return a database of our schema with every row that could be found."""
    db = sqlite3.connect("", isolation_level=None)  # a temporary file of SQLite's own
    db.executescript(SCHEMA)
    db.execute("BEGIN")
    file = paths.database(state_dir)
    with ExitStack() as stack:
        pages = _Pages(_map(file, stack), _map(file.with_name(file.name + "-wal"), stack))
        for rowid, row in pages.rows():
            _put(db, rowid, row)
    db.execute("COMMIT")
    return db


def _map(file: Path, stack: ExitStack) -> "mmap.mmap | bytes":
    try:
        opened = stack.enter_context(file.open("rb"))
        return stack.enter_context(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):  # it is gone, or empty
        return b""


def _put(db: sqlite3.Connection, rowid: int | None, row: list[Value]) -> None:
    try:
        if rowid is None:
            if len(row) == 2 and row[0] in _META_KEYS:
                db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", row)
        elif len(row) >= _OP_COLUMNS and row[1] in _KINDS:
            _put_op(db, rowid, row)
        elif len(row) == 5 and row[0] is None and isinstance(row[1], int):
            # Of several rows of one number the caller takes the one whose bytes have the right hash.
            db.execute("INSERT OR REPLACE INTO content VALUES (?,?,?,?,?)", [rowid, *row[1:]])
        elif len(row) == 16 and isinstance(row[1], int) and isinstance(row[15], int):
            known = db.execute("SELECT round FROM inode WHERE ino=?", (rowid,)).fetchone()
            if known is None or known[0] <= row[15]:
                marks = ",".join("?" * 16)
                db.execute(f"INSERT OR REPLACE INTO inode VALUES ({marks})", [rowid, *row[1:]])  # noqa: S608
    except sqlite3.Error:
        return  # no row of ours after all


def _put_op(db: sqlite3.Connection, rowid: int, row: list[Value]) -> None:
    known = db.execute("SELECT oid FROM op WHERE seq=?", (rowid,)).fetchone()
    if known is not None and known[0] is not None:
        return
    marks = ",".join("?" * _OP_COLUMNS)
    columns = (
        "seq, kind, path, target, mode, oid, size, content, replaced, replaced_content, ino, uid,"
        " program, time_ns"
    )
    values = [rowid, *row[1:_OP_COLUMNS]]
    db.execute(f"INSERT OR REPLACE INTO op ({columns}) VALUES ({marks})", values)  # noqa: S608  # ours


class _Pages:
    """The pages of a database file with those of its log laid over them."""

    def __init__(self, file: "mmap.mmap | bytes", wal: "mmap.mmap | bytes") -> None:
        self._file, self._wal = file, wal
        size = struct.unpack(">H", file[16:18])[0] if len(file) >= 100 else 0
        size = 65536 if size == 1 else size
        if len(wal) >= _WAL_HEADER and wal[:3] == b"\x37\x7f\x06":
            size = struct.unpack(">I", wal[8:12])[0]
        self._size = size if size in {1 << n for n in range(9, 17)} else _DEFAULT_PAGE
        self._usable = self._size
        self._in_wal = dict(self._frames())

    def _frames(self) -> Iterator[tuple[int, int]]:
        """Yield page numbers and where they stand in the log, up to its last commit."""
        wal, step = self._wal, _FRAME + self._size
        salt = wal[16:24]
        waiting: list[tuple[int, int]] = []
        for offset in range(_WAL_HEADER, len(wal) - step + 1, step):
            number, committed = struct.unpack(">II", wal[offset : offset + 8])
            if wal[offset + 8 : offset + 16] != salt:
                return
            waiting.append((number, offset + _FRAME))
            if committed:
                yield from waiting
                waiting.clear()

    def page(self, number: int) -> bytes:
        """Return a page, cut short or empty where the file ends before it does."""
        if number in self._in_wal:
            offset = self._in_wal[number]
            return self._wal[offset : offset + self._size]
        return self._file[(number - 1) * self._size : number * self._size]

    def rows(self) -> Iterator[tuple[int | None, list[Value]]]:
        """Yield rowid (None in an index) and values of every row."""
        last = max([len(self._file) // self._size + 1, *self._in_wal])
        for number in range(1, last + 1):
            page = self.page(number)
            start = 100 if number == 1 else 0
            if len(page) < start + 8 or page[start] not in {_TABLE_LEAF, _INDEX_LEAF}:
                continue
            count = struct.unpack(">H", page[start + 3 : start + 5])[0]
            for index in range(count):
                place = start + 8 + 2 * index
                try:
                    cell = struct.unpack(">H", page[place : place + 2])[0]
                    yield self._row(page, cell, is_table=page[start] == _TABLE_LEAF)
                except (struct.error, IndexError, ValueError, OverflowError):
                    continue

    def _row(self, page: bytes, cell: int, *, is_table: bool) -> tuple[int | None, list[Value]]:
        length, cell = _varint(page, cell)
        rowid: int | None = None
        if is_table:
            rowid, cell = _varint(page, cell)
        return rowid, _record(self._payload(page, cell, length, is_table=is_table))

    def _payload(self, page: bytes, cell: int, length: int, *, is_table: bool) -> bytes:
        usable = self._usable
        most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if length <= most:
            return page[cell : cell + length]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= most else least
        parts = [page[cell : cell + local]]
        left = length - local
        number = struct.unpack(">I", page[cell + local : cell + local + 4])[0]
        while left > 0:
            overflow = self.page(number)
            if not number or len(overflow) < 5:
                raise ValueError("the row is cut short")
            parts.append(overflow[4 : 4 + min(left, usable - 4)])
            left -= len(parts[-1])
            number = struct.unpack(">I", overflow[:4])[0]
        return b"".join(parts)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[place + index]
        if index == 8:
            value = value << 8 | byte
            break
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value - (1 << 64) if value >= 1 << 63 else value, place + index + 1


def _record(payload: bytes) -> list[Value]:
    """Return the values of a record.

    Raises:
        ValueError, IndexError: it is none.
    """
    header, place = _varint(payload, 0)
    if not 0 < header <= len(payload):
        raise ValueError("no record")
    values: list[Value] = []
    body = header
    while place < header:
        kind, place = _varint(payload, place)
        value, body = _value(payload, kind, body)
        values.append(value)
    return values


def _value(payload: bytes, kind: int, place: int) -> tuple[Value, int]:
    if kind == 0:
        return None, place
    if kind in {8, 9}:
        return kind - 8, place
    size = _INTS.get(kind, 8 if kind == 7 else (kind - 12) // 2)
    raw = payload[place : place + size]
    if kind in {10, 11} or kind < 0 or len(raw) != size:
        raise ValueError("no value")
    if kind in _INTS:
        return int.from_bytes(raw, "big", signed=True), place + size
    if kind == 7:
        return struct.unpack(">d", raw)[0], place + size
    return (raw.decode() if kind % 2 else raw), place + size
