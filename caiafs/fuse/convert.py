"""Our values as pyfuse3's, and back.

Used by fuse.operations only. Pure, apart from making pyfuse3's objects.
"""

import os
import stat
from dataclasses import dataclass

import pyfuse3

from caiafs.core.config import Config
from caiafs.core.types import ROOT_INODE
from caiafs.vfs.attributes import AttributeChange
from caiafs.vfs.caller import Caller
from caiafs.vfs.inode import Inode

BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Presentation:
    """How attributes are shown: the mount options that change what the kernel sees.

    Attributes:
        entry_timeout_s, attr_timeout_s, negative_timeout_s: how long the kernel may believe us;
        long,
            because every change comes through the kernel or is told to it.
        uid, gid: shown for everything, None for the owner's own.
        fmask, dmask: permission bits taken away from files and directories.
        only_for: with allow_root, the user who mounts: the root directory is shown as theirs alone.
            The kernel knows allow_other only; a check of ours would not see what it answers from
            its caches, but no path leads around the root.
    """

    entry_timeout_s: float
    attr_timeout_s: float
    negative_timeout_s: float
    uid: int | None
    gid: int | None
    fmask: int
    dmask: int
    only_for: int | None

    @classmethod
    def from_config(cls, config: Config) -> "Presentation":
        """Take the presentation out of the configuration."""
        umask = config.umask or 0
        return cls(
            entry_timeout_s=config.entry_timeout_s,
            attr_timeout_s=config.attr_timeout_s,
            negative_timeout_s=config.negative_timeout_s,
            uid=config.uid,
            gid=config.gid,
            fmask=umask if config.fmask is None else config.fmask,
            dmask=umask if config.dmask is None else config.dmask,
            only_for=os.geteuid() if config.allow_root else None,
        )

    def attributes(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """Return what the kernel is told of an inode."""
        entry = pyfuse3.EntryAttributes()
        mode = inode.mode
        mask = self.dmask if stat.S_ISDIR(mode) else self.fmask
        entry.st_ino = inode.ino
        entry.st_mode = mode & ~mask if mask else mode
        entry.st_nlink = inode.nlink
        entry.st_uid = inode.uid if self.uid is None else self.uid
        entry.st_gid = inode.gid if self.gid is None else self.gid
        if self.only_for is not None and inode.ino == ROOT_INODE:
            entry.st_mode = entry.st_mode & ~0o077
            entry.st_uid = self.only_for
        entry.st_rdev = inode.rdev
        entry.st_size = inode.size
        entry.st_blksize = BLOCK_BYTES
        entry.st_blocks = (inode.size + 511) >> 9
        entry.st_atime_ns = inode.atime_ns
        entry.st_mtime_ns = inode.mtime_ns
        entry.st_ctime_ns = inode.ctime_ns
        entry.generation = 0
        entry.entry_timeout = self.entry_timeout_s
        entry.attr_timeout = self.attr_timeout_s
        return entry

    def nothing(self) -> pyfuse3.EntryAttributes:
        """Return the answer for a name that means nothing; the kernel remembers it."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(0)
        entry.entry_timeout = self.negative_timeout_s
        return entry


def caller(ctx: pyfuse3.RequestContext) -> Caller:
    """Return who makes a request."""
    return Caller(ctx.uid, ctx.gid, ctx.pid, ctx.umask)


def attribute_change(
    attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields
) -> AttributeChange:
    """Return what a setattr asks for."""
    return AttributeChange(
        mode=attr.st_mode if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
    )
