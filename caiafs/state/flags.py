"""What else a row of `inode` says: bits that both processes read."""

import enum


class InodeFlag(enum.IntFlag):
    """What else a row says of its inode."""

    LOADED = 1
    """A directory whose names are in the DB; otherwise they are still in git only."""
    UNLOGGED = 2
    """The content row has bytes that no op has put yet."""
    HAS_XATTRS = 4
    """There are extended attributes; without it nobody asks the DB."""
    EXPLICIT = 8
    """A directory that somebody made: it stays when its last document goes."""
    LOCAL = 16
    """`oid` is the content's id, and no published path has it."""
    DAMAGED = 32
    """The newest version was set aside (`state.damaged`): reading fails until something is saved."""
    NOTED = 64
    """Somebody said something of its next commit (table `note`); without it nobody asks the DB."""
    SUBMODULE = 128
    """A directory that stands for a submodule: no tree can hold a document in it."""
