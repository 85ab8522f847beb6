"""Content that came from outside: how the mount takes in what others wrote.

Called by app for each `Changes`, on the trio thread; awaits only between changes. With the
writeback cache the kernel trusts its own size and pages, so new content gets a new inode number
(under the old one readers saw truncated files and zeros); open handles keep the version that they
opened. A path that is being written is left alone: the remote change waits for the last writer, and
what he wrote is merged by the publisher.

A change applies where the path shows `before`. Where it does not, an op of ours follows that the
publisher merges, and what comes of that arrives as another change. Where no op follows, because what
has the name is never published (an empty directory, a FIFO), both stay: the document goes beside a
directory, which a move of ours tells the stores; what is in the way of a directory is renamed here.
"""

import itertools
import logging
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import trio

from caiafs.core.conflicts import conflict_name
from caiafs.core.errors import CaiaError, StateError, StateFull
from caiafs.core.types import (
    ROOT_INODE,
    Change,
    DocPath,
    Entry,
    GitMode,
    InodeNo,
    ObjectId,
    split_path,
)
from caiafs.state.journal import Journal
from caiafs.vfs.caller import this_process
from caiafs.vfs.inheritance import inherit
from caiafs.vfs.inode import EXPLICIT, LOADED, Inode
from caiafs.vfs.namespace import Namespace
from caiafs.vfs.publication import Publication
from caiafs.vfs.retarget import retarget
from caiafs.vfs.shown import differ_in_mode_only, same, shows
from caiafs.vfs.table import InodeTable

log = logging.getLogger(__name__)

_SLICE = 100
_SLICE_ROOM_BYTES = 2 * 1024 * 1024
"""What a slice of changes takes in the state DB's log at most."""
_RETRY_S = 1.0
_ASIDE_MAX = 240


class KernelNotifier(Protocol):
    """Tells the kernel; `app` supplies fuse.invalidate."""

    async def forget_name(
        self, directory: InodeNo, name: bytes, removed: InodeNo | None = None
    ) -> None:
        """Have the kernel look a name up again."""
        ...

    async def forget_attributes(self, ino: InodeNo) -> None:
        """Have the kernel ask for attributes again."""
        ...


class _Blocker(NamedTuple):
    """A document in the way of a directory, until its writers are gone."""

    ino: InodeNo


