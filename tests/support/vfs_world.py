"""A mount without a kernel: the parts of the mount process over a scratch repository and a real state DB.

What the store process does is done here by hand: `publish` replays the op log, puts contents into git and settles.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import trio

from caiafs.backends.git.pack import new_object, write_pack
from caiafs.backends.git.repository import open_repository
from caiafs.backends.git.trees import edit_tree
from caiafs.core.config import Config
from caiafs.core.errors import Absent, NotFound
from caiafs.core.types import (
    EMPTY_TREE,
    ROOT_INODE,
    Change,
    DocPath,
    Entry,
    GitMode,
    HandleId,
    ObjectId,
    blob_id,
    git_mode,
)
from caiafs.mount_process import build
from caiafs.state import paths
from caiafs.state.database import StateDatabase
from caiafs.state.ops import Op
from caiafs.state.reader import StateReader, read_spooled
from caiafs.sync.merge import conflict_name, merge_text
from caiafs.sync.replay import Merging, Replay, replay
from caiafs.vfs.caller import Caller
from tests.support.git_objects import a_tree
from tests.support.waiting import PATIENCE_S

ALICE = Caller(os.getuid(), os.getgid(), 0)
WRITE = os.O_RDWR
TRUNCATE = os.O_RDWR | os.O_TRUNC


class FakeLink:
    """What the mount asks of the store process: large blobs from git, and nothing else."""

    def __init__(self):
        self.world = None
        self.loads = []
        self.on_load = None
        self.broken = False

    def tie(self, mount):
        pass

    async def load(self, oid):
        self.loads.append(oid)
        if self.on_load is not None:
            await self.on_load()
        if self.broken:
            raise Absent(f"blob {oid}: no store answers")
        cached = paths.cached_blob(self.world.state_dir, oid)
        cached.parent.mkdir(exist_ok=True)
        cached.write_bytes(self.world.repository.new_reader().read_blob(oid))

    async def wait_stored(self):
        self.world.publish_now()


class Notices:
    """The kernel, as far as it is told."""

    def __init__(self):
        self.names = []
        self.attributes = []

    async def forget_name(self, directory, name, removed=None):
        self.names.append((directory, name, removed))

    async def forget_attributes(self, ino):
        self.attributes.append(ino)


class VfsWorld:
    """One mount's parts; made inside trio. `close` or `kill` it, then `VfsWorld` again is the next mount."""

    def __init__(self, root: Path, documents=None, **settings):
        self.root = root
        self.repository = open_repository(root / "repo.git")
        self.state_dir = root / "state"
        settings.setdefault("inline_max_bytes", 64)
        settings.setdefault("small_object_bytes", 128)
        settings.setdefault("reserve_bytes", 0)
        self.config = Config(
            repository=root / "repo.git",
            mountpoint=root / "mnt",
            state_dir=self.state_dir,
            **settings,
        )
        self.link = FakeLink()
        self.link.world = self
        self.initial = a_tree(self.repository, documents) if documents else None
        self.db = StateDatabase.open(self.state_dir)
        self.mount = build(self.config, self.repository, self.db, self.link)
        if documents and self.db.meta("initial") is None:
            self.root_inode.oid = self.initial
            self.journal.touch(self.root_inode)
            self.journal.commit()
            self.db.set_meta("initial", self.initial)
        self.published = ObjectId(
            self.db.meta("published") or self.db.meta("initial") or EMPTY_TREE
        )
        self.notices = Notices()
        self.remote._kernel = self.notices

    def __getattr__(self, name):
        return getattr(self.mount, name)

    @property
    def root_inode(self):
        return self.table.get(ROOT_INODE)

    def close(self):
        self.db.close()

    def kill(self, into: Path):
        """Copy what a `kill -9` leaves, into a directory that the next mount can use."""
        shutil.copytree(self.root, into)
        self.db._db.close()
        os.close(self.db._wal_fd)
        self.db._wal_fd = -1

    # --- what programs do

    def directory(self, path):
        """Return the inode of a directory by its path."""
        inode = self.root_inode
        for name in path.split(b"/") if path else ():
            inode = self.table.find(inode, name)
            if inode is None:
                raise NotFound("no such directory")
        return inode

    def find(self, path):
        """Return the inode at a path, None where there is none."""
        parent, name = self.at(path)
        return self.namespace.lookup(parent, name)

    def at(self, path):
        """Return (directory inode number, name)."""
        parent, _, name = path.rpartition(b"/")
        return self.directory(parent).ino, name

    def create(self, path) -> HandleId:
        inode = self.namespace.create(*self.at(path), 0o644, ALICE)
        return self.files.attach(inode, ALICE, writes=True)

    def open(self, path, flags=os.O_RDONLY) -> HandleId:
        return self.files.open(self.find(path).ino, flags, ALICE)

    async def save(self, path, content):
        """Do as a shell's `>`: create or truncate, write, close."""
        handle = self.create(path) if self.find(path) is None else self.open(path, TRUNCATE)
        if content:
            await self.files.write(handle, 0, content)
        await self.close_handle(handle)

    async def close_handle(self, handle):
        await self.files.flush(handle)
        self.files.release(handle)

    async def read(self, path):
        inode = self.find(path)
        handle = self.files.open(inode.ino, os.O_RDONLY, ALICE)
        try:
            return await self.files.read(handle, 0, inode.size)
        finally:
            self.files.release(handle)

    def mkdir(self, path):
        return self.namespace.mkdir(*self.at(path), 0o755, ALICE)

    def rename(self, source, target, flags=0):
        self.namespace.rename(self.at(source), self.at(target), flags, ALICE)

    def unlink(self, path):
        self.namespace.unlink(*self.at(path), ALICE)

    def hard_link(self, path, new):
        self.namespace.link(self.find(path).ino, *self.at(new))

    # --- what the store process does

    async def run_hasher_until_idle(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hasher.run)
            with trio.fail_after(PATIENCE_S):
                await self.hasher.wait_idle()
            nursery.cancel_scope.cancel()

    def hash_now(self):
        """Do at once what the hasher's task would."""
        from caiafs.state.extents import Extents
        from caiafs.vfs import hashing

        hasher = self.hasher
        while hasher._waiting:
            ino, content_id = hasher._waiting.pop(0)
            self.journal.commit()
            rows = self.db.rows("SELECT spool, extents FROM content WHERE id=?", content_id)
            if not rows:  # set aside
                continue
            name, packed = rows[0]
            extents = Extents.from_bytes(packed)
            base = self.repository.reader.read_blob(extents.base) if extents.base else None
            file = hasher._spool.open(name)
            oid = hashing._hash(file, base, extents)
            file.close()
            hasher._note(ino, content_id, oid)

    def ops(self, limit=10_000) -> list[Op]:
        """Return the ops that a publisher may take now."""
        self.journal.commit()
        with closing(StateReader(self.state_dir)) as reader:
            return reader.ops_after(int(self.db.meta("settled_seq") or 0), limit)

    def content_of(self, op) -> bytes:
        """Return what an op puts, as the store process reads it."""
        if op.content_id is None:
            return self.repository.new_reader().read_blob(op.oid)
        with closing(StateReader(self.state_dir)) as reader:
            try:
                row = reader.content(op.content_id)
            except NotFound:  # settled meanwhile, so git has it
                return self.repository.new_reader().read_blob(op.oid)
        if row.data is not None:
            return row.data
        base_fd = None
        if row.extents.base:
            base_fd = os.memfd_create("base")
            os.write(base_fd, self.repository.new_reader().read_blob(row.extents.base))
        spool_fd = os.open(row.spool, os.O_RDONLY)
        try:
            return read_spooled(spool_fd, base_fd, row.extents, range(row.size_bytes))
        finally:
            os.close(spool_fd)
            if base_fd is not None:
                os.close(base_fd)

    def replayed(self, ops) -> Replay:
        """Return what ops make of the published tree."""
        merging = Merging(
            read=lambda oid: None,
            text=merge_text,
            conflict_name=conflict_name,
            foreign_time_ns=lambda path, oid: 0,
        )
        return replay(ops, self.repository.new_reader(), self.published, merging)

    def publish_now(self, count=10_000):
        """Store the next `count` ops in git; return their last position, not settled yet."""
        ops = self.ops(count)
        if not ops:
            return 0
        for op in ops:
            if op.oid is not None and op.content_id is not None:
                content = self.content_of(op)
                assert blob_id(content) == op.oid, f"{op} holds other bytes"
                self.put_blob(content)
        done = self.replayed(ops)
        assert not done.conflicts, done
        self.published, objects = edit_tree(self.repository.reader, self.published, done.changes)
        if objects:
            write_pack(self.repository.write_dir, list({o.oid: o for o in objects}.values()))
        self.db.set_meta("published", self.published)
        return ops[-1].seq

    def put_blob(self, content) -> ObjectId:
        """Put a blob into git."""
        item = new_object(b"blob", content)
        if not self.repository.new_reader().exists(item.oid):
            write_pack(self.repository.write_dir, [item])
        return item.oid

    async def settle(self, count=10_000):
        """Publish `count` ops and let the mount forget them."""
        seq = self.publish_now(count)
        if seq:
            await self.settlement.settled(seq)
            self.db.set_meta("settled_seq", seq)

    def foreign(self, changes) -> tuple[list[Change], dict]:
        """Commit somebody else's changes (path to content or None); return what the mount is told."""
        from caiafs.backends.git.trees import changed_tree_ids

        made = []
        for path, content in changes.items():
            before = self.published_entry(path)
            after = None
            if content is not None:
                after = Entry(GitMode.FILE, self.put_blob(content), len(content))
            made.append(Change(DocPath(path), before, after))
        old = self.published
        made.sort(key=lambda change: change.path)
        self.published, objects = edit_tree(self.repository.reader, old, made)
        if objects:
            write_pack(self.repository.write_dir, list({o.oid: o for o in objects}.values()))
        self.db.set_meta("published", self.published)
        trees = changed_tree_ids(self.repository.new_reader(), old, self.published)
        return made, trees

    def published_entry(self, path):
        for found, entry in self.repository.new_reader().walk(self.published):
            if found == path:
                return Entry(int(entry.mode), entry.oid)
        return None

    def published_tree(self):
        """Return path to (mode, content) of the published tree."""
        reader = self.repository.new_reader()
        return {
            bytes(path): (int(entry.mode), reader.read_blob(entry.oid))
            for path, entry in reader.walk(self.published)
        }

    # --- what is seen

    async def shown(self, *, local=False):
        """Return path to (git mode, content) of what the mount shows; without local files."""
        found = {}
        waiting = [(b"", self.root_inode)]
        while waiting:
            prefix, directory = waiting.pop()
            for name in sorted(self.table.children(directory)):
                inode = self.table.find(directory, name)
                path = prefix + name
                if inode.is_directory:
                    waiting.append((path + b"/", inode))
                elif inode.is_publishable and (
                    local or not self.publication.is_local(DocPath(path))
                ):
                    content = await self.contents.read(inode, 0, inode.size)
                    assert len(content) == inode.size, f"{path}: size {inode.size}, read {content}"
                    self.contents.let_go(inode)
                    found[path] = (int(git_mode(inode.mode)), content)
        return found

    def spool_names(self):
        return set(os.listdir(paths.spool(self.state_dir)))

    def spool_sizes(self):
        directory = paths.spool(self.state_dir)
        return sorted((directory / name).stat().st_size for name in self.spool_names())

    def count(self, table):
        self.journal.commit()
        return self.db.rows(f"SELECT count(*) FROM {table}")[0][0]

    def check_tables(self):
        """Assert what must hold in every state DB between two operations."""
        self.journal.commit()
        with closing(sqlite3.connect(paths.database(self.state_dir))) as db:
            # A content that is settled may still be named: git has it.
            lost = (
                "SELECT ino, content FROM inode WHERE content NOT NULL AND (flags & 2 OR oid IS NULL)"
                " AND content NOT IN (SELECT id FROM content)"
                " AND content NOT IN (SELECT content FROM op WHERE content NOT NULL)"
            )
            assert db.execute(lost).fetchall() == []
            rows = "SELECT oid FROM op WHERE kind='put' AND oid NOT NULL AND content NOT IN (SELECT id FROM content)"
            for (oid,) in db.execute(rows):
                self.repository.reader.size(ObjectId(oid.hex()))  # git has it, or this raises
            names = "SELECT name FROM dentry WHERE ino NOT IN (SELECT ino FROM inode)"
            assert db.execute(names).fetchall() == []
            spools = {
                name for (name,) in db.execute("SELECT spool FROM content WHERE spool NOT NULL")
            }
        assert spools <= self.spool_names()
