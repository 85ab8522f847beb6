"""What of the mount's changes the stores hear of: decides which ops are logged, and when.

Used by the other vfs modules, on the trio thread, in the transaction of the change itself. Nothing
here awaits.

Only files and links at paths that are not local are published, and those that git has at a local name already: what is
tracked stays tracked. A file is first put when its last
writer has let go; a rename or removal before that has nothing to say. Large contents are logged at
once and hashed afterwards (`vfs.hashing`); the publisher waits for the hash.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from caiafs.core.types import DocPath, GitMode, ObjectId, git_mode, join_path
from caiafs.state.journal import Journal, raw_id
from caiafs.state.ops import NewOp, OpKind
from caiafs.vfs.body import SpoolBody
from caiafs.vfs.caller import Caller, this_process
from caiafs.vfs.contents import Contents
from caiafs.vfs.inode import LOCAL, NOTED, UNLOGGED, Inode
from caiafs.vfs.local_names import LocalNames
from caiafs.vfs.notes import Notes
from caiafs.vfs.table import InodeTable


class _Step(NamedTuple):
    """What an op does, and where."""

    kind: OpKind
    path: DocPath
    target: DocPath | None = None


class _Content(NamedTuple):
    """What an op puts: the blob id, None while it is hashed, and the row that has the bytes."""

    oid: ObjectId | None
    row: int | None


class Publication:
    """Logs ops."""

    def __init__(
        self,
        journal: Journal,
        table: InodeTable,
        contents: Contents,
        local_names: LocalNames,
        *,
        notes: Notes,
        hash_later: Callable[[Inode, int], None],
    ) -> None:
        self._journal = journal
        self._table = table
        self._contents = contents
        self._local_names = local_names
        self._notes = notes
        self._hash_later = hash_later

    def is_local(self, path: DocPath) -> bool:
        """Whether `path` stays in this mount."""
        return self._local_names.match(path)

    def is_local_directory(self, path: DocPath) -> bool:
        """Whether what is made in directory `path` stays in this mount."""
        return self._local_names.match(path, is_directory=True)

    def public_paths(self, inode: Inode) -> list[DocPath]:
        """Return the paths of an inode that the stores are to have."""
        paths = self._table.paths(inode)
        return [path for path in paths if not self._stays(path, inode)]

    def _stays(self, path: DocPath, inode: Inode | None) -> bool:
        """Whether `inode`, at `path`, is local: by its name, and git does not have it there.

        What was published and goes to a local name is marked (`_note_local`). So what counts as published under a
        local name alone came from git.
        """
        is_tracked = inode is not None and inode.is_logged and inode.nlink <= 1
        return not is_tracked and self.is_local(path)

    def is_published(self, inode: Inode) -> bool:
        """Whether the stores are to have this inode's present content, at some path."""
        return inode.is_publishable and bool(self.public_paths(inode))

    # --- contents

    def due(self, inode: Inode) -> None:
        """Log a journaled content as a version, unless it is one already or nobody may see it."""
        if not inode.flags & UNLOGGED or not inode.is_publishable or inode.dirty:
            return
        paths = self.public_paths(inode)
        if not paths:
            return
        small = self._contents.small_content(inode)
        if small is None:
            self._put_large(inode, paths)
            return
        oid = self._contents.hash_small(small)
        inode.flags &= ~UNLOGGED
        if inode.is_logged and oid == _logged_oid(inode):
            self._contents.keep_logged(inode)
        else:
            self._put(inode, paths, _Content(oid, inode.content))
            inode.oid = oid
            inode.unhashed = None
        inode.row_open = False
        inode.flags &= ~LOCAL
        self._forget_replaced(inode)
        self._journal.touch(inode)

    def _put_large(self, inode: Inode, paths: list[DocPath]) -> None:
        assert inode.content is not None
        self._put(inode, paths, _Content(None, inode.content))
        if isinstance(inode.body, SpoolBody):
            inode.body.extents.seal()
        inode.unhashed = inode.content
        inode.row_open = False
        inode.flags &= ~(UNLOGGED | LOCAL)
        self._forget_replaced(inode)
        self._journal.touch(inode)
        self._hash_later(inode, inode.content)

    def _put(self, inode: Inode, paths: list[DocPath], content: "_Content") -> None:
        """Log that `paths` hold a content of the inode."""
        for path in paths:
            self._log(_Step(OpKind.PUT, path), inode, content=content, replaced=inode)

    def _log(
        self,
        step: "_Step",
        inode: Inode,
        *,
        content: "_Content | None" = None,
        replaced: Inode | None = None,
        caller: Caller | None = None,
        aside: bool = False,
    ) -> None:
        """Log one op; `replaced` is the inode that the path showed before, as the log has it."""
        before, before_content = _known(replaced)
        if caller is not None:
            uid, program = caller.uid, caller.program()
        else:
            uid, program = inode.author or (this_process().uid, "")
        seq = self._journal.log_op(
            NewOp(
                kind=step.kind,
                path=step.path,
                target=step.target,
                ino=inode.ino,
                uid=uid,
                program=program,
                time_ns=time.time_ns(),
                mode=git_mode(inode.mode) or GitMode.FILE,
                oid=content.oid if content else None,
                size_bytes=inode.size if content else 0,
                content_id=content.row if content else None,
                replaced=before,
                replaced_content=before_content,
                aside=aside,
            )
        )
        if inode.flags & NOTED:  # of few: each op comes past here
            self._notes.give(inode, seq)

    def mode_changed(self, inode: Inode, old_mode: int) -> None:
        """Log a change of what git holds of a mode: the executable bit."""
        if git_mode(old_mode) != git_mode(inode.mode) and inode.is_logged:
            self._put(inode, self.public_paths(inode), _logged_content(inode))

    # --- names; all called after the table has changed

    def linked(self, inode: Inode, path: DocPath) -> None:
        """A further name was given to an inode."""
        if not self.is_local(path):
            self._arrived(inode, path, None)

    def unlinked(self, inode: Inode, path: DocPath, caller: Caller, *, aside: bool = False) -> None:
        """A name was taken away; `aside`: for one that is not published."""
        if inode.is_directory or self._stays(path, inode):
            return
        if inode.is_logged:
            step = _Step(OpKind.REMOVE, path)
            self._log(step, inode, replaced=inode, caller=caller, aside=aside)
            self._note_local(inode)
        else:
            self._vacated(inode, path, caller)

    def _vacated(self, inode: Inode, path: DocPath, caller: Caller) -> None:
        """An inode that was never logged left a name where something else stood before it."""
        if inode.is_logged or (inode.replaced is None and inode.replaced_row is None):
            return
        self._log(_Step(OpKind.REMOVE, path), inode, replaced=inode, caller=caller)
        self._forget_replaced(inode)

    def _note_local(self, inode: Inode) -> None:
        """Note that no path has a logged inode any more, if that is so."""
        if inode.is_logged and inode.nlink and all(map(self.is_local, self._table.paths(inode))):
            inode.flags |= LOCAL
            self._journal.touch(inode)

    def renamed(
        self, inode: Inode, old: DocPath, new: DocPath, target: Inode | None, caller: Caller
    ) -> None:
        """`inode` moved from `old` to `new`, where `target` was."""
        if inode.is_directory:
            self._directory_renamed(inode, old, new, caller)
            return
        was_local, is_local = self._stays(old, inode), self._stays(new, target)
        if target is not None and inode.is_publishable and not is_local:
            self._notes.inherit(inode, target)
        if not inode.is_publishable:
            if target is not None:
                self.unlinked(target, new, caller)
            return
        if not was_local:
            if inode.is_logged and not is_local:
                content = _Content(_logged_oid(inode), inode.unhashed)
                step = _Step(OpKind.MOVE, old, new)
                self._log(step, inode, content=content, replaced=target, caller=caller)
                return
            self.unlinked(inode, old, caller, aside=is_local)
        if not is_local:
            self._arrived(inode, new, target)

    def _directory_renamed(
        self, directory: Inode, old: DocPath, new: DocPath, caller: Caller
    ) -> None:
        was_local, is_local = self.is_local_directory(old), self.is_local_directory(new)
        if is_local:
            self._subtree_moved(directory, old, is_local=True, caller=caller)
            return
        # From a local name too: what git has below goes along.
        self._log(_Step(OpKind.MOVE, old, new), directory, caller=caller)
        if was_local:
            self._subtree_moved(directory, old, is_local=False, caller=caller)
        elif self._local_names.looks_at_paths:
            self._look_again(directory, old, caller)

    def _look_again(self, directory: Inode, old: DocPath, caller: Caller) -> None:
        """Publish what stopped being local because a directory moved, and take back what became so."""
        for inode, path in self._below(directory):
            before = DocPath(old + path[len(self._table.path(directory)) :])
            was_local, is_local = self.is_local(before), self.is_local(path)
            if was_local and not is_local and not inode.is_logged:
                self._arrived(inode, path, None)
            elif is_local and not was_local and inode.is_logged:
                step = _Step(OpKind.REMOVE, path)
                self._log(step, inode, replaced=inode, caller=caller, aside=True)
                self._note_local(inode)

    def _below(self, directory: Inode) -> list[tuple[Inode, DocPath]]:
        """Return every publishable inode below a directory, and its path."""
        found = []
        waiting = [(directory, self._table.path(directory))]
        while waiting:
            above, prefix = waiting.pop()
            for name in self._table.children(above):
                inode = self._table.find(above, name)
                assert inode is not None
                path = join_path(prefix, name)
                if inode.is_directory:
                    waiting.append((inode, path))
                elif inode.is_publishable:
                    found.append((inode, path))
        return found

    def _arrived(self, inode: Inode, path: DocPath, target: Inode | None) -> None:
        """A file is at a public path that the stores do not know it at; `target` was there."""
        if inode.is_logged:
            # Its other names are public already, so this one is brought up to them.
            step = _Step(OpKind.PUT, path)
            self._log(step, inode, content=_logged_content(inode), replaced=target)
            return
        if target is not None:
            self._remember_replaced(inode, *_known(target))
            self._forget_replaced(target)
        if inode.flags & UNLOGGED or inode.dirty:
            if not inode.writers:
                self.due(inode)
        elif inode.flags & LOCAL:
            self._put(inode, self.public_paths(inode), _logged_content(inode))
            inode.flags &= ~LOCAL
            self._forget_replaced(inode)
            self._journal.touch(inode)

    def _subtree_moved(
        self, directory: Inode, old: DocPath, *, is_local: bool, caller: Caller
    ) -> None:
        """A directory became local, or stopped being so, with all that is below."""
        if is_local:
            self._log(_Step(OpKind.REMOVE, old), directory, caller=caller, aside=True)
        for inode, path in self._below(directory):
            if is_local:
                self._forget_replaced(inode)
                self._note_local(inode)
            elif not self.is_local(path) and not inode.is_logged:
                self._arrived(inode, path, None)

    def exchanged(
        self, first: Inode, second: Inode, paths: tuple[DocPath, DocPath], caller: Caller
    ) -> None:
        """`first` and `second` changed places; `paths` are where they were."""
        known = all(inode.is_logged or inode.is_directory for inode in (first, second))
        if known and not any(map(self.is_local, paths)):
            self._log(_Step(OpKind.EXCHANGE, *paths), first, caller=caller)
            return
        # What leaves the stores' sight goes first, then moves what they know, then comes the rest.
        moves = [(first, paths[0], paths[1]), (second, paths[1], paths[0])]
        for inode, old, _ in moves:
            if not inode.is_directory:
                self._vacated(inode, old, caller)
        moves.sort(key=lambda move: not (move[0].is_logged or move[0].is_directory))
        moves.sort(key=lambda move: not self.is_local(move[2]))
        for inode, old, new in moves:
            self.renamed(inode, old, new, None, caller)

    # --- what stood at a name that a file took before it was logged

    def _remember_replaced(self, inode: Inode, oid: ObjectId | None, row: int | None) -> None:
        inode.replaced, inode.replaced_row = oid, row
        raw = raw_id(oid)
        self._journal.run_sql("INSERT OR REPLACE INTO replaced VALUES (?,?,?)", inode.ino, raw, row)

    def _forget_replaced(self, inode: Inode) -> None:
        if inode.replaced is not None or inode.replaced_row is not None:
            inode.replaced = inode.replaced_row = None
            self._journal.run_sql("DELETE FROM replaced WHERE ino=?", inode.ino)


def _logged_oid(inode: Inode) -> ObjectId | None:
    """Return the blob id of what the op log's end has, None while it is hashed."""
    return None if inode.unhashed is not None else inode.oid


def _logged_content(inode: Inode) -> _Content:
    """Return what the op log's end has. Where the inode has newer bytes, an op before has the row."""
    if inode.unhashed is not None:
        return _Content(None, inode.unhashed)
    return _Content(inode.oid, None if inode.flags & UNLOGGED else inode.content)


def _known(inode: Inode | None) -> tuple[ObjectId | None, int | None]:
    """Return what the op log has where `inode` shows: a blob id, or a row being hashed."""
    if inode is None:
        return None, None
    if not inode.is_logged:
        return inode.replaced, inode.replaced_row
    return _logged_oid(inode), inode.unhashed
