"""The smallest pyfuse3 passthrough that is tuned fairly: the floor of what Python and FUSE cost.

usage: python -m bench.passthrough SOURCE MOUNTPOINT. Writeback cache, kernel time-outs of an hour, negative entries, pages kept.
An inode is known by its path, a handle is a descriptor; nothing is journaled, hashed or published.
"""

import errno
import functools
import os
import stat
import sys
from pathlib import Path

import pyfuse3
import trio

TIMEOUT_S = 3600.0
FIELDS = [
    f"st_{name}"
    for name in ("mode", "nlink", "uid", "gid", "rdev", "size", "atime_ns", "mtime_ns", "ctime_ns")
]
SPACE = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax")


def errors_to_errno(handler):
    @functools.wraps(handler)
    async def wrapper(*args, **kwargs):
        try:
            return await handler(*args, **kwargs)
        except OSError as exc:
            raise pyfuse3.FUSEError(exc.errno or errno.EIO) from exc

    return wrapper


def attributes(ino: int, found: os.stat_result) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    for field in FIELDS:
        setattr(entry, field, getattr(found, field))
    entry.st_ino = ino
    entry.st_blksize = 4096
    entry.st_blocks = (found.st_size + 511) // 512
    entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
    return entry


class Passthrough(pyfuse3.Operations):
    enable_writeback_cache = True

    def __init__(self, source: bytes) -> None:
        super().__init__()
        self._paths: dict[int, bytes] = {pyfuse3.ROOT_INODE: source}
        self._inodes: dict[bytes, int] = {source: pyfuse3.ROOT_INODE}
        self._counts: dict[int, int] = {}
        self._listings: dict[int, list[bytes]] = {}
        self._next = pyfuse3.ROOT_INODE + 1

    def _join(self, parent: int, name: bytes) -> bytes:
        return self._paths[parent] + b"/" + name

    def _known(self, path: bytes, *, looked_up: bool = True) -> pyfuse3.EntryAttributes:
        found = os.lstat(path)
        ino = self._inodes.get(path)
        if ino is None:
            ino, self._next = self._next, self._next + 1
            self._inodes[path] = ino
            self._paths[ino] = path
        if looked_up:
            self._counts[ino] = self._counts.get(ino, 0) + 1
        return attributes(ino, found)

    @errors_to_errno
    async def lookup(self, parent_inode, name, ctx=None):
        try:
            return self._known(self._join(parent_inode, name))
        except FileNotFoundError:
            missing = pyfuse3.EntryAttributes()
            missing.st_ino = 0
            missing.entry_timeout = TIMEOUT_S
            return missing

    async def forget(self, inode_list):
        for ino, dropped in inode_list:
            left = self._counts.get(ino, 0) - dropped
            if left > 0:
                self._counts[ino] = left
                continue
            self._counts.pop(ino, None)
            path = self._paths.pop(ino, None)
            if path is not None and self._inodes.get(path) == ino:
                del self._inodes[path]

    @errors_to_errno
    async def getattr(self, inode, ctx=None):
        return attributes(inode, os.lstat(self._paths[inode]))

    @errors_to_errno
    async def setattr(self, inode, attr, fields, fh, ctx):
        path = self._paths[inode]
        if fields.update_size:
            os.truncate(path, attr.st_size)
        if fields.update_mode:
            os.chmod(path, stat.S_IMODE(attr.st_mode))
        if fields.update_uid or fields.update_gid:
            uid = attr.st_uid if fields.update_uid else -1
            os.chown(path, uid, attr.st_gid if fields.update_gid else -1, follow_symlinks=False)
        if fields.update_atime or fields.update_mtime:
            now = os.lstat(path)
            atime_ns = attr.st_atime_ns if fields.update_atime else now.st_atime_ns
            mtime_ns = attr.st_mtime_ns if fields.update_mtime else now.st_mtime_ns
            os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False)
        return attributes(inode, os.lstat(path))

    @errors_to_errno
    async def create(self, parent_inode, name, mode, flags, ctx):
        path = self._join(parent_inode, name)
        fd = os.open(path, (flags | os.O_CREAT | os.O_RDWR) & ~(os.O_WRONLY | os.O_APPEND), mode)
        return pyfuse3.FileInfo(fh=fd, keep_cache=True), self._known(path)

    @errors_to_errno
    async def open(self, inode, flags, ctx):
        if flags & os.O_ACCMODE == os.O_WRONLY:  # the writeback cache reads through such handles
            flags = flags & ~os.O_WRONLY | os.O_RDWR
        fd = os.open(self._paths[inode], flags & ~os.O_APPEND)
        return pyfuse3.FileInfo(fh=fd, keep_cache=True)

    @errors_to_errno
    async def read(self, fh, off, size):
        return os.pread(fh, size, off)

    @errors_to_errno
    async def write(self, fh, off, buf):
        return os.pwrite(fh, buf, off)

    async def flush(self, fh):
        pass

    async def release(self, fh):
        os.close(fh)

    @errors_to_errno
    async def fsync(self, fh, datasync):
        (os.fdatasync if datasync else os.fsync)(fh)

    @errors_to_errno
    async def mkdir(self, parent_inode, name, mode, ctx):
        path = self._join(parent_inode, name)
        os.mkdir(path, mode)
        return self._known(path)

    @errors_to_errno
    async def symlink(self, parent_inode, name, target, ctx):
        path = self._join(parent_inode, name)
        os.symlink(target, path)
        return self._known(path)

    @errors_to_errno
    async def readlink(self, inode, ctx):
        return os.readlink(self._paths[inode])

    @errors_to_errno
    async def unlink(self, parent_inode, name, ctx):
        path = self._join(parent_inode, name)
        os.unlink(path)
        self._inodes.pop(path, None)

    @errors_to_errno
    async def rmdir(self, parent_inode, name, ctx):
        path = self._join(parent_inode, name)
        os.rmdir(path)
        self._inodes.pop(path, None)

    @errors_to_errno
    async def rename(self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx):  # noqa: PLR0917 - pyfuse3 says so
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        old = self._join(parent_inode_old, name_old)
        new = self._join(parent_inode_new, name_new)
        os.rename(old, new)
        moved = self._inodes.get(old)
        if moved is not None and stat.S_ISDIR(os.lstat(new).st_mode):
            self._move_below(old, new)
        elif moved is not None:
            self._move(moved, old, new)

    def _move(self, ino: int, old: bytes, new: bytes) -> None:
        del self._inodes[old]
        self._inodes[new] = ino
        self._paths[ino] = new

    def _move_below(self, old: bytes, new: bytes) -> None:
        below = [p for p in self._inodes if p == old or p.startswith(old + b"/")]
        for path in below:
            self._move(self._inodes[path], path, new + path[len(old) :])

    @errors_to_errno
    async def opendir(self, inode, ctx):
        self._listings[inode] = os.listdir(self._paths[inode])
        return inode

    async def readdir(self, fh, start_id, token):
        names = self._listings.get(fh, [])
        for index in range(start_id, len(names)):
            try:
                entry = self._known(self._join(fh, names[index]), looked_up=False)
            except FileNotFoundError:
                continue
            if not pyfuse3.readdir_reply(token, names[index], entry, index + 1):
                break
            self._counts[entry.st_ino] = self._counts.get(entry.st_ino, 0) + 1

    async def getxattr(self, inode, name, ctx):
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR)

    @errors_to_errno
    async def statfs(self, ctx):
        found = os.statvfs(self._paths[pyfuse3.ROOT_INODE])
        reply = pyfuse3.StatvfsData()
        for name in SPACE:
            setattr(reply, f"f_{name}", getattr(found, f"f_{name}"))
        return reply


def main() -> None:
    source, mountpoint = (Path(arg).resolve() for arg in sys.argv[1:3])
    options = set(pyfuse3.default_options) | {"fsname=passthrough", "default_permissions"}
    pyfuse3.init(Passthrough(os.fsencode(source)), str(mountpoint), options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
