"""Open files: read, write, flush, fsync, release.

Used by fuse.operations, on the trio thread. Written bytes belong to the inode, not to the handle: a
flush, fsync or release of any handle journals them (a child that inherited a descriptor flushes
half-written data, and stores through a mapping arrive after close).

flush makes a content durable against `kill -9`; it is no save, for every shell's `>` flushes the
empty file first. A version is due when the last writing handle is released, at fsync, or after
`commit_max_age` while it stays open.
"""

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import trio

from caiafs.core.config import CommitPolicy
from caiafs.core.errors import CaiaError, FileTooLarge, IsADirectory, NotFound, StateFull
from caiafs.core.types import HandleId, InodeNo
from caiafs.state.database import WANTED_ROOM_BYTES, StateDatabase
from caiafs.state.journal import Journal
from caiafs.vfs.body import SmallBody, SpoolBody
from caiafs.vfs.caller import Caller
from caiafs.vfs.contents import Contents
from caiafs.vfs.inode import UNLOGGED, Inode
from caiafs.vfs.namespace import Namespace
from caiafs.vfs.publication import Publication
from caiafs.vfs.table import InodeTable

log = logging.getLogger(__name__)

RELEASE_DELAY_S = 0.005
"""A released version reaches the op log this soon, or with the next commit, which is cheaper."""

_SPACE_CHECK_S = 0.1
DELAY_MAX_S = 1.0


class StoredWaiter(Protocol):
    """Waits for the stores; `app` supplies the link (commit=close)."""

    async def wait_stored(self) -> None:
        """Return when every op logged so far is stored."""
        ...


@dataclass(slots=True)
class Handle:
    """One open(): the inode, and whether it may write."""

    inode: Inode
    writes: bool


@dataclass(frozen=True, slots=True)
class FilePolicy:
    """When versions become due, and what bounds a file.

    Attributes:
        commit: see CommitPolicy.
        max_age_s: a file that stays open is due this long after its oldest unlogged byte.
        max_file_bytes: size that no file may exceed (EFBIG).
        reserve_bytes: space below which no file opens for writing (ENOSPC).
        pending_max_bytes: waiting for a store; above it closing a file that was written takes longer.
    """

    commit: CommitPolicy
    max_age_s: float
    max_file_bytes: int
    reserve_bytes: int
    pending_max_bytes: int = 1 << 62


def plan_delay_s(policy: FilePolicy, waiting_bytes: int, free_bytes: int) -> float:
    """Return how long a close is held up, so that the stores or whoever makes room can follow.

    Grows from nothing at a limit to DELAY_MAX_S at twice `pending_max_bytes`, or at the reserve from twice that.
    """
    over = (waiting_bytes - policy.pending_max_bytes) / max(policy.pending_max_bytes, 1)
    reserve = policy.reserve_bytes
    short = (2 * reserve - free_bytes) / reserve if reserve else 0.0
    return DELAY_MAX_S * min(1.0, max(0.0, over, short))


