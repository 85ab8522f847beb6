"""Keeping the object store quick: many packs become few, many loose files become a pack.

Used by `backend.maintain`. A miss asks every pack (3,000 packs: 32 ms); git's geometric repack costs what was
added since, not the repository. It keeps unreachable objects: a commit may be built and not yet referenced.
"""

import re
from pathlib import Path

from caiafs.backends.git.command import run_git

MAX_PACKS = 50
_MAX_LOOSE_OBJECTS = 4096
_SAMPLE = "17"  # one of 256 directories, as git gc --auto counts
_OBJECT_NAME = re.compile(r"[0-9a-f]{38}")


def needs_repack(object_dir: Path) -> bool:
    """Whether there are more packs or loose objects than are good."""
    packs = sum(1 for _ in (object_dir / "pack").glob("*.pack"))
    sample = object_dir / _SAMPLE
    loose = (
        sum(1 for path in sample.iterdir() if _OBJECT_NAME.fullmatch(path.name))
        if sample.is_dir()
        else 0
    )
    return packs > MAX_PACKS or loose * 256 > _MAX_LOOSE_OBJECTS


async def repack(git_dir: Path) -> None:
    """Let git pack what is loose or in small packs. The user's own `git gc` may run meanwhile.

    Raises:
        Corrupt: git failed; nothing was removed.
        Unreachable: there is no git command.
    """
    await run_git(
        git_dir,
        "-c",
        "pack.threads=1",  # nobody waits for it
        "-c",
        "repack.writeBitmaps=false",
        "repack",
        "--geometric=2",
        "-d",
        "-l",
        "-q",
    )
