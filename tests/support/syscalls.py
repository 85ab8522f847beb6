"""System calls that Python's os module lacks, and what of stat(2) a remount must not change."""

import ctypes
import os
from pathlib import Path

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path | bytes, new: Path | bytes, flags: int) -> None:
    """Rename with `flags`, as renameat2(2)."""
    args = (_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags)
    if _libc.renameat2(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(old), None, os.fsdecode(new))


def kept_attributes(path: Path) -> dict[str, int]:
    """Return what stat(2) says that outlives a remount: all but the device and the times of reading."""
    found = path.lstat()
    names = ("mode", "ino", "nlink", "uid", "gid", "size", "mtime_ns", "ctime_ns")
    return {name: getattr(found, f"st_{name}") for name in names}
