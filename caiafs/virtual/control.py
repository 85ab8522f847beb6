"""The commands that .caia/control takes: sync, fetch, adopt, reset-metrics.

One write(2) is one command, as `echo sync > control` sends it. Unknown words are InvalidArgument (EINVAL), so that a
misdirected copy does nothing.
"""

from typing import Protocol

from caiafs.core.durations import parse_duration
from caiafs.core.errors import InvalidArgument
from caiafs.core.types import DocPath

SYNC_TIMEOUT_S = 60.0
_COMMAND_MAX_BYTES = 8192


class Commands(Protocol):
    """What the commands do; app supplies it."""

    async def sync(self, timeout_s: float) -> None:
        """Return when every configured store has everything that was saved before.

        Raises:
            DeadlineExceeded: not within `timeout_s`.
            StoreError: not possible now.
        """
        ...

    async def fetch(self, path: DocPath) -> None:
        """Look `path` up in govc and take in what it has.

        Raises:
            NotFound: govc does not have it.
            StoreError: govc cannot be asked.
        """
        ...

    async def adopt(self) -> None:
        """Merge govc and git though they never met.

        Raises:
            StoreError: not possible now.
        """
        ...

    def reset_metrics(self) -> None:
        """Forget latencies and counts so far."""
        ...


async def run_command(commands: Commands, data: bytes) -> None:
    """Carry out the command in `data`.

    Raises:
        InvalidArgument: not a command, or its argument has no meaning.
        CaiaError: as the command failed.
    """
    if len(data) > _COMMAND_MAX_BYTES:
        raise InvalidArgument("a command is one line")
    line = data.removesuffix(b"\n")
    word, space, argument = line.partition(b" ")
    if word == b"sync":
        await commands.sync(_timeout(argument) if argument.strip() else SYNC_TIMEOUT_S)
    elif word == b"fetch" and space:
        await commands.fetch(_path(argument))
    elif line == b"adopt":
        await commands.adopt()
    elif line == b"reset-metrics":
        commands.reset_metrics()
    else:
        raise InvalidArgument("commands: sync [TIMEOUT], fetch PATH, adopt, reset-metrics")


def _timeout(argument: bytes) -> float:
    try:
        return parse_duration(argument.decode("ascii"))
    except ValueError as exc:
        raise InvalidArgument(f"sync takes a duration such as 60s, not {argument!r}") from exc


def _path(argument: bytes) -> DocPath:
    components = argument.split(b"/")
    if b"\n" in argument or b"\0" in argument or {b"", b".", b".."} & set(components):
        raise InvalidArgument("fetch takes one path, relative to the root of the mount")
    return DocPath(argument)
