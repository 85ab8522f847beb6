"""Mounts a `chaos.disk.Disk`, so that a power cut can be played on whatever lies on it.

usage: python -m chaos.forgetful SOURCE MOUNTPOINT ORDERS. It holds a copy of SOURCE in memory. Orders come through the Unix
socket ORDERS, one JSON object for each connection:

    {"seed": 1, "targets": [DIR, ...], "after": 7}

After that many more syncs (0: now) the power is cut, just before the sync: what survives is written to each DIR, chosen anew for
each, and from then on every request fails with EIO. The answer, a line, comes when that is done.

Without the write-back cache the kernel hands each write(2) on at once: what it holds back are stores through a shared mapping only.
"""

import errno
import functools
import json
import os
import random
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from chaos.disk import Disk, Node

TIMEOUT_S = 3600.0
FREE_BLOCKS = 1 << 22


@dataclass
class Cut:
    """The power cut that was ordered."""

    chosen: random.Random
    targets: list[Path]
    at_sync: int
    done: trio.Event


def powered(handler):
    """Let a request fail once the power is off."""

    @functools.wraps(handler)
    async def wrapper(self, *args, **kwargs):
        if self.is_off:
            raise pyfuse3.FUSEError(errno.EIO)
        try:
            return await handler(self, *args, **kwargs)
        except OSError as exc:
            raise pyfuse3.FUSEError(exc.errno or errno.EIO) from exc

    return wrapper


