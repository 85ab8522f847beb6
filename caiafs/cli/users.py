"""Which processes use a mount: working directories, roots, programs, open files and mappings, from /proc.

The links there are the kernel's own text, so a mount that hangs is not asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class User:
    """A process that keeps a mount busy, and by what."""

    pid: int
    program: str
    uses: str

    def __str__(self) -> str:
        return f"{self.program} ({self.pid}) {self.uses}"


def users_of(mountpoint: Path, proc: Path = Path("/proc")) -> list[User]:
    """Return the processes that use `mountpoint`, as far as this user may see them."""
    found = []
    for directory in proc.iterdir():
        if not directory.name.isdigit():
            continue
        use = next(_uses(directory, mountpoint), None)
        if use is not None:
            found.append(User(int(directory.name), _program(directory), use))
    return sorted(found, key=lambda user: user.pid)


def _uses(process: Path, mountpoint: Path) -> Iterator[str]:
    for name, verb in (("cwd", "is in"), ("root", "has its root at"), ("exe", "runs")):
        target = _link(process / name)
        if target is not None and target.is_relative_to(mountpoint):
            yield f"{verb} {target}"
    for folder, verb in (("fd", "has open"), ("map_files", "has mapped")):
        for link in _entries(process / folder):
            target = _link(link)
            if target is not None and target.is_relative_to(mountpoint):
                yield f"{verb} {target}"


def _link(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:  # another user's process, or one that has just ended
        return None


def _entries(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "a process"
