"""Checks the state DB: SQLite's own checks, then whether our tables fit together and with git.

Used by `fsck`, on an unmounted repository, in a thread. Reads only. What a mount puts right by itself at its start, as
after `kill -9`, is no finding: contents that nothing refers to, unlinked files, files that were never flushed.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.objects import ObjectReader
from caiafs.core.errors import CaiaError, NotFound, StateError
from caiafs.core.types import EMPTY_BLOB, ROOT_INODE, DocPath, ObjectId, display
from caiafs.state import paths
from caiafs.state.flags import InodeFlag
from caiafs.state.schema import SCHEMA_VERSION
from caiafs.state.view import open_state
from caiafs.upkeep.findings import Finding, Kind
from caiafs.upkeep.place import Place, path_of

_SHOWN = 20
_BEGIN_ANEW = "publishes what can be read of it, sets it aside and begins anew from git"
_UNKNOWN = "documents may be missing, or show a wrong version"
_LOADED = int(InodeFlag.LOADED)
_OPEN = int(InodeFlag.UNLOGGED | InodeFlag.DAMAGED)
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
    }
)
_NO_ROOM = frozenset(  # for the index of its log, which each reader makes
    {
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)
_IS_DIRECTORY = "mode & 0xf000 = 0x4000"

_QUERIES: tuple[tuple[str, str], ...] = (
    (
        "SELECT d.parent, d.name FROM dentry d LEFT JOIN inode i ON i.ino = d.ino WHERE i.ino IS NULL",
        "the name has no inode",
    ),
    (
        "SELECT d.parent, d.name FROM dentry d LEFT JOIN inode p ON p.ino = d.parent"  # noqa: S608  # ours
        f" WHERE p.ino IS NULL OR NOT p.{_IS_DIRECTORY} OR NOT p.flags & {_LOADED}"
        # What a mount that died had begun to import, the next one takes away (vfs.importing).
        " AND NOT EXISTS (SELECT 1 FROM meta WHERE key = 'importing:' || p.ino)",
        "the name is in no directory",
    ),
    (
        "SELECT parent, name FROM dentry WHERE length(name) NOT BETWEEN 1 AND 255"
        " OR instr(name, x'2f') OR instr(name, x'00') OR name IN (x'2e', x'2e2e')",
        "no file can be called that",
    ),
    (
        "SELECT i.parent, i.name FROM inode i LEFT JOIN dentry d ON d.parent = i.parent AND d.name = i.name"
        " WHERE i.parent NOT NULL AND i.nlink > 0 AND (d.ino IS NULL OR d.ino <> i.ino)",
        "the inode says that it is called that, and the name is not its own",
    ),
    (
        "SELECT i.parent, i.name FROM inode i"  # noqa: S608  # ours
        " LEFT JOIN (SELECT DISTINCT ino FROM dentry) d ON d.ino = i.ino"
        f" WHERE d.ino IS NULL AND i.nlink > 0 AND i.ino <> {ROOT_INODE}",
        "the inode has no name",
    ),
)
"""Queries for names that do not fit, each row a directory and a name; and what is wrong with those."""

_WRONG_LINKS = f"""
SELECT i.ino, i.nlink, CASE WHEN i.{_IS_DIRECTORY} THEN 2 + coalesce(s.n, 0) ELSE coalesce(d.n, 0) END AS wanted
FROM inode i
LEFT JOIN (SELECT ino, count(*) AS n FROM dentry GROUP BY ino) d ON d.ino = i.ino
LEFT JOIN (SELECT dentry.parent AS ino, count(*) AS n FROM dentry JOIN inode c ON c.ino = dentry.ino
           WHERE c.{_IS_DIRECTORY} GROUP BY dentry.parent) s ON s.ino = i.ino
WHERE i.nlink > 0 AND i.nlink <> wanted AND (NOT i.{_IS_DIRECTORY} OR i.flags & {_LOADED})
  AND (d.n NOT NULL OR i.{_IS_DIRECTORY})
