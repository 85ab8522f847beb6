"""What a document keeps when another inode takes its place: what no store knows of it.

Used by `vfs.remote` and `vfs.resolution`: content that did not come through the kernel gets a new inode.
"""

import stat

from caiafs.state.journal import Journal
from caiafs.vfs.inode import HAS_XATTRS, Inode


def inherit(journal: Journal, new: Inode, old: Inode) -> None:
    """Give `new` the owner, permissions and extended attributes of `old`, but its own executable bit."""
    new.uid, new.gid = old.uid, old.gid
    if new.is_file and old.is_file:
        kept = stat.S_IMODE(old.mode) & ~0o111
        execute = (kept & 0o444) >> 2 if new.mode & 0o100 else 0
        new.mode = stat.S_IFREG | kept | execute
    if old.flags & HAS_XATTRS and not new.flags & HAS_XATTRS:
        new.flags |= HAS_XATTRS
        new.xattrs = None
        sql = "INSERT INTO xattr SELECT ?, name, value FROM xattr WHERE ino=?"
        journal.run_sql(sql, new.ino, old.ino)
    journal.touch(new)
