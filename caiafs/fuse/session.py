"""The mount itself: begun, served, ended.

Used by app. pyfuse3 keeps one session a process, in module state of its own.
"""

import gc
import logging
import os
import select
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyfuse3
import trio

from caiafs.core.config import Config
from caiafs.core.errors import ConfigError
from caiafs.core.locations import mount_source
from caiafs.fuse.operations import CaiaOperations

log = logging.getLogger(__name__)

EXIT_NO_FUSE = 7
_REQUESTS_BETWEEN_CHECKPOINTS = 64
_TASKS_MAX = 2000
"""Requests under way. Each that waits for a store takes one: with pyfuse3's 99 a hundred of them left none to say why."""
_IDLE_TASKS = 4
"""Tasks that stay when requests pause. With one, pyfuse3 begins and ends a task with nearly every
created file: creates and unpacking took a third more of the processor."""


class _Path(str):
    """An option with a path in it: pyfuse3 encodes options as ASCII, which ends at the first umlaut."""

    __slots__ = ()

    def encode(self, encoding: str = "", errors: str = "") -> bytes:  # as str has it
        return os.fsencode(str(self))


def mount_options(config: Config) -> set[str]:
    """Return the options that libfuse and the kernel get."""
    source = mount_source(config.repository).replace("\\", "\\\\").replace(",", "\\,")
    options = {_Path(f"fsname={source}"), "subtype=caiafs"}
    options.add("default_permissions")
    if config.allow_other or config.allow_root:
        options.add("allow_other")
    if config.read_only:
        options.add("ro")
    options.add("suid" if config.suid else "nosuid")
    options.add("dev" if config.dev else "nodev")
    if config.noexec:
        options.add("noexec")
    return options


@contextmanager
def mounted(operations: CaiaOperations, config: Config) -> Iterator[None]:
    """Mount for the length of the block, and unmount unless the block failed.

    After a crash of our own the mount stays, dead: an empty mount point invites rsync to delete
    its copy of what was there.

    Raises:
        ConfigError: the kernel or fusermount3 refuses.
    """
    logging.getLogger("pyfuse3").addFilter(_LateReplies())
    try:
        pyfuse3.init(operations, str(config.mountpoint), mount_options(config))
    except RuntimeError as exc:
        raise ConfigError(
            f"cannot mount on {config.mountpoint}: {exc}; see the lines above for the reason",
            exit_code=EXIT_NO_FUSE,
        ) from exc
    try:
        yield
    except BaseException:
        pyfuse3.close(unmount=False)
        raise
    pyfuse3.close(unmount=True)


async def serve() -> None:
    """Answer the kernel's requests until the mount ends."""
    _poll_before_waiting()
    # What lives by now lives long: without it each collection walks every inode.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)
    await pyfuse3.main(min_tasks=_IDLE_TASKS, max_tasks=_TASKS_MAX)


class _LateReplies(logging.Filter):
    """Keeps out of the log what every busy unmount does.

    The kernel does not wait for answers to RELEASE and FORGET: theirs find the connection gone.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "fuse_reply_* failed with No such file" not in record.getMessage()


def stop_serving() -> None:
    """Have `serve` return; requests under way are answered first."""
    pyfuse3.terminate()


def _poll_before_waiting() -> None:
    """Look at the FUSE descriptor before trio's wait, which costs an epoll round and a reschedule.

    A no-op request costs 23 µs instead of 38 (README "Design"). Every 64th request yields all the
    same, so that other tasks run under load. Waiting here for a millisecond helped reads and cost
    creates more. pyfuse3 looks `trio.lowlevel.wait_readable` up in its own module at each request;
    where a later version does not, this changes nothing.
    """
    real = trio.lowlevel.wait_readable
    poll: Any = None
    served = 0

    async def wait_readable(fd: int) -> None:
        nonlocal poll, served
        if poll is None:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
        served += 1
        if served % _REQUESTS_BETWEEN_CHECKPOINTS == 0:
            await trio.lowlevel.checkpoint()
        if not poll.poll(0):
            await real(fd)

    lowlevel = types.SimpleNamespace(**vars(trio.lowlevel))
    lowlevel.wait_readable = wait_readable
    replaced = types.SimpleNamespace(**vars(trio))
    replaced.lowlevel = lowlevel
    pyfuse3.trio = replaced  # type: ignore[attr-defined]  # pyfuse3.asyncio does the same