"""  # noqa: S608  # constants of ours


def check_database(place: Place, count: Callable[[str, int], None]) -> list[Finding]:
    """Return what is wrong with the state DB; `count` is told how much was looked at.

    Raises:
        StateError: it cannot be read now, which is no damage: nothing must be begun anew for it.
    """
    if not place.has_state:
        return []
    try:
        with contextlib.closing(open_state(place.state_dir)) as db:
            found = _check_sqlite(db)
            return found or list(_check_tables(db, place, count))
    except sqlite3.Error as exc:
        why = _passing(exc, paths.database(place.state_dir))
        if why:
            raise StateError(f"the state database cannot be read now: {why}") from exc
        return [_unreadable(str(exc))]


def _passing(error: sqlite3.Error, file: Path) -> str:
    """Return what kept SQLite from reading other than what is in the file; empty for damage."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _NO_ROOM:
        return f"{error}; {file.parent} has no room left, or takes no files"
    return str(error) if code & 0xFF in _PASSING or not os.access(file, os.R_OK) else ""


def _unreadable(why: str) -> Finding:
    return Finding(
        Kind.DATABASE,
        "state database",
        f"it is damaged: {why}",
        "what was saved and not published may be lost with it",
        _BEGIN_ANEW,
        subject="unreadable",
    )


def _check_sqlite(db: sqlite3.Connection) -> list[Finding]:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        return [
            Finding(
                Kind.DATABASE,
                "state database",
                f"it has schema {version}, this caiafs knows {SCHEMA_VERSION}",
                "only the newer caiafs that wrote it can tell what is in it",
                subject="newer",
            )
        ]
    if version != SCHEMA_VERSION:
        return [_unreadable(f"schema {version} is none of ours")]
    lines = [row[0] for row in db.execute(f"PRAGMA integrity_check({_SHOWN})")]
    if lines != ["ok"]:
        return [_unreadable("; ".join(str(line) for line in lines[:3]))]
    broken = db.execute("PRAGMA foreign_key_check").fetchall()
    return [_unreadable(f"{len(broken)} rows refer to nothing")] if broken else []


def _check_tables(
    db: sqlite3.Connection, place: Place, count: Callable[[str, int], None]
) -> Iterator[Finding]:
    inodes = db.execute("SELECT count(*) FROM inode").fetchone()[0]
    count("inodes", inodes)
    if not inodes:
        return  # a mount died before it had begun
    yield from _check_names(db)
    yield from _check_counts(db)
    yield from _check_ops(db)
    yield from _check_known_commit(db, place)
    yield from _check_documents(db, place)


def _check_names(db: sqlite3.Connection) -> Iterator[Finding]:
    root = db.execute("SELECT mode FROM inode WHERE ino=?", (ROOT_INODE,)).fetchone()
    if root is None or root[0] & 0xF000 != 0x4000:
        yield _misfit("state database", "it has no root directory")
        return
    for sql, what in _QUERIES:
        for parent, name in db.execute(f"{sql} LIMIT {_SHOWN}"):
            yield _misfit(_named(db, parent, name), what)
    yield from _check_reachable(db)


def _check_reachable(db: sqlite3.Connection) -> Iterator[Finding]:
    """Each directory must lead to the root: one that does not is a ring."""
    above = dict(
        db.execute(
            f"SELECT ino, parent FROM inode WHERE {_IS_DIRECTORY} AND nlink > 0 AND ino <> ?",  # noqa: S608
            (ROOT_INODE,),
        )
    )
    good: set[int] = {ROOT_INODE}
    for start in above:
        ino = start
        chain: list[int] = []
        while ino not in good and ino in above and len(chain) <= len(above):
            chain.append(ino)
            ino = above[ino]
        if ino not in good:
            yield _misfit(f"inode {start}", "it is in no directory that leads to the root")
            return
        good.update(chain)


def _check_counts(db: sqlite3.Connection) -> Iterator[Finding]:
    for ino, nlink, wanted in db.execute(f"{_WRONG_LINKS} LIMIT {_SHOWN}"):
        yield Finding(
            Kind.COUNT,
            f"inode {ino}",
            f"it counts {nlink} links and has {wanted}",
            "ls shows a wrong number, and a removed document may stay or go too early",
            "puts the number right",
            subject=f"UPDATE inode SET nlink={int(wanted)} WHERE ino={int(ino)}",  # noqa: S608  # numbers
        )
    meta = dict(db.execute("SELECT key, value FROM meta"))
    for key, sql in (
        ("next_ino", "SELECT max(ino) FROM inode"),
        ("next_content", "SELECT max(id) FROM content"),
    ):
        newest = db.execute(sql).fetchone()[0] or 0
        if newest and newest >= (meta.get(key) or 0) and newest > ROOT_INODE:
            yield Finding(
                Kind.COUNT,
                f"state database, {key}",
                f"it is {meta.get(key)}, and {newest} is in use",
                "a number could be used twice",
                "puts the number right",
                subject=f"INSERT OR REPLACE INTO meta VALUES ('{key}', {int(newest) + 1})",  # noqa: S608  # as above
            )


