"""Who makes a request: what the kernel tells, and what /proc adds for provenance."""

import functools
import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The process behind a request; `pid` is 0 where the kernel does not say."""

    uid: int
    gid: int
    pid: int
    umask: int = 0

    def program(self) -> str:
        """Return the name of the caller's program, "" where it is gone or hidden."""
        return _program(self.pid) if self.pid else ""


def _program(pid: int) -> str:
    try:
        fd = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 64).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


@functools.cache
def this_process() -> Caller:
    """Return the mount process itself, for what it does on its own."""
    return Caller(os.geteuid(), os.getegid(), os.getpid())
