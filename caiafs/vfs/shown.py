"""Whether a path of the mount shows what the stores have there.

Used by `vfs.remote`. Pure.
"""

from caiafs.core.types import Entry, GitMode, git_mode
from caiafs.vfs.inode import DAMAGED, UNLOGGED, Inode


def differ_in_mode_only(inode: Inode, after: Entry) -> bool:
    """Whether `after` is the content of a file with another executable bit."""
    return inode.is_file and inode.oid == after.oid and after.mode != GitMode.SYMLINK


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether both are the same version, or both nothing."""
    return one is other or (one is not None and one.same_content(other))


def shows(inode: Inode | None, entry: Entry | None) -> bool:
    """Whether a path that has `inode` shows `entry` to the stores."""
    if inode is None:
        return entry is None
    if inode.dirty or inode.flags & UNLOGGED or inode.unhashed is not None:
        return False
    if entry is None:
        # Its only version was set aside: the stores have nothing there, and no op of ours follows.
        return bool(inode.flags & DAMAGED) and not inode.is_logged
    return inode.is_logged and inode.oid == entry.oid and git_mode(inode.mode) == entry.mode