def _check_ops(db: sqlite3.Connection) -> Iterator[Finding]:
    settled = db.execute("SELECT value FROM meta WHERE key='settled_seq'").fetchone()
    first = db.execute("SELECT min(seq) FROM op").fetchone()[0]
    if first is not None and settled is not None and first <= settled[0]:
        yield _misfit(f"op {first}", f"it comes before op {settled[0]}, which is settled")
    bad = db.execute(
        "SELECT seq FROM op WHERE kind NOT IN ('put', 'remove', 'move', 'exchange')"
        " OR length(path) = 0 OR (target IS NULL) <> (kind IN ('put', 'remove'))"
        " OR (kind = 'put' AND mode NOT IN (33188, 33261, 40960)) LIMIT ?",
        (_SHOWN,),
    )
    for (seq,) in bad:
        yield _misfit(f"op {seq}", "it makes no sense")


def _check_known_commit(db: sqlite3.Connection, place: Place) -> Iterator[Finding]:
    known = db.execute("SELECT value FROM meta WHERE key='known_commit'").fetchone()
    if known is None or known[0] is None:
        return
    try:
        CommitLog(place.repository.reader).commit(ObjectId(known[0]))
    except CaiaError:
        yield Finding(
            Kind.DATABASE,
            "state database",
            f"the newest commit that it knows, {known[0]}, is not in the repository",
            "the repository is older than its state; documents saved meanwhile may be only listed",
            _BEGIN_ANEW,
            subject="ahead",
        )


def _check_documents(db: sqlite3.Connection, place: Place) -> Iterator[Finding]:
    """Each document's bytes must be in the DB or in git, and as many as it says."""
    reader = place.repository.new_reader()
    rows = db.execute(
        "SELECT i.ino, i.parent, i.name, i.size, i.oid, i.flags, c.id, c.size FROM inode i"
        " LEFT JOIN content c ON c.id = i.content"
        " WHERE i.nlink > 0 AND i.mode & 0xf000 IN (0x8000, 0xa000)"
    )
    shown = 0
    for ino, parent, name, size, oid, flags, content, content_size in rows:
        if shown >= _SHOWN:
            return
        if content is None and (oid is None or flags & _OPEN or oid.hex() == EMPTY_BLOB):
            continue
        wanted = content_size
        try:
            if content is None:
                wanted = reader.size(ObjectId(oid.hex()))
        except NotFound:
            if _is_on_branch(place, reader, path_of(db, parent, name), oid.hex()):
                continue  # git has lost it: its own check tells of that
            yield _misfit(_named(db, parent, name, ino), f"its content {oid.hex()} is nowhere")
            shown += 1
            continue
        except CaiaError:
            continue  # git's own check tells of the object
        if size not in {wanted, -1}:
            shown += 1
            yield Finding(
                Kind.COUNT,
                _named(db, parent, name, ino),
                f"it says {size} bytes and has {wanted}",
                "it would read cut short, or padded with zeros",
                "puts the number right",
                subject=f"UPDATE inode SET size={int(wanted)} WHERE ino={int(ino)}",  # noqa: S608  # numbers
            )


def _is_on_branch(place: Place, reader: ObjectReader, path: DocPath | None, oid: str) -> bool:
    """Whether the branch has blob `oid` at `path`."""
    if path is None:
        return False
    try:
        found = reader.entry_at(place.repository.tree_of(place.repository.head_commit()), path)
    except CaiaError:
        return True
    return found is not None and found.oid == oid


def _misfit(where: str, what: str) -> Finding:
    return Finding(Kind.DATABASE, where, what, _UNKNOWN, _BEGIN_ANEW, subject="misfit")


def _named(
    db: sqlite3.Connection, parent: int | None, name: bytes | None, ino: int | None = None
) -> str:
    path = path_of(db, parent, name)
    if path is not None:
        return display(path)
    return display(name) if name else f"inode {ino or parent}"