class Remote:
    """Takes others' changes in."""

    def __init__(
        self,
        journal: Journal,
        table: InodeTable,
        namespace: Namespace,
        publication: Publication,
        *,
        kernel: KernelNotifier,
    ) -> None:
        self._journal = journal
        self._table = table
        self._namespace = namespace
        self._publication = publication
        self._kernel = kernel
        self._notices: list[tuple[InodeNo, bytes, InodeNo | None]] = []
        self._waiting: dict[InodeNo, tuple[DocPath, Change]] = {}
        self._blocked: dict[InodeNo, list[Change]] = {}
        """Changes below a document that waits for its writers to become a directory."""
        self._released = trio.Event()
        self._last_seq: int | None = None
        self._later_paths: set[bytes] | None = None
        self.applied = 0

    async def apply(
        self,
        changes: Iterable[Change],
        trees: Mapping[DocPath, ObjectId],
        *,
        last_seq: int | None = None,
    ) -> None:
        """Take in `changes`, gone through twice; `trees` are the ids of directories that changed.

        `last_seq` is our newest op that they know of: what a later op has put is left alone, even
        where it looks the same again, for that op is merged.

        Without `trees` (they come with a commit's last message only) directories are loaded.

        Raises:
            StateFull, StateCorrupt: some are not taken in; all may be given once more.
        """
        self._last_seq = last_seq
        self._later_paths = None
        self._table.finish_imports()
        # Before the first await: a directory that is looked into meanwhile shows all of it.
        retarget(self._table, self._journal, trees)
        # A document may take the place of a directory, and the other way round.
        removals = (change for change in changes if change.after is None)
        others = (change for change in changes if change.after is not None)
        left = itertools.chain(removals, others)
        while piece := tuple(itertools.islice(left, _SLICE)):
            self._journal.db.require_room(_SLICE_ROOM_BYTES)
            self._table.finish_imports()
            for change in piece:
                self._take(change, trees)
            await self._tell_kernel()
        await self._tell_kernel()

    @property
    def is_waiting(self) -> bool:
        """Whether changes wait for writers; they are forgotten when the mount ends."""
        return bool(self._waiting or self._blocked)

    def released(self, inode: Inode) -> None:
        """Note that an inode's last writer has gone."""
        if inode.ino in self._waiting or inode.ino in self._blocked:
            self._released.set()

    async def run(self) -> None:
        """Apply what waited for writers, until cancelled."""
        while True:
            await self._released.wait()
            self._released = trio.Event()
            try:
                self._take_released()
                await self._tell_kernel()
            except StateFull as exc:
                log.warning("changes of others wait on: %s", exc)
                self._released.set()
                await trio.sleep(_RETRY_S)
            except StateError as exc:  # damage: the next mount is told of them again
                log.error("changes of others cannot be taken in: %s", exc)  # noqa: TRY400  # no bug

    def _take_released(self) -> None:
        """Apply what waits for no writer any more; raises as `apply`, and what is left waits on."""
        self._journal.db.require_room(_SLICE_ROOM_BYTES)
        self._table.finish_imports()
        self._later_paths = None
        for ino in tuple(self._waiting.keys() | self._blocked.keys()):
            inode = self._table.peek(ino)
            if inode is not None and inode.writers:
                continue
            path_and_change = self._waiting.pop(ino, None)
            blocked = self._blocked.pop(ino, [])
            try:
                if path_and_change is not None:
                    self._take(path_and_change[1], {})
                    path_and_change = None
                while blocked:
                    self._take(blocked[0], {})
                    del blocked[0]
            except StateError:
                if path_and_change is not None:
                    self._waiting[ino] = path_and_change
                if blocked:
                    self._blocked[ino] = blocked + self._blocked.get(ino, [])
                raise

    async def _tell_kernel(self) -> None:
        """Commit, then have the kernel look again."""
        self._journal.commit_if_possible()
        notices, self._notices = self._notices, []
        for directory in {directory for directory, _, _ in notices}:
            await self._kernel.forget_attributes(directory)
        for directory, name, removed in notices:
            await self._kernel.forget_name(directory, name, removed)
        await trio.lowlevel.checkpoint()

    # --- one change

    def _take(self, change: Change, trees: Mapping[DocPath, ObjectId]) -> None:
        """Apply one change; one that makes no sense costs itself only."""
        try:
            self._apply(change, trees)
        except StateError:
            raise  # the change makes sense, and comes again
        except CaiaError as exc:
            log.warning("a change from outside was left out: %s", exc)

    def _apply(self, change: Change, trees: Mapping[DocPath, ObjectId]) -> None:
        *above, name = change.path.split(b"/")
        is_new = change.before is None and change.after is not None
        directory = self._walk(above, trees, make=is_new, keep=change.after is not None)
        if isinstance(directory, _Blocker):
            self._blocked.setdefault(directory.ino, []).append(change)
            return
        if directory is None:
            return
        inode = self._table.find(directory, name)
        if is_new and inode is not None and not inode.is_publishable:
            self._put_beside(directory, change)
            return
        if inode is not None and self._waits(inode, change):
            return
        if not shows(inode, change.before) or self._has_later_op(change.path, inode):
            return
        if inode is not None and inode.writers:
            self._waiting[inode.ino] = (change.path, change)
            return
        self.applied += 1
        if change.after is None:
            assert inode is not None, "it shows what was there before"
            self._remove(directory, name, inode)
        elif inode is not None and differ_in_mode_only(inode, change.after):
            self._set_executable(inode, change.after.mode)
        else:
            self._replace(directory, name, inode, change.after)

    def _has_later_op(self, path: DocPath, inode: Inode | None) -> bool:
        """Whether we did something there that the change does not know of: it is told again when that is replayed."""
        if self._last_seq is None:
            return False
        if inode is not None:
            return self._journal.newest_op(inode.ino) > self._last_seq
        if self._later_paths is None:
            self._journal.commit()
            rows = self._journal.db.rows("SELECT path, target FROM op WHERE seq>?", self._last_seq)
            self._later_paths = {name for row in rows for name in row if name is not None}
        return path in self._later_paths

    def _waits(self, inode: Inode, change: Change) -> bool:
        """Whether a change before this one waits for the inode's writers; then both are one."""
        path, earlier = self._waiting.get(inode.ino, (None, change))
        if path != change.path:
            return False
        if same(earlier.after, change.before):
            self._waiting[inode.ino] = (path, Change(path, earlier.before, change.after))
            if same(earlier.before, change.after):
                del self._waiting[inode.ino]
        return True

    def _walk(
        self,
        names: Sequence[bytes],
        trees: Mapping[DocPath, ObjectId],
        *,
        make: bool,
        keep: bool,
    ) -> "Inode | _Blocker | None":
        """Return the directory of a change, None where its tree id or its absence says all.

        Or the document that is to be a directory as soon as its writers are gone.

        `make` makes what is missing above the document, `keep` says that the document is there
        afterwards, and so are the directories.
        """
        directory = self._table.get(ROOT_INODE)
        for depth, name in enumerate(names):
            if not trees:
                self._table.children(directory)
            if not directory.flags & LOADED:
                return None
            path = DocPath(b"/".join(names[: depth + 1]))
            below = self._table.find(directory, name)
            if below is not None and make and not (below.is_directory or below.is_publishable):
                self._move_aside(directory, name, below)
                below = None
            if below is None:
                if not make:
                    return None
                tree = None if self._moved_away(path) else trees.get(path)
                below = self._make_directory(directory, name, tree)
            if not below.is_directory:
                return _Blocker(below.ino) if below.writers else None
            if not below.flags & LOADED and not keep and trees and path not in trees:
                self._empty(directory, name, below)
                return None
            directory = below
        if not trees:
            self._table.children(directory)
        return directory if directory.flags & LOADED else None

    def _put_beside(self, directory: Inode, change: Change) -> None:
        """Show a document beside what has its name here and is never published; the stores follow."""
        assert change.after is not None, "it is new"
        path = conflict_name(change.path, self._table.import_time_ns, change.after.oid)
        name = split_path(path)[1]
        if self._table.find(directory, name) is not None:
            return
        after = change.after
        new = self._table.imported(after.mode, after.oid, like=directory, size=after.size_bytes)
        self._table.link(directory, name, new)
        self._publication.renamed(new, change.path, path, None, this_process())
        self._changed(directory, name)
        self.applied += 1

    def _move_aside(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Rename a FIFO, socket or device that is in the way of somebody's directory."""
        taken = self._table.children(directory)
        names = (name[:_ASIDE_MAX] + b".local-%d" % number for number in itertools.count(1))
        free = next(new for new in names if new not in taken)
        self._table.unlink(directory, name, inode)
        self._table.link(directory, free, inode)
        self._changed(directory, name)
        self._changed(directory, free)

    def _empty(self, parent: Inode, name: bytes, directory: Inode) -> None:
        """Take a directory away that is not loaded and has no document left, unless somebody made it."""
        if not directory.flags & EXPLICIT:
            self._remove(parent, name, directory)
        elif directory.oid is not None:
            directory.oid = None
            self._journal.touch(directory)

    def _moved_away(self, path: DocPath) -> bool:
        """Whether we took a directory, or one above it, away that the stores still have: what was in it is not new."""
        self._journal.commit()
        names = path.split(b"/")
        above = (b"/".join(names[:depth]) for depth in range(1, len(names) + 1))
        sql = "SELECT 1 FROM op WHERE path=? LIMIT 1"
        return any(self._journal.db.rows(sql, known) for known in above)

    def _make_directory(self, parent: Inode, name: bytes, tree: ObjectId | None) -> Inode:
        """Make a directory that somebody else made; its documents follow, or are in `tree`."""
        if tree is not None:
            directory = self._table.imported(GitMode.DIRECTORY, tree, like=parent)
        else:
            directory = self._table.new(stat.S_IFDIR | 0o755, parent.uid, parent.gid)
        self._table.link(parent, name, directory)
        parent.nlink += 1
        self._changed(parent, name)
        return directory

    def _changed(self, directory: Inode, name: bytes, old: Inode | None = None) -> None:
        """Note that `name`, which `old` had, is to be looked up again; who watches `old` hears of its end."""
        removed = old.ino if old is not None and not self._table.names(old) else None
        directory.mtime_ns = directory.ctime_ns = self._table.import_time_ns
        self._journal.touch(directory)
        self._notices.append((directory.ino, name, removed))

    def _remove(self, directory: Inode, name: bytes, inode: Inode) -> None:
        """Take a name away, and directories that nobody made when they are empty."""
        while True:
            self._table.unlink(directory, name, inode)
            if inode.is_directory:
                directory.nlink -= 1
                self._table.make_empty(inode)
            self._changed(directory, name, inode)
            self._namespace.lost_name(inode)
            names = self._table.names(directory)
            if self._table.children(directory) or directory.flags & EXPLICIT or not names:
                return
            inode, (parent, name) = directory, names[0]
            directory = self._table.get(parent)

    def _set_executable(self, inode: Inode, mode: int) -> None:
        bits = (inode.mode & 0o444) >> 2
        inode.mode = inode.mode | bits if mode & 0o100 else inode.mode & ~0o111
        self._journal.touch(inode)
        self._notices.extend((parent, name, None) for parent, name in self._table.names(inode))

    def _replace(self, directory: Inode, name: bytes, old: Inode | None, after: Entry) -> None:
        """Give a name a new inode with somebody else's content."""
        like = old if old is not None else directory
        new = self._table.imported(after.mode, after.oid, like=like, size=after.size_bytes)
        if old is not None:
            inherit(self._journal, new, old)
            self._table.unlink(directory, name, old)
        self._table.link(directory, name, new)
        self._changed(directory, name, old)
        if old is not None:
            self._namespace.lost_name(old)
