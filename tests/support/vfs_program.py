"""A program that uses a mount's parts, beside a dictionary that says what must come of it."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from caiafs.core.errors import FsError
from caiafs.core.types import GitMode
from caiafs.state.ops import OpKind
from caiafs.vfs.attributes import AttributeChange
from caiafs.vfs.namespace import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.support.vfs_world import ALICE, TRUNCATE, WRITE, VfsWorld

INITIAL = {b"a": b"initial a", b"d/b": b"initial b", b"d/big": b"B" * 200, b"e/c": b"initial c"}


@dataclass(eq=False)
class File:
    """What a file or link must hold; `durable` is what a crash may not take."""

    content: bytes
    durable: bytes | None
    mode: int = GitMode.FILE
    is_large_and_torn: bool = False


@dataclass
class Opened:
    handle: int
    file: File
    writes: bool


@dataclass
class Program:
    """Runs steps on a world and on a dictionary of path to File; None stands for a directory."""

    root: Path
    settings: dict = field(default_factory=dict)
    mounts: int = 0

    def __post_init__(self):
        self.world = VfsWorld(self.root / "m0", INITIAL, **self.settings)
        self.tree: dict[bytes, File | None] = {}
        for path, content in INITIAL.items():
            self.tree[path] = File(content, content)
            if b"/" in path:
                self.tree[path.rpartition(b"/")[0]] = None
        self.opened: list[Opened] = []

    async def run(self, steps):
        for name, *arguments in steps:
            try:
                await getattr(self, name)(*arguments)
            except FsError:
                continue

    # --- files

    async def create(self, path):
        handle = self.world.create(path)
        self.tree[path] = file = File(b"", None)
        self.opened.append(Opened(handle, file, writes=True))

    async def open(self, path, flags):
        file = self.tree.get(path)
        if file is None or file.mode == GitMode.SYMLINK:
            return
        self.opened.append(Opened(self.world.open(path, flags), file, writes=flags != os.O_RDONLY))
        if flags & os.O_TRUNC:
            file.content = b""

    async def write(self, which, offset, content):
        if not self.opened or not self.opened[which % len(self.opened)].writes:
            return
        opened = self.opened[which % len(self.opened)]
        await self.world.files.write(opened.handle, offset, content)
        old = opened.file.content.ljust(offset, b"\0")
        opened.file.content = old[:offset] + content + old[offset + len(content) :]
        opened.file.is_large_and_torn = True

    async def read(self, which):
        if self.opened:
            opened = self.opened[which % len(self.opened)]
            shown = await self.world.files.read(opened.handle, 0, 1000)
            assert shown == opened.file.content, "a handle reads what was written"

    async def flush(self, which):
        if self.opened:
            opened = self.opened[which % len(self.opened)]
            await self.world.files.flush(opened.handle)
            self._is_durable(opened.file)

    async def fsync(self, which):
        if self.opened:
            opened = self.opened[which % len(self.opened)]
            await self.world.files.fsync(opened.handle)
            self._is_durable(opened.file)

    async def release(self, which):
        if self.opened:
            opened = self.opened.pop(which % len(self.opened))
            await self.world.files.flush(opened.handle)
            self.world.files.release(opened.handle)
            self._is_durable(opened.file)

    def _is_durable(self, file):
        file.durable = file.content
        file.is_large_and_torn = False

    async def save(self, path, content):
        if isinstance(self.tree.get(path), File) and self.tree[path].mode == GitMode.SYMLINK:
            return
        await self.world.save(path, content)
        file = self.tree.setdefault(path, File(b"", None))
        file.content = content
        self._is_durable(file)

    async def truncate(self, path, size):
        file = self.tree.get(path)
        if file is None or file.mode == GitMode.SYMLINK:
            return
        await self.world.attributes.set(
            self.world.find(path).ino, AttributeChange(size=size), ALICE
        )
        file.content = file.content[:size].ljust(size, b"\0")
        if not any(o.file is file and o.writes for o in self.opened):
            self._is_durable(file)

    async def chmod(self, path, mode):
        file = self.tree.get(path)
        if file is None or file.mode == GitMode.SYMLINK:
            return
        await self.world.attributes.set(
            self.world.find(path).ino, AttributeChange(mode=mode), ALICE
        )
        file.mode = GitMode.EXECUTABLE if mode & 0o100 else GitMode.FILE

    async def touch(self, path):
        if path in self.tree:
            change = AttributeChange(mtime_ns=10**18)
            await self.world.attributes.set(self.world.find(path).ino, change, ALICE)

    # --- names

    async def mkdir(self, path):
        self.world.mkdir(path)
        self.tree[path] = None

    async def rmdir(self, path):
        if self._parent_is_missing(path):
            return
        self.world.namespace.rmdir(*self.world.at(path))
        del self.tree[path]

    async def symlink(self, path, target):
        if self._parent_is_missing(path):
            return
        self.world.namespace.symlink(*self.world.at(path), target, ALICE)
        self.tree[path] = File(target, target, GitMode.SYMLINK)

    async def fifo(self, path):
        if self._parent_is_missing(path):
            return
        self.world.namespace.mknod(*self.world.at(path), stat.S_IFIFO | 0o644, 0, ALICE)
        self.world.unlink(path)

    async def unlink(self, path):
        if self._parent_is_missing(path):
            return
        self.world.unlink(path)
        del self.tree[path]

    async def link(self, path, new):
        if self.tree.get(path) is None or self._parent_is_missing(new):
            return
        self.world.hard_link(path, new)
        self.tree[new] = self.tree[path]

    async def rename(self, source, target):
        if source not in self.tree or self._parent_is_missing(target):
            return
        if self.tree[source] is not None and self.tree[source] is self.tree.get(target):
            self.world.rename(source, target)
            return
        if source == target:
            return
        self.world.rename(source, target)
        self.tree.pop(target, None)
        self._move([(source, target)])

    async def rename_noreplace(self, source, target):
        if source in self.tree and not self._parent_is_missing(target):
            self.world.rename(source, target, RENAME_NOREPLACE)
            self._move([(source, target)])

    async def exchange(self, source, target):
        if source not in self.tree or target not in self.tree or source == target:
            return
        self.world.rename(source, target, RENAME_EXCHANGE)
        if self.tree[source] is not None and self.tree[source] is self.tree[target]:
            return
        self._move([(source, target), (target, source)])

    def _move(self, pairs):
        moved = {}
        for source, target in pairs:
            for path in [p for p in self.tree if p == source or p.startswith(source + b"/")]:
                moved[target + path[len(source) :]] = self.tree[path]
        for source, _ in pairs:
            for path in [p for p in self.tree if p == source or p.startswith(source + b"/")]:
                del self.tree[path]
        self.tree.update(moved)

    def _parent_is_missing(self, path):
        parent = path.rpartition(b"/")[0]
        return bool(parent) and (parent not in self.tree or self.tree[parent] is not None)

    # --- the rest of the world

    async def hash(self):
        self.world.hash_now()

    async def settle(self, count):
        await self.world.settle(count)
        self.world.check_tables()

    async def age(self):
        self.world.files.settle_everything(unflushed=True)
        for opened in self.opened:
            if opened.file in self.tree.values():
                self._is_durable(opened.file)

    async def forget(self):
        """Have the kernel let go of every inode."""
        for inode in list(self.world.table.in_memory()):
            self.world.table.release(inode)

    async def remount(self):
        while self.opened:
            await self.release(0)
        self.world.files.settle_everything(unflushed=True)
        self.world.close()
        self.world = VfsWorld(self.world.root, INITIAL, **self.settings)

    async def kill(self):
        self.mounts += 1
        into = self.root / f"m{self.mounts}"
        self.world.kill(into)
        self.opened.clear()
        self.world = VfsWorld(into, INITIAL, **self.settings)
        shown = await self.world.shown(local=True)
        for path, file in list(self.tree.items()):
            if file is None:
                continue
            if path not in shown:
                assert file.durable is None, f"{path} was closed and is gone"
                del self.tree[path]
                continue
            content = shown[path][1]
            if file.durable is None:
                pass  # never flushed: what it took the name of is back
            elif not (file.is_large_and_torn and max(len(content), len(file.content)) > 64):
                assert content == file.durable, f"{path} is not as it was closed"
            file.mode = shown[path][0]
            file.content = file.durable = content
            file.is_large_and_torn = False

    # --- what must hold

    async def check(self):
        """Close everything, and compare the mount, the op log and the stores with the dictionary."""
        while self.opened:
            await self.release(0)
        self.world.files.settle_everything(unflushed=True)
        self.world.hash_now()
        expected = {p: (int(f.mode), f.content) for p, f in self.tree.items() if f is not None}
        assert await self.world.shown(local=True) == expected
        self.check_replaced()
        await self.world.settle()
        public = {p: v for p, v in expected.items() if not self.world.publication.is_local(p)}
        assert self.world.published_tree() == public
        assert await self.world.shown(local=True) == expected
        self.check_leftovers()

    def check_replaced(self):
        """No op of a mount that is alone may look as if somebody else had written."""
        tree = {p: e.oid for p, e in self.world.repository.new_reader().walk(self.world.published)}
        for op in self.world.ops():
            where = op.target if op.kind is OpKind.MOVE else op.path
            there = tree.get(where)
            if op.kind is OpKind.PUT:
                assert there in {None, op.replaced, op.oid}, op
                tree[op.path] = op.oid
            elif op.kind is OpKind.REMOVE:
                assert there is None or op.replaced == there, op
                _drop(tree, op.path)
            elif op.kind is OpKind.MOVE:
                assert there in {None, op.replaced, tree.get(op.path)}, op
                moved = _drop(tree, op.path)
                _drop(tree, op.target)
                tree.update({op.target + rest: oid for rest, oid in moved.items()})
            else:
                first, second = _drop(tree, op.path), _drop(tree, op.target)
                tree.update({op.target + rest: oid for rest, oid in first.items()})
                tree.update({op.path + rest: oid for rest, oid in second.items()})

    def check_leftovers(self):
        """What is settled leaves nothing behind."""
        world = self.world
        world.contents.sweep(world.table.in_memory())
        world.check_tables()
        assert world.count("op") == 0
        needed = set()
        for path, file in self.tree.items():
            if file is not None and world.publication.is_local(path):
                inode = world.find(path)
                needed.add(inode.content)
                assert inode.content is not None or inode.oid is not None
        kept = {row for (row,) in world.db.rows("SELECT id FROM content")}
        assert kept <= needed, "a content row that nobody needs"
        spools = {n for (n,) in world.db.rows("SELECT spool FROM content WHERE spool NOT NULL")}
        assert world.spool_names() == spools, "a spool file that nobody needs"
        nameless = "SELECT ino FROM inode WHERE ino<>1 AND ino NOT IN (SELECT ino FROM dentry)"
        assert world.db.rows(nameless) == [], "an inode without a name"

    def end(self):
        self.world.close()


def _drop(tree, path):
    """Take a path and all below out of a tree; return what was there, by the rest of its path."""
    found = {p[len(path) :]: p for p in tree if p == path or p.startswith(path + b"/")}
    return {rest: tree.pop(p) for rest, p in found.items()}


__all__ = ["INITIAL", "TRUNCATE", "WRITE", "Program"]
