"""What .caia is made of: files rendered when they are opened, directories, and the control file.

Used by `virtual.tree` and the FUSE layer, which gives inode numbers. Rendering is synchronous and from memory.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VirtualFile:
    """A file whose bytes are made at each lookup or open, so that size and content agree."""

    name: bytes
    render: Callable[[], bytes]
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class ControlFile:
    """A file that takes commands; each write(2) is one, and returns when it is done.

    `write` is given the command and the number of the user who opened the file.
    `write` raises CaiaError: InvalidArgument for what is no command.
    """

    name: bytes
    write: Callable[[bytes, int], Awaitable[None]]
    mode: int = 0o200


@dataclass(frozen=True, slots=True)
class VirtualDirectory:
    """A directory of the above, by name."""

    name: bytes
    children: dict[bytes, "VirtualNode"]
    mode: int = 0o555


VirtualNode = VirtualFile | ControlFile | VirtualDirectory
