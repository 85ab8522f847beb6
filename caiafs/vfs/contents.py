"""Where a file's bytes come from, and how they reach the state DB.

Used by the other vfs modules, on the trio thread. `load` alone awaits: it may have to wait until
the store process has put a large blob into the disk cache; nothing is held meanwhile, and the
caller looks again afterwards.

A content row is written again and again until an op refers to it (`row_open`); from then on it is a
version and the next write makes a new row.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from caiafs.cache.memory import BlobCache
from caiafs.core.errors import Absent, Corrupt, NotFound, StateCorrupt
from caiafs.core.types import EMPTY_BLOB, ObjectId, blob_id
from caiafs.state.extents import Extents
from caiafs.state.journal import Journal, raw_id
from caiafs.state.spool import Spool, SpoolFile
from caiafs.vfs.body import BaseMissing, Body, CachedBody, SmallBody, SpoolBody
from caiafs.vfs.importing import ObjectSource
from caiafs.vfs.inode import DAMAGED, UNLOGGED, Inode

_PUT_CONTENT = "INSERT OR REPLACE INTO content VALUES (?,?,?,?,?)"


class BlobLoader(Protocol):
    """Gets large blobs into the disk cache; `app` supplies the link to the store process."""

    async def load(self, oid: ObjectId) -> None:
        """Return when the disk cache has the blob.

        Raises:
            StoreError: no store can give it now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes that decide where a content is kept."""

    inline_max: int
    small_object: int


class Contents:
    """Bodies of inodes: loaded, written, journaled, let go."""

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        *,
        objects: ObjectSource,
        loader: BlobLoader,
        cache: BlobCache,
        limits: Limits,
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._objects = objects
        self._loader = loader
        self._cache = cache
        self._limits = limits
        self._doubtful: set[str] = set()
        """Spool files that perhaps nobody needs any more."""

    # --- reading

    def body(self, inode: Inode) -> Body | None:
        """Return the inode's body if it can be had without waiting."""
        if inode.body is None:
            if inode.flags & DAMAGED:
                raise StateCorrupt(f"the newest version of inode {inode.ino} is damaged")
            if inode.content is not None:
                inode.body = self._from_row(inode)
            if inode.body is None:
                inode.body = self._sized(inode, self._from_git(inode.oid or EMPTY_BLOB, inode.size))
        return inode.body

    def _sized(self, inode: Inode, body: Body | None) -> Body | None:
        """Return git's content; one that was missing when its directory was read has another length than the kernel knows."""
        if body is not None and body.size != inode.size:
            inode.size = body.size
            self._journal.touch(inode)
            raise Corrupt(f"blob {inode.oid} was missing; the next mount shows it", backend="git")
        return body

    async def load(self, inode: Inode) -> Body:
        """Return the inode's body, waiting for a large blob if need be.

        Raises:
            StoreError: no store can give it now.
        """
        body = self.body(inode)
        if body is None:
            oid = inode.oid or EMPTY_BLOB
            await self._loader.load(oid)
            body = self.body(inode)
        if body is None:
            raise Absent(f"blob {oid} left the disk cache as soon as it was loaded")
        return body

    async def read(self, inode: Inode, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`."""
        while True:
            body = inode.body or await self.load(inode)
            try:
                return body.read(offset, length)
            except BaseMissing as exc:
                assert isinstance(body, SpoolBody)
                body.give_base(await self._base_to_read(exc.oid))

    async def _base_to_read(self, oid: ObjectId) -> bytes | SpoolFile:
        try:
            return await self.base_file(oid)
        except NotFound as exc:  # as in `_read_blob`
            raise Absent(f"blob {oid} is missing in git", backend="git", operation="read") from exc

    async def base_file(self, oid: ObjectId) -> bytes | SpoolFile:
        """Return a blob that spooled contents are laid over, in memory or as a file.

        Raises:
            NotFound: git does not have it.
            StoreError: no store can give it now.
        """
        size = self._objects.size(oid)
        base = self._from_git(oid, size)
        if base is None:
            await self._loader.load(oid)
            base = self._from_git(oid, size)
        if base is None:
            raise Absent(f"blob {oid} left the disk cache as soon as it was loaded")
        return bytes(base.content) if isinstance(base, SmallBody) else base.file

    def _from_git(self, oid: ObjectId, size: int) -> SmallBody | CachedBody | None:
        if oid == EMPTY_BLOB:
            return SmallBody(b"")
        if size > self._limits.small_object:
            file = self._spool.open_cached(oid, size)
            return CachedBody(file, size) if file is not None else None
        content = self._cache.get(oid)
        if content is None:
            content = self._read_blob(oid)
            self._cache.put(oid, content)
        return SmallBody(content)

    def _read_blob(self, oid: ObjectId) -> bytes:
        try:
            return self._objects.read_blob(oid)
        except NotFound as exc:
            # Not the caller's ENOENT: the document is there.
            raise Absent(f"blob {oid} is missing in git", backend="git", operation="read") from exc

    def _from_row(self, inode: Inode) -> SmallBody | SpoolBody | None:
        """Return a content as its row has it; None where it is settled, and git has it."""
        self._journal.commit()
        sql = "SELECT data, spool, extents FROM content WHERE id=?"
        rows = self._journal.db.rows(sql, inode.content)
        if not rows:
            if inode.row_open or inode.oid is None:
                raise StateCorrupt(f"the content of inode {inode.ino} is missing")
            inode.content = None
            return None
        data, spool, extents = rows[0]
        if data is not None:
            return SmallBody(data)
        return SpoolBody(self._spool.open(spool), Extents.from_bytes(extents))

    # --- writing

    async def writable(self, inode: Inode) -> SmallBody | SpoolBody:
        """Return a body that takes writes, with the inode's present content."""
        body = inode.body
        if isinstance(body, SmallBody) and body.size <= self._limits.inline_max:
            return body
        if isinstance(body, SpoolBody):
            return body
        if body is None and inode.content is None and inode.size > self._limits.inline_max:
            body = self._over_base(inode)  # nothing of the base is needed before it is read
        else:
            body = await self.load(inode)
            if isinstance(body, SmallBody) and inode.content is not None:
                # A row of a mount that kept more inline; `oid` may be an older version's.
                body = self._spill(inode, body) if body.size > self._limits.inline_max else body
            elif not isinstance(body, SpoolBody) and body.size > self._limits.inline_max:
                body = self._over_base(inode)
        inode.body = body
        assert isinstance(body, SmallBody | SpoolBody)
        return body

    def _over_base(self, inode: Inode) -> SpoolBody:
        assert inode.oid is not None
        extents = Extents(base=inode.oid, base_size=inode.size)
        body = SpoolBody(self._spool.create(), extents)
        old = inode.body
        if isinstance(old, SmallBody):
            body.give_base(bytes(old.content))
        elif isinstance(old, CachedBody):
            body.give_base(old.file)
        return body

    def write(self, inode: Inode, body: SmallBody | SpoolBody, offset: int, content: bytes) -> None:
        """Put `content` at `offset`; what is too large for a row moves to the spool."""
        end = offset + len(content)
        if isinstance(body, SmallBody) and end > self._limits.inline_max:
            body = self._spill(inode, body)
        body.write(content, offset)
        self._note_dirty(inode, body.size)

    def truncate(self, inode: Inode, body: SmallBody | SpoolBody, size: int) -> None:
        """Make the content `size` bytes long."""
        if isinstance(body, SmallBody) and size > self._limits.inline_max:
            body = self._spill(inode, body)
        body.truncate(size)
        self._note_dirty(inode, size)

    def replace_with_nothing(self, inode: Inode) -> None:
        """Make the content empty without looking at it (O_TRUNC)."""
        if inode.body is not None:
            inode.body.close()
        if isinstance(inode.body, SpoolBody):
            self._doubtful.add(inode.body.spool.name)
        elif inode.row_open and inode.content is not None:
            self._doubt(inode.content)
        inode.body = SmallBody(bytearray())
        self._note_dirty(inode, 0)

    def _note_dirty(self, inode: Inode, size: int) -> None:
        if not inode.dirty:
            inode.row_size = inode.size
            inode.dirty = True
        inode.size = size

    def _spill(self, inode: Inode, body: SmallBody) -> SpoolBody:
        spooled = SpoolBody(self._spool.create(), Extents())
        if body.size:
            spooled.write(bytes(body.content), 0)
        inode.body = spooled
        return spooled

    # --- the state DB

    def journal(self, inode: Inode) -> None:
        """Have a dirty inode's content written with the next commit."""
        if not inode.dirty:
            return
        body = inode.body
        if not inode.row_open:
            if inode.content is not None:
                self.drop_row(inode.content)
            inode.content = self._journal.new_content_id()
            inode.row_open = True
        if isinstance(body, SmallBody):
            data = bytes(body.content)
            self._journal.run_sql(_PUT_CONTENT, inode.content, body.size, None, None, data)
        else:
            assert isinstance(body, SpoolBody)
            where = (body.spool.name, body.extents.to_bytes())
            self._journal.run_sql(_PUT_CONTENT, inode.content, body.size, *where, None)
        inode.dirty = False
        inode.flags = inode.flags & ~DAMAGED | UNLOGGED
        self._journal.touch(inode)

    def small_content(self, inode: Inode) -> bytes | None:
        """Return a journaled content that is kept inline, None for a spooled one."""
        body = self.body(inode)
        return bytes(body.content) if isinstance(body, SmallBody) else None

    def hash_small(self, content: bytes) -> ObjectId:
        """Return the blob id of a small content and keep it for readers."""
        oid = blob_id(content)
        self._cache.put(oid, content)
        return oid

    def drop_content(self, inode: Inode) -> None:
        """Remove what the DB holds of an inode's content, as far as no op refers to it."""
        if inode.content is not None:
            self.drop_row(inode.content)
        inode.content = None
        inode.row_open = False

    def find_logged(self, oid: ObjectId) -> tuple[int | None, int]:
        """Return the content row (None: git has it) and the length of a blob that was logged."""
        sql = "SELECT id, content.size FROM op JOIN content ON id=content WHERE oid=? LIMIT 1"
        rows = self._journal.db.rows(sql, raw_id(oid))
        return rows[0] if rows else (None, self._objects.size(oid))

    def keep_logged(self, inode: Inode) -> None:
        """Drop a journaled content that is what the op log's end has: git or an op's row has it."""
        assert inode.oid is not None
        row = None
        try:
            self._objects.size(inode.oid)
        except NotFound:
            self._journal.commit()
            sql = (
                "SELECT content FROM op WHERE oid=? AND content NOT NULL ORDER BY seq DESC LIMIT 1"
            )
            rows = self._journal.db.rows(sql, raw_id(inode.oid))
            if not rows:
                return
            row = rows[0][0]
        self.drop_content(inode)
        inode.content = row

    def drop_row(self, content_id: int) -> None:
        """Remove a content row unless an op refers to it; `sweep` removes its spool file."""
        if self._journal.is_op_content(content_id):
            return
        self._doubt(content_id)
        self._journal.run_sql("DELETE FROM content WHERE id=?", content_id)
        self._journal.run_sql("DELETE FROM synced WHERE content=?", content_id)

    def _doubt(self, content_id: int) -> None:
        sql = "SELECT spool FROM content WHERE id=? AND spool NOT NULL"
        self._doubtful.update(name for (name,) in self._journal.db.rows(sql, content_id))

    def sweep(self, inodes: Iterable[Inode]) -> None:
        """Remove spool files that no row names any more and none of `inodes` has open."""
        if not self._doubtful:
            return
        self._journal.commit()
        in_use = {inode.body.spool.name for inode in inodes if isinstance(inode.body, SpoolBody)}
        sql = "SELECT 1 FROM content WHERE spool=? LIMIT 1"
        for name in self._doubtful - in_use:
            if not self._journal.db.rows(sql, name):
                self._spool.remove(name)
                self._doubtful.discard(name)

    async def sync(self, inode: Inode) -> None:
        """Return when the spool file of a journaled content is on the disk."""
        # sync(1) opens a file that was closed long ago: its row knows the spool file.
        body = inode.body if inode.content is None else self.body(inode)
        if isinstance(body, SpoolBody):
            # Others may write while this waits: what they add is not synced.
            row, extents = inode.content, body.extents.to_bytes()
            await self._spool.sync(body.spool)
            if row is not None:
                self._journal.run_sql("INSERT OR REPLACE INTO synced VALUES (?,?)", row, extents)

    def let_go(self, inode: Inode) -> None:
        """Drop a body that nobody uses; the row or git has what it had."""
        if inode.body is None or inode.dirty or inode.handles:
            return
        body = inode.body
        inode.body = None
        body.close()
        if isinstance(body, SpoolBody):
            self._drop_spool_if_unused(body.spool.name)

    def _drop_spool_if_unused(self, name: str) -> None:
        """Remove a spool file whose content rows were settled while it was open."""
        self._journal.commit()
        if not self._journal.db.rows("SELECT 1 FROM content WHERE spool=? LIMIT 1", name):
            self._spool.remove(name)
