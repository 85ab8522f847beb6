"""What a user says of the next commit of a document: the extended attributes user.caia.message and user.caia.source.

Used by `vfs.attributes`, which sets them, and `vfs.publication`, which gives them to the first op that is logged
afterwards. Synchronous. A note can be read until that op is settled. What replaces a document by rename takes its notes
over, because editors save so.
"""

from caiafs.core.errors import InvalidArgument, NoAttribute
from caiafs.state.journal import Journal
from caiafs.state.said import MESSAGE, SOURCE
from caiafs.vfs.inode import NOTED, Inode
from caiafs.vfs.restore import OUR_XATTRS

KINDS = {OUR_XATTRS + kind.encode(): kind for kind in (MESSAGE, SOURCE)}
"""Extended attribute to kind of note."""

MAX_BYTES = {MESSAGE: 4096, SOURCE: 1024}


class Notes:
    """Notes of all inodes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        settled = journal.db.meta("settled_seq") or 0
        journal.run_sql("DELETE FROM note WHERE seq BETWEEN 1 AND ?", settled)
        journal.run_sql("DELETE FROM note WHERE seq=0 AND ino NOT IN (SELECT ino FROM inode)")
        journal.commit()
        self._given = bool(journal.db.rows("SELECT 1 FROM note WHERE seq>0 LIMIT 1"))

    def get(self, inode: Inode, kind: str) -> bytes:
        """Return the newest note that is not in a commit yet.

        Raises:
            NoAttribute: there is none.
        """
        self._journal.commit()
        # 0, the next op, is newer than any op.
        sql = "SELECT value FROM note WHERE ino=? AND kind=? ORDER BY seq>0, seq DESC LIMIT 1"
        rows = self._journal.db.rows(sql, inode.ino, kind)
        if not rows:
            raise NoAttribute("nothing is said of the next commit")
        return str(rows[0][0]).encode()

    def set(self, inode: Inode, kind: str, value: bytes) -> None:
        """Say something of the inode's next op; the caller commits.

        Raises:
            InvalidArgument: too long, empty, not a document, or no text.
        """
        if not inode.is_publishable:
            raise InvalidArgument("only documents have commits")
        if not value.strip() or len(value) > MAX_BYTES[kind] or b"\0" in value:
            raise InvalidArgument(f"a {kind} is a text of 1 to {MAX_BYTES[kind]} bytes")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise InvalidArgument(f"a {kind} is UTF-8") from exc
        sql = "INSERT OR REPLACE INTO note VALUES (?,?,0,?)"
        self._journal.run_sql(sql, inode.ino, kind, text)
        self._flag(inode)

    def _flag(self, inode: Inode) -> None:
        inode.flags |= NOTED
        self._journal.touch(inode)

    def remove(self, inode: Inode, kind: str) -> None:
        """Withdraw what was said, unless it is being committed already; the caller commits.

        Raises:
            NoAttribute: nothing was.
        """
        self.get(inode, kind)
        self._journal.run_sql("DELETE FROM note WHERE ino=? AND kind=?", inode.ino, kind)

    def give(self, inode: Inode, seq: int) -> None:
        """Let op `seq`, just logged, have the notes of an inode that is NOTED."""
        sql = "UPDATE OR REPLACE note SET seq=? WHERE ino=? AND seq=0"
        self._journal.run_sql(sql, seq, inode.ino)
        inode.flags &= ~NOTED
        self._journal.touch(inode)
        self._given = True

    def inherit(self, inode: Inode, replaced: Inode) -> None:
        """Let `inode`, which takes the name of `replaced`, have its notes; its own come first."""
        if not replaced.flags & NOTED:
            return
        self._journal.run_sql(
            "UPDATE OR IGNORE note SET ino=? WHERE ino=? AND seq=0", inode.ino, replaced.ino
        )
        self._journal.run_sql("DELETE FROM note WHERE ino=? AND seq=0", replaced.ino)
        replaced.flags &= ~NOTED
        self._journal.touch(replaced)
        self._flag(inode)

    def settled(self, last_seq: int) -> None:
        """Forget what is in a commit."""
        if not self._given:
            return
        self._journal.run_sql("DELETE FROM note WHERE seq BETWEEN 1 AND ?", last_seq)
        self._journal.commit()
        self._given = bool(self._journal.db.rows("SELECT 1 FROM note WHERE seq>0 LIMIT 1"))
