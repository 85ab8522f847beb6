"""What .caia is made of: files rendered when they are opened, directories, and the control file.

Used by `virtual.tree` and the FUSE layer, which gives inode numbers. Rendering is synchronous and from memory.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class VirtualFile:
    """A file whose bytes are made at each lookup or open, so that size and content agree."""

    name: bytes
    render: Callable[[], bytes]
    mode: int = 0o444


class Reader(Protocol):
    """An open document."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes at `offset`; may wait for a store."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file with the content of a document, which is read when it is asked for; its size is known before."""

    name: bytes
    size_bytes: int
    time_ns: int
    open: Callable[[], Reader]
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class LiveDirectory:
    """A directory whose names come and go; made at each look, from memory."""

    name: bytes
    look: Callable[[], dict[bytes, "VirtualNode"]]
    mode: int = 0o555

    @property
    def children(self) -> dict[bytes, "VirtualNode"]:
        """What it contains now."""
        return self.look()


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


VirtualNode = VirtualFile | DocumentFile | ControlFile | VirtualDirectory | LiveDirectory
