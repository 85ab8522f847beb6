"""Room for the log of the state DB, taken from the disk before it is needed.

Used by state.database. A change that is refused must not have been done, and one that was begun is hard to take back: half a
rename is in memory by the time SQLite says that the disk is full. So blocks behind the log's end are allocated ahead, without
making the file longer (SQLite finds its last frame by what is in it), and a change that might not fit is refused before
anything is done. Where the file system cannot allocate ahead, free space is looked at instead.
"""

import ctypes
import errno
import os

_KEEP_SIZE = 1
_AHEAD_BYTES = 2 * 1024 * 1024
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class LogRoom:
    """The blocks behind the end of one log."""

    def __init__(self, fd: int) -> None:
        """`fd` is open for writing and stays the caller's."""
        self._fd = fd
        self._until = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._allocates = True

    def has(self, wanted_bytes: int) -> bool:
        """Whether so much can be appended; takes more from the disk where it can."""
        size = os.fstat(self._fd).st_size
        if self._until - size >= wanted_bytes:
            return True
        return any(self._allocate(size + ahead) for ahead in (_AHEAD_BYTES, wanted_bytes))

    def forget(self) -> None:
        """The log was cut: what was allocated behind it is gone."""
        self._until = 0

    def _allocate(self, until: int) -> bool:
        if not self._allocates:
            free = os.fstatvfs(self._fd)
            return free.f_bavail * free.f_frsize >= _AHEAD_BYTES
        offset, length = ctypes.c_int64(0), ctypes.c_int64(until)
        if self._libc.fallocate(self._fd, _KEEP_SIZE, offset, length) == 0:
            self._until = until
            return True
        self._allocates = ctypes.get_errno() not in _UNSUPPORTED
        return False if self._allocates else self._allocate(until)
