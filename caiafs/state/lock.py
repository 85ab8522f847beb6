"""The lock that keeps a repository to one mount.

A flock on a file of its own: it ends with the process, whatever ended that. Each of the two
processes holds its own; the repository counts as held until both are gone.
"""

import fcntl
import os
from pathlib import Path
from typing import Self

import trio

from caiafs.core.errors import StateBusy, StateFull


class RepositoryLock:
    """An exclusive lock, held until `release`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    async def acquire(cls, file: Path, *, timeout_s: float) -> Self:
        """Take the lock, waiting for whoever has it.

        Raises:
            StateBusy: it is still taken after `timeout_s`; names the process.
        """
        try:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StateFull(f"cannot open {file}: {exc.strerror}") from exc
        give_up = trio.current_time() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if trio.current_time() >= give_up:
                    holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                    os.close(fd)
                    raise StateBusy(
                        f"process {holder} holds the repository; unmount it first"
                    ) from None
                await trio.sleep(0.05)  # flock has no wait with a time-out
            else:
                break
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        return cls(fd)

    def release(self) -> None:
        """Give the lock up. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
