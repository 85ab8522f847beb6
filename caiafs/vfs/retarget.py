"""New trees for directories that nobody has looked into.

Used by `vfs.remote`. Synchronous: who looks into one meanwhile finds all of what somebody else committed, or nothing.
"""

from collections.abc import Mapping

from caiafs.core.types import ROOT_INODE, ROOT_PATH, DocPath, ObjectId, split_path
from caiafs.state.journal import Journal
from caiafs.vfs.inode import LOADED, Inode
from caiafs.vfs.table import InodeTable


def retarget(table: InodeTable, journal: Journal, trees: Mapping[DocPath, ObjectId]) -> None:
    """Have the directories among `trees` that are not loaded show these; one lookup each, there may be 100,000."""
    known: dict[DocPath, Inode | None] = {ROOT_PATH: table.get(ROOT_INODE)}
    for path in sorted(trees):  # what is above comes first, as a rule
        if path not in known:
            above, name = split_path(path)
            if above not in known:
                known[above] = _walk(table, above)
            known[path] = _find(table, known[above], name)
        directory = known[path]
        if directory is not None and not directory.flags & LOADED:
            directory.oid = trees[path]
            journal.touch(directory)


def _walk(table: InodeTable, path: DocPath) -> Inode | None:
    """Return a directory as far as those above it are loaded."""
    directory: Inode | None = table.get(ROOT_INODE)
    for name in path.split(b"/"):
        directory = _find(table, directory, name)
    return directory


def _find(table: InodeTable, directory: Inode | None, name: bytes) -> Inode | None:
    if directory is None or not directory.flags & LOADED:
        return None
    below = table.find(directory, name)
    return below if below is not None and below.is_directory else None
