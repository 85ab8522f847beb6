"""What a mount does first with the state DB that the last one left.

Used by app, before the mount answers. After `kill -9` nothing that close(2) promised is missing:
contents were journaled at flush. What is missing is the op that makes a version of them, and the
tidying up.
"""

import logging

from caiafs.core.errors import CaiaError, StateCorrupt
from caiafs.core.types import ObjectId
from caiafs.state.journal import Journal
from caiafs.state.spool import Spool
from caiafs.vfs.contents import Contents
from caiafs.vfs.damage import Damage
from caiafs.vfs.importing import remove_unfinished
from caiafs.vfs.inode import DAMAGED, UNLOGGED, Inode
from caiafs.vfs.namespace import Namespace
from caiafs.vfs.publication import Publication
from caiafs.vfs.table import InodeTable

log = logging.getLogger(__name__)

_NEVER_FLUSHED = (
    "SELECT ino FROM inode WHERE oid IS NULL AND content IS NULL AND mode & 0xf000 = 0x8000"
    " AND NOT flags & ?"  # a damaged one has nothing either
)

_UNSYNCED = (
    "SELECT id FROM content WHERE spool NOT NULL AND NOT EXISTS"
    " (SELECT 1 FROM synced s WHERE s.content=content.id AND s.extents=content.extents)"
)


def recover(
    journal: Journal,
    spool: Spool,
    table: InodeTable,
    namespace: Namespace,
    *,
    contents: Contents,
    publication: Publication,
    damage: Damage,
) -> int:
    """Finish what the last mount began; return how many versions it had not logged.

    Contents whose row or spool file is damaged are set aside.
    """
    remove_unfinished(journal)
    for (ino,) in journal.db.rows("SELECT ino FROM inode WHERE nlink=0"):
        namespace.end(table.get(ino))
    _remove_orphans(journal)
    for ino, oid, content in journal.db.rows("SELECT ino, oid, content FROM replaced"):
        inode = table.get(ino)
        inode.replaced = ObjectId(oid.hex()) if oid is not None else None
        inode.replaced_row = content
    for (ino,) in journal.db.rows(_NEVER_FLUSHED, DAMAGED):
        _end_unflushed(table.get(ino), journal, table, namespace, contents)
    if journal.db.rebooted:
        _set_unsynced_aside(journal, table, damage)
    found = 0
    for (ino,) in journal.db.rows("SELECT ino FROM inode WHERE flags & ?", UNLOGGED):
        inode = table.get(ino)
        try:
            publication.due(inode)
        except StateCorrupt as exc:
            damage.set_aside_unlogged(inode, str(exc))
            continue
        except CaiaError as exc:
            log.error("inode %d cannot be published: %s", ino, exc)  # noqa: TRY400  # no bug
        found += not inode.flags & UNLOGGED
        if inode.body is not None:
            inode.body.close()
            inode.body = None
        table.release(inode)
    journal.commit()
    used = {name for (name,) in journal.db.rows("SELECT spool FROM content WHERE spool NOT NULL")}
    for name in spool.names() - used:
        spool.remove(name)
    return found


def _set_unsynced_aside(journal: Journal, table: InodeTable, damage: Damage) -> None:
    """Set aside the spooled contents that a power cut may have torn, where no blob id tells.

    One that has its id is compared with that when it is published.
    """
    reason = "the machine stopped before it was on the disk"
    rows = journal.db.rows
    for (row,) in rows(_UNSYNCED):
        for (ino,) in rows("SELECT ino FROM inode WHERE flags & ? AND content=?", UNLOGGED, row):
            damage.set_aside_unlogged(table.get(ino), reason)
        if rows("SELECT 1 FROM op WHERE content=? AND kind='put' AND oid IS NULL", row):
            damage.set_aside_content(row, reason)


def _end_unflushed(
    inode: Inode, journal: Journal, table: InodeTable, namespace: Namespace, contents: Contents
) -> None:
    """Remove a file that was created and never flushed; what it took the name of is back."""
    if inode.replaced is not None:
        inode.oid, inode.replaced = inode.replaced, None
        inode.content, inode.size = contents.find_logged(inode.oid)
        journal.touch(inode)
        journal.run_sql("DELETE FROM replaced WHERE ino=?", inode.ino)
        return
    for parent, name in tuple(table.names(inode)):
        table.unlink(table.get(parent), name, inode)
    inode.nlink = 0
    namespace.end(inode)


def _remove_orphans(journal: Journal) -> None:
    """Remove content rows that neither an inode nor an op refers to, and names without inode."""
    journal.run_sql(
        "DELETE FROM content WHERE id NOT IN (SELECT content FROM inode WHERE content NOT NULL) "
        "AND id NOT IN (SELECT content FROM op WHERE content NOT NULL)"
    )
    journal.run_sql("DELETE FROM synced WHERE content NOT IN (SELECT id FROM content)")
    journal.run_sql("DELETE FROM dentry WHERE ino NOT IN (SELECT ino FROM inode)")
    journal.run_sql("DELETE FROM saved WHERE ino NOT IN (SELECT ino FROM inode)")
    journal.run_sql("DELETE FROM replaced WHERE ino NOT IN (SELECT ino FROM inode)")
    journal.commit()
