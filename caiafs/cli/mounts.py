"""What is mounted where, from /proc/self/mountinfo; never touches a mount, so that a hung one cannot hang us."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

CAIAFS_TYPE = "fuse.caiafs"
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: where, what kind, and from what."""

    point: Path
    fstype: str
    source: str

    @property
    def is_caiafs(self) -> bool:
        """Whether caiafs serves it."""
        return self.fstype == CAIAFS_TYPE


def parse_mountinfo(text: bytes) -> list[Mount]:
    """Return the mounts that mountinfo lists, in its order; of several on one point the last is on top."""
    mounts = []
    for line in text.splitlines():
        front, _, back = line.partition(b" - ")
        fields, tail = front.split(b" "), back.split(b" ")
        if len(fields) >= 5 and len(tail) >= 2:
            mounts.append(Mount(Path(_unescape(fields[4])), _unescape(tail[0]), _unescape(tail[1])))
    return mounts


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def find_mount(path: Path) -> Mount | None:
    """Return what is mounted on `path`, None where nothing is. A link to a mount point counts."""
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    return _on(resolve_parent(path), mounts) or _on(Path(os.path.realpath(path)), mounts)


def _on(point: Path, mounts: list[Mount]) -> Mount | None:
    return next((mount for mount in reversed(mounts) if mount.point == point), None)


def resolve_parent(path: Path) -> Path:
    """Return `path` absolute, with links resolved in its parent only: the mount itself is not asked."""
    absolute = os.path.abspath(path)  # resolve() would ask the mount
    parent, name = os.path.split(absolute)
    return Path(os.path.realpath(parent), name)


def below(point: Path, path: bytes) -> bytes | None:
    """Return `path` relative to the mount on `point`, None where it is not below.

    Links on the way to the last component count; a document that is one is meant itself.
    """
    real = os.fsencode(resolve_parent(Path(os.fsdecode(path))))
    root = os.path.join(os.fsencode(point), b"")
    return real[len(root) :] if real.startswith(root) else None