class Files:
    """Operations on open files."""

    def __init__(
        self,
        journal: Journal,
        table: InodeTable,
        contents: Contents,
        publication: Publication,
        namespace: Namespace,
        *,
        policy: FilePolicy,
        stored: StoredWaiter,
    ) -> None:
        self._db: StateDatabase = journal.db
        self._journal = journal
        self._table = table
        self._contents = contents
        self._publication = publication
        self._namespace = namespace
        self._policy = policy
        self._stored = stored
        self._handles: dict[HandleId, Handle] = {}
        self._next_handle = 1
        self._aging: dict[InodeNo, float] = {}
        self._space_checked_s = -1.0
        self._free_bytes = 0
        self.on_released: Callable[[Inode], None] = lambda _inode: None
        """Told when an inode's last writing handle is gone."""

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def dirty_bytes(self) -> int:
        """Bytes of contents that are newer than the state DB."""
        dirty = {id(h.inode): h.inode.size for h in self._handles.values() if h.inode.dirty}
        return sum(dirty.values())

    # --- open and release

    def open(self, ino: InodeNo, flags: int, caller: Caller) -> HandleId:
        """Open a file.

        Raises:
            StateFull: opened for writing, and the state directory's disk is nearly full.
        """
        inode = self._table.get(ino)
        if inode.is_directory:
            raise IsADirectory("it is a directory")
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes:
            self.check_space()
            self._db.require_room(WANTED_ROOM_BYTES)
            if flags & os.O_TRUNC and (inode.size or inode.dirty):
                self._contents.replace_with_nothing(inode)
                inode.mtime_ns = inode.ctime_ns = time.time_ns()
        return self.attach(inode, caller, writes=writes)

    def attach(self, inode: Inode, caller: Caller, *, writes: bool) -> HandleId:
        """Give an inode a handle."""
        inode.handles += 1
        if writes:
            inode.writers += 1
            inode.author = (caller.uid, caller.program())
        handle = HandleId(self._next_handle)
        self._next_handle += 1
        self._handles[handle] = Handle(inode, writes)
        return handle

    def check_space(self) -> None:
        """Refuse to begin what may not fit.

        Raises:
            StateFull: less than the reserve is free.
        """
        if self._find_free_bytes() <= self._policy.reserve_bytes:
            raise StateFull("the disk of the state directory is nearly full")

    def _find_free_bytes(self) -> int:
        now_s = time.monotonic()
        if now_s - self._space_checked_s > _SPACE_CHECK_S:
            self._free_bytes = self._db.disk_free_bytes
            self._space_checked_s = now_s
        return self._free_bytes

    @property
    def delay_s(self) -> float:
        """How long a close is held up now."""
        return plan_delay_s(self._policy, self._journal.waiting_bytes, self._find_free_bytes())

    def release(self, handle: HandleId) -> None:
        """Give a handle back; the last writer's makes the content a version."""
        opened = self._handles.pop(handle)
        inode = opened.inode
        inode.handles -= 1
        inode.writers -= opened.writes
        if not inode.nlink:
            if opened.writes and not inode.writers:
                self.on_released(inode)
            if not inode.handles:
                self._namespace.end(inode)
                self._journal.commit_within(RELEASE_DELAY_S)
            return
        try:
            if opened.writes and not inode.writers:
                self._save(inode)
        finally:
            if opened.writes and not inode.writers:
                self.on_released(inode)
            if not inode.handles:
                self._contents.let_go(inode)
                self._table.release(inode)

    def _save(self, inode: Inode) -> None:
        """The last writer has gone: what it left is a version, by the policy."""
        self._contents.journal(inode)
        if not inode.flags & UNLOGGED:
            self._aging.pop(inode.ino, None)
            return
        if self._policy.commit is CommitPolicy.FSYNC:
            self._aging.setdefault(inode.ino, trio.current_time())
        else:
            # Where it fails `run` tries again: nobody else would before the next mount.
            self._aging[inode.ino] = -math.inf
            self._publication.due(inode)
            del self._aging[inode.ino]
        self._journal.commit_within(RELEASE_DELAY_S)

    # --- contents

    def inode_of(self, handle: HandleId) -> Inode:
        """Return the inode behind a handle."""
        return self._handles[handle].inode

    async def read(self, handle: HandleId, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at absolute `offset`; fewer only at the end."""
        inode = self._handles[handle].inode
        body = inode.body
        if isinstance(body, SmallBody):
            return body.read(offset, length)
        return await self._contents.read(inode, offset, length)

    async def write(self, handle: HandleId, offset: int, content: bytes) -> int:
        """Write all of `content` at absolute `offset`; return its length.

        Raises:
            FileTooLarge: the file would exceed the bound.
            StateFull: no space; nothing was written.
        """
        if offset + len(content) > self._policy.max_file_bytes:
            raise FileTooLarge(f"at most {self._policy.max_file_bytes} bytes")
        inode = self._handles[handle].inode
        body = inode.body
        if not isinstance(body, SpoolBody):
            body = await self._contents.writable(inode)
        self._contents.write(inode, body, offset, content)
        inode.mtime_ns = inode.ctime_ns = time.time_ns()
        return len(content)

    async def flush(self, handle: HandleId) -> None:
        """A descriptor was closed: what was written survives `kill -9` from here on."""
        opened = self._handles[handle]
        inode = opened.inode
        if not inode.nlink:
            return
        # An empty file may be a shell's `>` before the writing: its release publishes it.
        is_to_be_stored = self._policy.commit is CommitPolicy.CLOSE and opened.writes and inode.size
        if inode.dirty:
            self._db.require_room(WANTED_ROOM_BYTES)
            self._contents.journal(inode)
            self._journal.commit()
            self._aging.setdefault(inode.ino, trio.current_time())
        elif not (is_to_be_stored and self._waits_for_a_store(inode)):
            return
        if is_to_be_stored:
            self._publication.due(inode)
            self._journal.commit()
            await self._stored.wait_stored()
        # Here and not at open: a directory that the kernel holds would make others wait, too.
        delay_s = self.delay_s
        if delay_s:
            await trio.sleep(delay_s)

    def _waits_for_a_store(self, inode: Inode) -> bool:
        """Whether a version that fsync or another descriptor's close made durable is stored nowhere yet."""
        return bool(inode.flags & UNLOGGED or self._journal.newest_op(inode.ino))

    async def fsync(self, handle: HandleId) -> None:
        """Return when what was written is on the local disk; it is a version then."""
        inode = self._handles[handle].inode
        self._db.require_room(WANTED_ROOM_BYTES)
        self._contents.journal(inode)
        await self._contents.sync(inode)
        if inode.nlink and self._policy.commit is not CommitPolicy.INTERVAL:
            self._publication.due(inode)
        self._journal.commit()
        await self._db.sync()

    async def fsyncdir(self) -> None:
        """Return when all names are on the local disk."""
        self._journal.commit()
        await self._db.sync()

    # --- age

    def settle_everything(self, *, unflushed: bool) -> None:
        """Make a version of everything that has unlogged bytes, open or not.

        `unflushed` takes in what an open handle has written since its last flush (unmount); a file
        that was truncated and not written yet keeps its old content.
        """
        if unflushed:
            for inode in self._being_written():
                self._aging.setdefault(inode.ino, -math.inf)
        for ino in tuple(self._aging):
            aging = self._inode(ino)
            if aging is not None and (unflushed or not aging.dirty):
                self._make_version(aging)
        self._journal.commit_everything()

    def _being_written(self) -> list[Inode]:
        """Return inodes that open handles have written to since the last flush."""
        opened = {handle.inode.ino: handle.inode for handle in self._handles.values()}
        return [inode for inode in opened.values() if inode.dirty and inode.size and inode.nlink]

    def _inode(self, ino: InodeNo) -> Inode | None:
        """Return an inode that waits for its age; the kernel may have forgotten it meanwhile."""
        try:
            return self._table.get(ino)
        except NotFound:
            return None

    def _make_version(self, inode: Inode) -> None:
        """Log what an inode has as a version; one that a full disk refuses goes on waiting for its age."""
        try:
            if inode.nlink:
                self._contents.journal(inode)
                self._publication.due(inode)
                self._contents.let_go(inode)
        except StateFull:
            raise
        except CaiaError:
            self._aging.pop(inode.ino, None)
            raise
        self._aging.pop(inode.ino, None)

    async def run(self) -> None:
        """Make versions of files that stay open for long, until cancelled."""
        interval_s = min(1.0, self._policy.max_age_s / 4)
        while True:
            await trio.sleep(interval_s)
            now_s = trio.current_time()
            for inode in self._being_written():
                self._aging.setdefault(inode.ino, now_s)
            for ino, since_s in tuple(self._aging.items()):
                with _logged_refusal():
                    self._age(ino, since_s, now_s)
            with _logged_refusal():
                self._journal.commit()
                self._contents.sweep(self._table.in_memory())
                self._table.trim()

    def _age(self, ino: InodeNo, since_s: float, now_s: float) -> None:
        inode = self._inode(ino)
        if inode is None or not (inode.dirty or inode.flags & UNLOGGED):
            del self._aging[ino]
        elif now_s - since_s >= self._policy.max_age_s:
            self._make_version(inode)


@contextlib.contextmanager
def _logged_refusal() -> Iterator[None]:
    """Log what the state DB refuses: it is tried again in a second."""
    try:
        yield
    except CaiaError as exc:
        log.warning("open files wait for the state database: %s", exc)
