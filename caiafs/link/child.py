"""The store process as the mount's child: started, waited for, ended.

Used by `link.supervisor`.
"""

import contextlib
import os
import signal
import socket
import subprocess
from typing import Self

import trio

from caiafs.core.errors import Unreachable

EXIT_WAIT_S = 2.0


class Child:
    """A running process, and our end of the link to it."""

    def __init__(self, process: subprocess.Popen[bytes], pidfd: int, link: socket.socket) -> None:
        self._process = process
        self._pidfd = pidfd
        self.link = link

    @classmethod
    def start(cls, command: tuple[str, ...]) -> Self:
        """Start `command`, told its end of the link and who its parent is.

        Raises:
            Unreachable: the system refuses.
        """
        with contextlib.ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair()
                undo.enter_context(ours)
                with theirs:
                    process = _spawn(command, theirs.fileno())
                undo.callback(process.wait)
                undo.callback(process.kill)
                pidfd = os.pidfd_open(process.pid)
            except OSError as exc:
                raise Unreachable(f"the store process cannot be started: {exc}") from exc
            undo.pop_all()
        return cls(process, pidfd, ours)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def end(self) -> str:
        """Wait for the end of a process that was told, kill it when it does not; return how it ended."""
        try:
            with trio.move_on_after(EXIT_WAIT_S) as scope:
                await trio.lowlevel.wait_readable(self._pidfd)
            if scope.cancelled_caught:
                self._process.kill()
                await trio.lowlevel.wait_readable(self._pidfd)
        finally:
            os.close(self._pidfd)
        return _ending(self._process.wait())


def _spawn(command: tuple[str, ...], fd: int) -> subprocess.Popen[bytes]:
    # Not trio.run_process: it forks from a worker thread, and PDEATHSIG fires when the *thread*
    # that forked ends. Popen closes every other descriptor, the FUSE device among them.
    return subprocess.Popen(
        [*command, "--fd", str(fd), "--parent", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        pass_fds=(fd,),
    )


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"exit {returncode}"
    return signal.Signals(-returncode).name
