"""Names: lookup, create, link, remove, rename.

Used by fuse.operations. Synchronous on purpose: nothing here awaits, so a change is atomic between
two checkpoints. What returns without an error survives `kill -9`, except a file that was created
and not flushed.
"""

import stat
import time

from caiafs.core.errors import (
    Busy,
    Exists,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    ReadOnly,
)
from caiafs.core.types import InodeNo
from caiafs.state.journal import BACKGROUND_DELAY_S, Journal
from caiafs.vfs.body import SmallBody
from caiafs.vfs.caller import Caller
from caiafs.vfs.contents import Contents
from caiafs.vfs.inode import EXPLICIT, SUBMODULE, Inode
from caiafs.vfs.publication import Publication
from caiafs.vfs.table import InodeTable

NAME_MAX = 255
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class Namespace:
    """Operations on names."""

    def __init__(
        self, journal: Journal, table: InodeTable, contents: Contents, publication: Publication
    ) -> None:
        self._journal = journal
        self._table = table
        self._contents = contents
        self._publication = publication

    def lookup(self, parent: InodeNo, name: bytes) -> Inode | None:
        """Return what a name means, None where it means nothing."""
        directory = self._table.get(parent)
        if name == b".":
            return directory
        if name == b"..":
            return self._table.parent(directory)
        if len(name) > NAME_MAX:
            raise NameTooLong(f"a name of {len(name)} bytes")
        return self._table.find(directory, name)

    def _room_for(self, parent: InodeNo, name: bytes) -> Inode:
        """Return the directory that a new name goes into."""
        directory = self._table.get(parent)
        if len(name) > NAME_MAX:
            raise NameTooLong(f"a name of {len(name)} bytes")
        _refuse_submodule(directory)
        if name in self._table.children(directory):
            raise Exists("the name is taken")
        if not directory.nlink:
            raise NotFound("the directory was removed")
        return directory

    def _present(self, parent: InodeNo, name: bytes) -> tuple[Inode, Inode]:
        """Return a directory and what `name` means in it."""
        directory = self._table.get(parent)
        inode = self._table.find(directory, name)
        if inode is None:
            raise NotFound("no such name")
        return directory, inode

    def _changed(self, *directories: Inode) -> int:
        """Note a change of the directories' names; return the time."""
        now_ns = time.time_ns()
        for directory in directories:
            directory.mtime_ns = directory.ctime_ns = now_ns
            self._journal.touch_times(directory)
        return now_ns

    def make(self, parent: InodeNo, name: bytes, mode: int, caller: Caller, rdev: int = 0) -> Inode:
        """Make a file, directory or special file; the caller commits.

        A directory with the set-group-ID bit gives its group, and to directories the bit.
        """
        directory = self._room_for(parent, name)
        gid = caller.gid
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        inode = self._table.new(mode, caller.uid, gid)
        inode.rdev = rdev
        self._table.link(directory, name, inode)
        if inode.is_directory:
            directory.nlink += 1
            self._journal.touch(directory)
            inode.flags |= EXPLICIT
        self._changed(directory)
        return inode

    def create(self, parent: InodeNo, name: bytes, mode: int, caller: Caller) -> Inode:
        """Make a regular file that is open at once; its first flush makes it durable."""
        inode = self.make(parent, name, stat.S_IFREG | stat.S_IMODE(mode), caller)
        inode.body = SmallBody(bytearray())
        inode.dirty = True
        self._journal.commit_within(BACKGROUND_DELAY_S)
        return inode

    def mknod(self, parent: InodeNo, name: bytes, mode: int, rdev: int, caller: Caller) -> Inode:
        """Make a file of any kind without opening it."""
        inode = self.make(parent, name, mode, caller, rdev)
        if inode.is_file:
            inode.author = (caller.uid, caller.program())
            inode.body = SmallBody(bytearray())
            inode.dirty = True
            self._contents.journal(inode)
            self._publication.due(inode)
            self._contents.let_go(inode)
        self._journal.commit()
        return inode

    def mkdir(self, parent: InodeNo, name: bytes, mode: int, caller: Caller) -> Inode:
        """Make a directory."""
        inode = self.make(parent, name, stat.S_IFDIR | stat.S_IMODE(mode), caller)
        self._journal.commit()
        return inode

    def symlink(self, parent: InodeNo, name: bytes, target: bytes, caller: Caller) -> Inode:
        """Make a symbolic link."""
        inode = self.make(parent, name, stat.S_IFLNK | 0o777, caller)
        inode.author = (caller.uid, caller.program())
        inode.body = SmallBody(target)
        inode.size = len(target)
        inode.dirty = True
        self._contents.journal(inode)
        self._publication.due(inode)
        self._contents.let_go(inode)
        self._journal.commit()
        return inode

    async def readlink(self, ino: InodeNo) -> bytes:
        """Return where a symbolic link points."""
        inode = self._table.get(ino)
        target = await self._contents.read(inode, 0, inode.size)
        self._contents.let_go(inode)
        return target

    def link(self, ino: InodeNo, parent: InodeNo, name: bytes) -> Inode:
        """Give a file another name."""
        inode = self._table.get(ino)
        if inode.is_directory:
            raise NotPermitted("a directory has one name")
        if not inode.nlink:
            raise NotFound("the file was removed")
        directory = self._room_for(parent, name)
        self._table.link(directory, name, inode)
        inode.nlink += 1
        inode.ctime_ns = self._changed(directory)
        self._journal.touch(inode)
        self._publication.linked(inode, self._table.path(directory, name))
        self._journal.commit()
        return inode

    def unlink(self, parent: InodeNo, name: bytes, caller: Caller) -> None:
        """Remove a name that is not a directory's; open handles keep the content."""
        directory, inode = self._present(parent, name)
        if inode.is_directory:
            raise IsADirectory("it is a directory")
        path = self._table.path(directory, name)
        self._table.unlink(directory, name, inode)
        inode.ctime_ns = self._changed(directory)
        self._publication.unlinked(inode, path, caller)
        self.lost_name(inode)
        self._journal.commit()

    def rmdir(self, parent: InodeNo, name: bytes) -> None:
        """Remove an empty directory."""
        directory, inode = self._present(parent, name)
        if not inode.is_directory:
            raise NotADirectory("it is not a directory")
        if self._table.children(inode):
            raise NotEmpty("the directory has entries")
        _keep_submodule(inode)
        self._table.unlink(directory, name, inode)
        directory.nlink -= 1
        self._journal.touch(directory)
        self._changed(directory)
        self.lost_name(inode)
        self._journal.commit()

    def lost_name(self, inode: Inode) -> None:
        """Note that an inode has a name less; the last one ends it unless it is open."""
        inode.nlink = 0 if inode.is_directory else inode.nlink - 1
        self._journal.touch(inode)
        if not inode.nlink and not inode.handles:
            self.end(inode)

    def end(self, inode: Inode) -> None:
        """Remove an inode that has neither names nor handles."""
        inode.dirty = False
        self._contents.drop_content(inode)
        self._contents.let_go(inode)
        self._table.drop(inode)

    def rename(
        self,
        source: tuple[InodeNo, bytes],
        target: tuple[InodeNo, bytes],
        flags: int,
        caller: Caller,
    ) -> None:
        """Move a name, atomically replacing what is at the target."""
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise InvalidArgument(f"rename flags {flags:#x}")
        if len(target[1]) > NAME_MAX:
            raise NameTooLong(f"a name of {len(target[1])} bytes")
        old_directory, inode = self._present(*source)
        new_directory = self._table.get(target[0])
        if not new_directory.nlink:  # somebody else's doing: the kernel does not know
            raise NotFound("the directory was removed")
        _refuse_submodule(new_directory)
        there = self._table.find(new_directory, target[1])
        _keep_submodule(inode, there)
        if flags & RENAME_EXCHANGE:
            if there is None:
                raise NotFound("nothing to exchange with")
            paths = (
                self._table.path(old_directory, source[1]),
                self._table.path(new_directory, target[1]),
            )
            if there is inode:
                return
            self._check_exchange(((inode, new_directory), (there, old_directory)))
            self._exchange((old_directory, source[1], inode), (new_directory, target[1], there))
            self._publication.exchanged(inode, there, paths, caller)
            self._journal.commit()
            return
        if there is not None and flags & RENAME_NOREPLACE:
            raise Exists("the target name is taken")
        if there is inode:
            return
        self._check_replaceable(inode, there)
        if inode.is_directory and self._table.is_below(new_directory, inode):
            raise InvalidArgument("a directory cannot move into itself")
        self._move((old_directory, source[1]), (new_directory, target[1]), inode, there, caller)
        self._journal.commit()

    def _check_exchange(self, moves: tuple[tuple[Inode, Inode], ...]) -> None:
        """Refuse what cannot be before anything is changed: moves of an inode into a directory."""
        for moved, into in moves:
            if moved.is_directory and self._table.is_below(into, moved):
                raise InvalidArgument("a directory cannot change places with what is below it")
            self._table.names(moved)

    def _check_replaceable(self, inode: Inode, there: Inode | None) -> None:
        if there is None:
            return
        if inode.is_directory and not there.is_directory:
            raise NotADirectory("a directory replaces a directory only")
        if there.is_directory and not inode.is_directory:
            raise IsADirectory("a directory is in the way")
        if there.is_directory and self._table.children(there):
            raise NotEmpty("the directory in the way has entries")

    def _move(
        self,
        source: tuple[Inode, bytes],
        target: tuple[Inode, bytes],
        inode: Inode,
        there: Inode | None,
        caller: Caller,
    ) -> None:
        old_directory, new_directory = source[0], target[0]
        old_path = self._table.path(*source)
        new_path = self._table.path(*target)
        # Asking for names commits: half a rename, were it done between the changes below.
        self._table.names(inode)
        if there is not None:
            self._table.unlink(new_directory, target[1], there)
            there.ctime_ns = time.time_ns()
            if there.is_directory:
                new_directory.nlink -= 1
                self._journal.touch(new_directory)
        self._table.unlink(old_directory, source[1], inode)
        self._table.link(new_directory, target[1], inode)
        if inode.is_directory:
            old_directory.nlink -= 1
            new_directory.nlink += 1
            self._journal.touch(old_directory)
            self._journal.touch(new_directory)
        inode.ctime_ns = self._changed(old_directory, new_directory)
        self._journal.touch(inode)
        self._publication.renamed(inode, old_path, new_path, there, caller)
        if there is not None:
            self.lost_name(there)

    def _exchange(
        self, first: tuple[Inode, bytes, Inode], second: tuple[Inode, bytes, Inode]
    ) -> None:
        for directory, name, inode in (first, second):
            if inode.is_directory:
                directory.nlink -= 1
                self._journal.touch(directory)
            self._table.unlink(directory, name, inode)
        for (directory, name, _), (_, _, inode) in ((first, second), (second, first)):
            self._table.link(directory, name, inode)
            if inode.is_directory:
                directory.nlink += 1
                self._journal.touch(directory)
        now_ns = self._changed(first[0], second[0])
        for _, _, inode in (first, second):
            inode.ctime_ns = now_ns
            self._journal.touch(inode)


def _refuse_submodule(directory: Inode) -> None:
    if directory.flags & SUBMODULE:
        raise ReadOnly("a submodule holds no documents")


def _keep_submodule(*inodes: Inode | None) -> None:
    if any(inode is not None and inode.flags & SUBMODULE for inode in inodes):
        raise Busy("a submodule is moved and removed with git")
