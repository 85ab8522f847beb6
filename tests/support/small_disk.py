"""A file system of a few MiB that a test can fill."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mount import mounted_paths
from tests.support.requirements import require, require_root
from tests.support.waiting import wait_until

FULL = (
    "disk of the state directory|nearly full|is full|No space left|cannot grow|checkpoint of|wait in memory"
    "|wait for the state|forgotten later|not written down|documents left"
)
"""What a mount may log whose disk is full; which of its parts meets that first is chance."""


@contextmanager
def a_small_disk(path: Path, size: str = "24m") -> Iterator[Path]:
    """Mount a tmpfs of `size` at `path`, new, until the body ends."""
    require_root()
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    require(done.returncode == 0, f"a tmpfs cannot be mounted here: {done.stderr}")
    try:
        yield path
    finally:
        wait_until(
            lambda: (
                subprocess.run(["umount", path], capture_output=True, check=False).returncode == 0
            ),
            "the small disk can be unmounted",
        )
        assert str(path) not in mounted_paths()


def fill(disk: Path, *, leave: int) -> Path:
    """Fill a file system but for `leave` bytes; return the file that does."""
    filler = disk / "filler"
    free = os.statvfs(disk)
    missing = free.f_bavail * free.f_frsize - leave
    with filler.open("wb", buffering=0) as handle:
        while missing > 0:
            try:
                missing -= handle.write(bytes(missing))
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                break  # the mount took some of it meanwhile
    return filler
