"""Whether a state directory is ours alone: nothing in it may be a door that somebody else has put there.

Used when it is opened, before anything in it is. A repository that was copied or unpacked brings its `caiafs` directory
along: a link in the place of the log would have us write elsewhere, a FIFO would have us wait for ever.
"""

import os
import re
import stat
from pathlib import Path

from caiafs.core.errors import StateCorrupt
from caiafs.state import paths

_SPOOL_NAME = re.compile(r"[0-9a-f]{16}")


def check_private(state_dir: Path) -> None:
    """See to it that only we can read and write what is in `state_dir`, subdirectories' contents aside.

    Raises:
        StateCorrupt: it, or something in it, is somebody else's, or of no kind that we make.
    """
    status = state_dir.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise StateCorrupt(
            f"the state directory {state_dir} is no directory; state_dir= names another"
        )
    if status.st_uid != os.geteuid():
        raise StateCorrupt(
            f"the state directory {state_dir} belongs to user {status.st_uid}; mount as that user"
        )
    if status.st_mode & 0o077:
        state_dir.chmod(0o700)
    with os.scandir(state_dir) as entries:
        for entry in entries:
            _check_entry(Path(entry.path), entry.stat(follow_symlinks=False))


def _check_entry(path: Path, status: os.stat_result) -> None:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise StateCorrupt(
            f"{path} is neither a file nor a directory: not of our making; remove it"
        )
    if status.st_uid != os.geteuid():
        raise StateCorrupt(
            f"{path} belongs to user {status.st_uid}; remove it, or mount as that user"
        )
    if status.st_mode & 0o077:
        path.chmod(stat.S_IMODE(status.st_mode) & 0o700)


def spool_file(state_dir: Path, name: str) -> Path:
    """Return the spool file that the state DB names.

    Raises:
        StateCorrupt: that can be none of ours: a DB from elsewhere must not name a file elsewhere.
    """
    if not _SPOOL_NAME.fullmatch(name):
        raise StateCorrupt(f"the state database names a spool file that cannot be: {name!r}")
    return paths.spool(state_dir) / name
