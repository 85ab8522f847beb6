"""Blob ids of large contents, computed in a thread after the version was logged.

`Hasher.run` is one task of the mount process; the rest is called on the trio thread. Versions are
hashed in the order in which they were logged; the publisher does not pass one that waits.
"""

import hashlib
import logging
import os
from collections.abc import Callable

import trio

from caiafs.core.errors import Absent, CaiaError, NotFound, StateCorrupt
from caiafs.core.types import InodeNo, ObjectId
from caiafs.state.extents import Extents
from caiafs.state.journal import Journal, raw_id
from caiafs.state.spool import Spool, SpoolFile
from caiafs.vfs.contents import Contents
from caiafs.vfs.inode import Inode
from caiafs.vfs.table import InodeTable

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1024 * 1024
_RETRY_S = 2.0


class Hasher:
    """Gives logged versions their blob ids."""

    def __init__(
        self,
        journal: Journal,
        table: InodeTable,
        contents: Contents,
        spool: Spool,
        *,
        set_aside: Callable[[int, str], None],
    ) -> None:
        """`set_aside` is told the row of a content that can't be read, and why (`vfs.damage`)."""
        self._journal = journal
        self._set_aside = set_aside
        self._table = table
        self._contents = contents
        self._spool = spool
        self._waiting: list[tuple[InodeNo, int]] = []
        self._wake = trio.Event()
        self._added = 0
        self._went_on = trio.Event()

    def add(self, inode: Inode, content_id: int) -> None:
        """Hash a content row soon."""
        self._add(inode.ino, content_id)

    def _add(self, ino: InodeNo, content_id: int) -> None:
        self._waiting.append((ino, content_id))
        self._added += 1
        self._wake.set()

    def resume(self) -> None:
        """Take up what the last mount left; before recovery, which asks what the log's end has."""
        rows = self._journal.db.rows
        newest = {  # of each inode: only this one says what the log's end has
            ino: content_id
            for ino, oid, content_id, _ in rows(
                "SELECT ino, oid, content, max(seq) FROM op WHERE kind='put' GROUP BY ino"
            )
            if oid is None
        }
        sql = "SELECT ino, content FROM op WHERE kind='put' AND oid IS NULL ORDER BY seq"
        for ino, content_id in dict.fromkeys(rows(sql)):
            inode = self._find(ino)
            if inode is not None and newest.get(ino) == content_id:
                inode.unhashed = content_id
            self._add(ino, content_id)

    def _find(self, ino: InodeNo) -> Inode | None:
        """Return an inode unless it was removed meanwhile; its versions are published all the same."""
        try:
            inode = self._table.get(ino)
        except NotFound:
            return None
        return inode if inode.nlink or inode.handles else None

    async def wait_idle(self) -> None:
        """Return when everything that was added so far is hashed; what comes meanwhile has no part in it."""
        await trio.lowlevel.checkpoint()
        last = self._added
        while self._added - len(self._waiting) < last:
            await self._went_on.wait()

    async def run(self) -> None:
        """Hash what is added, until cancelled."""
        limiter = trio.CapacityLimiter(1)
        while True:
            if not self._waiting:
                await self._wake.wait()
            self._wake = trio.Event()
            if not self._waiting:
                continue
            ino, content_id = self._waiting[0]
            try:
                await self._take(ino, content_id, limiter)
            except CaiaError as exc:
                log.warning("inode %d cannot be published yet: %s", ino, exc)
                await trio.sleep(_RETRY_S)  # a store that comes back tells nobody here
                continue
            self._waiting.pop(0)
            self._went_on.set()
            self._went_on = trio.Event()

    async def _take(self, ino: InodeNo, content_id: int, limiter: trio.CapacityLimiter) -> None:
        """Hash one content; one that can't be read is set aside, and the next has its turn."""
        try:
            oid = await self._hash(content_id, limiter)
        except (StateCorrupt, NotFound) as exc:
            if self._journal.db.damage:
                raise  # of the DB: nothing can be said of this content
            self._set_aside(content_id, str(exc))
            self._journal.on_logged(self._journal.last_seq)
            return
        if oid is not None:
            self._note(ino, content_id, oid)

    async def _hash(self, content_id: int, limiter: trio.CapacityLimiter) -> ObjectId | None:
        """Return a content's id, None where its row is gone."""
        self._journal.commit()
        sql = "SELECT spool, extents FROM content WHERE id=?"
        rows = self._journal.db.rows(sql, content_id)
        if not rows:
            return None
        name, packed = rows[0]
        extents = Extents.from_bytes(packed)
        base = await self._contents.base_file(extents.base) if extents.base else None
        file = self._spool.open(name)  # closed with its last reference, which the thread may have
        return await trio.to_thread.run_sync(
            _hash, file, base, extents, limiter=limiter, abandon_on_cancel=True
        )

    def _note(self, ino: InodeNo, content_id: int, oid: ObjectId) -> None:
        """Fill the id in wherever it was left open, and let the publisher go on."""
        journal = self._journal
        raw = raw_id(oid)
        journal.run_sql("UPDATE op SET oid=? WHERE content=? AND oid IS NULL", raw, content_id)
        journal.run_sql(
            "UPDATE op SET replaced=?, replaced_content=NULL WHERE replaced_content=?",
            raw,
            content_id,
        )
        journal.run_sql("UPDATE replaced SET oid=?, content=NULL WHERE content=?", raw, content_id)
        for other in self._table.in_memory():
            if other.replaced_row == content_id:
                other.replaced, other.replaced_row = oid, None
        inode = self._find(ino)
        if inode is not None and inode.unhashed == content_id:
            inode.unhashed = None
            inode.oid = oid
            journal.touch(inode)
        journal.commit()
        journal.on_logged(journal.last_seq)
        gone = self._table.peek(ino) if inode is None else inode
        if gone is not None:
            gone.unhashed = None if gone.unhashed == content_id else gone.unhashed
            self._contents.let_go(gone)
            self._table.release(gone)


def _hash(file: SpoolFile, base: SpoolFile | bytes | None, extents: Extents) -> ObjectId:
    """Return the blob id of a spooled content. Runs in a thread; hashlib drops the GIL."""
    digest = hashlib.sha1(b"blob %d\0" % extents.size)
    for source in extents.plan_read(0, extents.size):
        for start in range(source.start, source.stop, _BLOCK_BYTES):
            length = min(_BLOCK_BYTES, source.stop - start)
            offset = source.offset + start - source.start
            if source.origin == "zero":
                digest.update(bytes(length))
            elif isinstance(base, bytes) and source.origin == "base":
                digest.update(base[offset : offset + length])
            else:
                from_file = file if source.origin == "spool" else base
                assert isinstance(from_file, SpoolFile)
                try:
                    digest.update(_read_all(from_file, offset, length))
                except StateCorrupt as exc:
                    if from_file is file:
                        raise
                    raise Absent(f"a cached blob is damaged: {exc}") from exc
    return ObjectId(digest.hexdigest())


def _read_all(file: SpoolFile, offset: int, length: int) -> bytes:
    try:
        block = os.pread(file.fd, length, offset)
    except OSError as exc:
        raise StateCorrupt(f"spool file {file.name} cannot be read: {exc.strerror}") from exc
    if len(block) != length:
        # An id of fewer bytes would be a version that nobody wrote.
        raise StateCorrupt(f"spool file {file.name} ends at {offset + len(block)} bytes")
    return block