class Forgetful(pyfuse3.Operations):
    enable_writeback_cache = False

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk
        self.is_off = False
        self._cut: Cut | None = None
        self._listings: dict[int, list[tuple[bytes, int]]] = {}
        self._directories: dict[int, int] = {}
        self._next_listing = 1

    # --- the power

    def order(self, cut: Cut) -> None:
        """Take an order; it is carried out at once when it is due."""
        self._cut = cut
        if self.disk.syncs >= cut.at_sync:
            self._cut_power()

    def _cut_power(self) -> None:
        assert self._cut is not None
        self.is_off = True
        for target in self._cut.targets:
            self.disk.leave(target, self._cut.chosen)
        self._cut.done.set()

    def _sync(self, ino: int) -> None:
        if self._cut is not None and self.disk.syncs + 1 >= self._cut.at_sync:
            self._cut_power()
            raise OSError(errno.EIO, "the power is off")
        self.disk.sync(ino)

    # --- requests

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = node.ino
        entry.st_mode = node.mode
        entry.st_nlink = 2 if node.is_dir else node.links
        entry.st_size = len(node.content)
        entry.st_uid, entry.st_gid = node.uid, node.gid
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = node.mtime_ns
        entry.st_blksize = 4096
        entry.st_blocks = (len(node.content) + 511) // 512
        entry.entry_timeout = entry.attr_timeout = TIMEOUT_S
        return entry

    def _touch(self, *inodes: int) -> None:
        for ino in inodes:
            self.disk.nodes[ino].mtime_ns = time.time_ns()

    def _add(self, parent: int, name: bytes, mode: int, ctx) -> Node:
        node = self.disk.make(mode)
        node.uid, node.gid = ctx.uid, ctx.gid
        self.disk.name((parent, name, node.ino))
        self._touch(parent, node.ino)
        return node

    @powered
    async def lookup(self, parent_inode, name, ctx=None):
        return self._attributes(self.disk.find(parent_inode, name))

    @powered
    async def getattr(self, inode, ctx=None):
        return self._attributes(self.disk.nodes[inode])

    @powered
    async def setattr(self, inode, attr, fields, fh, ctx):
        node = self.disk.nodes[inode]
        if fields.update_size:
            self.disk.truncate(inode, attr.st_size)
            self._touch(inode)
        if fields.update_mode:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(attr.st_mode)
        if fields.update_uid:
            node.uid = attr.st_uid
        if fields.update_gid:
            node.gid = attr.st_gid
        if fields.update_mtime:
            node.mtime_ns = attr.st_mtime_ns
        return self._attributes(node)

    @powered
    async def create(self, parent_inode, name, mode, flags, ctx):
        node = self._add(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode), ctx)
        return pyfuse3.FileInfo(fh=node.ino, keep_cache=True), self._attributes(node)

    @powered
    async def mknod(self, parent_inode, name, mode, rdev, ctx):
        return self._attributes(self._add(parent_inode, name, mode, ctx))

    @powered
    async def open(self, inode, flags, ctx):
        if flags & os.O_TRUNC:
            self.disk.truncate(inode, 0)
            self._touch(inode)
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    @powered
    async def read(self, fh, off, size):
        return bytes(self.disk.nodes[fh].content[off : off + size])

    @powered
    async def write(self, fh, off, buf):
        self.disk.write(fh, off, bytes(buf))
        self._touch(fh)
        return len(buf)

    async def flush(self, fh):
        pass

    async def release(self, fh):
        pass

    @powered
    async def fsync(self, fh, datasync):
        self._sync(fh)

    @powered
    async def fsyncdir(self, fh, datasync):
        self._sync(self._directories[fh])

    @powered
    async def mkdir(self, parent_inode, name, mode, ctx):
        mode = stat.S_IFDIR | stat.S_IMODE(mode)
        return self._attributes(self._add(parent_inode, name, mode, ctx))

    @powered
    async def symlink(self, parent_inode, name, target, ctx):
        node = self._add(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        node.content[:] = node.durable[:] = target
        return self._attributes(node)

    @powered
    async def readlink(self, inode, ctx):
        return bytes(self.disk.nodes[inode].content)

    @powered
    async def link(self, inode, new_parent_inode, new_name, ctx):
        self.disk.name((new_parent_inode, new_name, inode))
        return self._attributes(self.disk.nodes[inode])

    @powered
    async def unlink(self, parent_inode, name, ctx):
        self.disk.find(parent_inode, name)
        self.disk.name((parent_inode, name, None))
        self._touch(parent_inode)

    @powered
    async def rmdir(self, parent_inode, name, ctx):
        if self.disk.find(parent_inode, name).names:
            raise OSError(errno.ENOTEMPTY, "not empty")
        self.disk.name((parent_inode, name, None))

    @powered
    async def rename(self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx):  # noqa: PLR0917 - pyfuse3 says so
        node = self.disk.find(parent_inode_old, name_old)
        target = self.disk.nodes[parent_inode_new].names.get(name_new)
        if flags & 1 and target is not None:
            raise OSError(errno.EEXIST, "exists")
        if flags & ~1:
            raise OSError(errno.EINVAL, "no such flag")
        if target is not None and self.disk.nodes[target].names:
            raise OSError(errno.ENOTEMPTY, "not empty")
        if target != node.ino:
            old, new = (parent_inode_old, name_old), (parent_inode_new, name_new)
            self.disk.name((*old, None), (*new, node.ino))
            self._touch(parent_inode_old, parent_inode_new)

    @powered
    async def opendir(self, inode, ctx):
        handle, self._next_listing = self._next_listing, self._next_listing + 1
        self._directories[handle] = inode
        self._listings[handle] = sorted(self.disk.nodes[inode].names.items())
        return handle

    @powered
    async def readdir(self, fh, start_id, token):
        listing = self._listings[fh]
        for number in range(start_id, len(listing)):
            name, ino = listing[number]
            entry = self._attributes(self.disk.nodes[ino])
            if not pyfuse3.readdir_reply(token, name, entry, number + 1):
                break

    async def releasedir(self, fh):
        self._listings.pop(fh, None)
        self._directories.pop(fh, None)

    async def getxattr(self, inode, name, ctx):
        raise pyfuse3.FUSEError(errno.ENOTSUP)

    async def statfs(self, ctx):
        reply = pyfuse3.StatvfsData()
        reply.f_bsize = reply.f_frsize = 4096
        reply.f_blocks = reply.f_bfree = reply.f_bavail = FREE_BLOCKS
        reply.f_files = reply.f_ffree = reply.f_favail = FREE_BLOCKS
        reply.f_namemax = 255
        return reply


async def listen(operations: Forgetful, place: str, *, task_status=trio.TASK_STATUS_IGNORED):
    """Take orders at the Unix socket `place`."""
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as server:
        await server.bind(place)
        server.listen()
        task_status.started()
        while True:
            connection, _ = await server.accept()
            async with trio.SocketStream(connection) as stream:
                order = json.loads(await stream.receive_some())
                cut = Cut(
                    random.Random(order["seed"]),
                    [Path(target) for target in order["targets"]],
                    operations.disk.syncs + order["after"],
                    trio.Event(),
                )
                operations.order(cut)
                await cut.done.wait()
                await stream.send_all(b"done\n")


async def serve(operations: Forgetful, place: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(listen, operations, place)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main() -> None:
    source, mountpoint, place = sys.argv[1:4]
    disk = Disk()
    disk.load(Path(source))
    disk.strict = sys.argv[4:] == ["strict"]
    operations = Forgetful(disk)
    options = set(pyfuse3.default_options) | {"fsname=forgetful", "default_permissions"}
    pyfuse3.init(operations, mountpoint, options)
    try:
        trio.run(serve, operations, place)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
