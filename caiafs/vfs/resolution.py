"""Ends a conflict: one version becomes the document and the copy goes, in one step and one commit.

Called for `.caia/control`, on the trio thread. It logs ops as any program does, so it works without the stores, and two
mounts that resolve at once converge by the rules of `sync.replay`. What changes did not come through the kernel, which
is told afterwards.
"""

import stat
from typing import Protocol

import trio

from caiafs.core.conflicts import RESERVED
from caiafs.core.errors import Busy, InvalidArgument, IsADirectory, NoAttribute
from caiafs.core.types import GitMode, InodeNo, display, git_mode, join_path
from caiafs.state.journal import Journal
from caiafs.vfs.caller import Caller, this_process
from caiafs.vfs.conflicts import Conflict, Conflicts
from caiafs.vfs.contents import Contents
from caiafs.vfs.inheritance import inherit
from caiafs.vfs.inode import Inode
from caiafs.vfs.namespace import Namespace
from caiafs.vfs.publication import Publication
from caiafs.vfs.remote import KernelNotifier
from caiafs.vfs.table import InodeTable
from caiafs.vfs.transactions import Transactions

OURS, THEIRS, BASE, FILE = "ours", "theirs", "base", "file"
WAYS = (OURS, THEIRS, BASE, FILE)

_KERNEL_WAIT_S = 2.0
_PATH_SHOWN = 40


class Kernel(KernelNotifier, Protocol):
    """Tells the kernel, and knows when it has heard."""

    async def wait_told(self) -> None:
        """Return when the kernel has heard all that was to be told so far."""
        ...


class Resolver:
    """Ends conflicts."""

    def __init__(
        self,
        conflicts: Conflicts,
        table: InodeTable,
        contents: Contents,
        names: tuple[Namespace, Publication],
        transactions: Transactions,
        *,
        kernel: Kernel,
    ) -> None:
        self._conflicts = conflicts
        self._journal: Journal = transactions.journal
        self._table = table
        self._contents = contents
        self._namespace, self._publication = names
        self._transactions = transactions
        self._kernel = kernel

    async def resolve(self, way: str, key: str, uid: int, *, given: bytes = b"") -> None:
        """End the conflict `key` for user `uid`; `given` is a file beside the document, for FILE.

        Raises:
            NotFound: no such conflict is open.
            Busy: the document, its copy or the file is open for writing.
            IsADirectory: a directory has the name; only OURS is possible.
            NoAttribute: the base is not known, or is not here.
            InvalidArgument: no such way, or no such file.
            StoreError: the content of the file cannot be read.
        """
        if way not in WAYS:
            raise InvalidArgument(f"a conflict is resolved by {', '.join(WAYS)}")
        conflict = self._conflicts.find(key)
        document = self._table.get(conflict.document.ino)
        if document.is_directory and way != OURS:
            raise IsADirectory("a directory has the name")
        caller = Caller(uid, this_process().gid, 0)
        taken = self._taken(conflict, way, given)
        try:
            if taken is not None:
                # What reads the state DB commits: not between the changes below.
                await self._contents.load(taken[0])
                conflict = self._conflicts.find(key)
            self._check_idle(conflict, taken)
        except BaseException:
            if taken is not None and not taken[1]:
                self._namespace.end(taken[0])  # made for this, and in no directory
            raise
        if way == OURS:
            self._namespace.unlink(*self._at_copy(conflict), caller)
        elif taken is None:
            copy = self._table.get(conflict.copy.ino)
            inherit(self._journal, copy, document)
            target = (conflict.document.directory, conflict.document.name)
            self._namespace.rename(self._at_copy(conflict), target, 0, caller)
        else:
            self._take(conflict, *taken, caller)
        await self._tell_kernel(conflict, given)

    def _at_copy(self, conflict: Conflict) -> tuple[InodeNo, bytes]:
        return conflict.copy.directory, conflict.copy.name

    def _taken(self, conflict: Conflict, way: str, given: bytes) -> tuple[Inode, bytes] | None:
        """Return the inode that becomes the document, and what it is called; None for the others."""
        directory = self._table.get(conflict.document.directory)
        document = self._table.get(conflict.document.ino)
        if way == FILE:
            found = self._table.find(directory, given)
            if not given.startswith(RESERVED) or found is None or not found.is_file:
                raise InvalidArgument(f"the file lies beside the document as {RESERVED!r}...")
            return found, given
        if way != BASE:
            return None
        base = conflict.origin.base if conflict.origin is not None else None
        size = self._conflicts.size_of(base) if base is not None else None
        if base is None or size is None:
            raise NoAttribute("what both versions started from is not known here")
        mode = git_mode(document.mode) if document.is_file else GitMode.FILE
        return self._table.imported(int(mode or GitMode.FILE), base, like=document, size=size), b""

    def _check_idle(self, conflict: Conflict, taken: tuple[Inode, bytes] | None) -> None:
        """Log what was saved and not logged yet; refuse what is being written."""
        inodes = [self._table.get(place.ino) for place in (conflict.document, conflict.copy)]
        for inode in [*inodes, *([taken[0]] if taken is not None else [])]:
            if inode.writers or inode.dirty:
                raise Busy("it is open for writing")
        for inode in inodes:
            if not inode.is_directory:
                self._publication.due(inode)

    def _take(self, conflict: Conflict, new: Inode, name: bytes, caller: Caller) -> None:
        """Put `new`, which is called `name` (nothing yet: b""), where the document is; remove the copy."""
        table, publication = self._table, self._publication
        directory = table.get(conflict.document.directory)
        document, copy = table.get(conflict.document.ino), table.get(conflict.copy.ino)
        if document.is_file:
            new.mode = stat.S_IFREG | stat.S_IMODE(document.mode)
        inherit(self._journal, new, document)
        new.author = (caller.uid, caller.program())
        for inode in (new, document, copy):
            table.names(inode)
        self._journal.commit()
        old_path = join_path(table.path(directory), name or RESERVED)
        table.unlink(directory, conflict.document.name, document)
        if name:
            table.unlink(directory, name, new)
        table.link(directory, conflict.document.name, new)
        publication.renamed(new, old_path, conflict.path, document, caller)
        self._namespace.lost_name(document)
        table.unlink(directory, conflict.copy.name, copy)
        publication.unlinked(copy, conflict.copy_path, caller)
        first, last = (self._journal.newest_op(inode.ino) for inode in (new, copy))
        self._namespace.lost_name(copy)
        self._journal.touch_times(directory)
        if first and last > first:
            said = "" if name else f"Resolve {_shown(conflict)}: go back to what both started from"
            self._transactions.bind(first, last, caller.uid, said)
        self._journal.commit()

    async def _tell_kernel(self, conflict: Conflict, given: bytes) -> None:
        directory = conflict.document.directory
        await self._kernel.forget_attributes(directory)
        await self._kernel.forget_name(directory, conflict.document.name)
        await self._kernel.forget_name(directory, conflict.copy.name, conflict.copy.ino)
        if given:
            await self._kernel.forget_name(directory, given)
        with trio.move_on_after(_KERNEL_WAIT_S):
            await self._kernel.wait_told()


def _shown(conflict: Conflict) -> str:
    text = display(conflict.path)
    return text if len(text) <= _PATH_SHOWN else f"...{text[3 - _PATH_SHOWN :]}"
