"""The commands that .caia/control takes: begin, commit, end, sync, fetch, adopt, resolve, reset-metrics.

One write(2) is one command, as `echo sync > control` sends it. Unknown words are InvalidArgument (EINVAL), so that a
misdirected copy does nothing.
"""

from typing import Protocol

from caiafs.core.durations import parse_duration
from caiafs.core.errors import InvalidArgument
from caiafs.core.types import DocPath

SYNC_TIMEOUT_S = 60.0
_UNDO = frozenset({b"abort", b"rollback", b"cancel"})
_COMMAND_MAX_BYTES = 8192
_USAGE = "commands: begin, commit [MESSAGE], end, sync [TIMEOUT], fetch PATH, adopt, resolve WAY ID, reset-metrics"


class Commands(Protocol):
    """What the commands do; app supplies it."""

    def begin(self) -> None:
        """Hold back what is saved from here on.

        Raises:
            InvalidArgument: a transaction is open already.
        """
        ...

    async def commit(self, message: str, uid: int) -> None:
        """Make one commit, by user `uid`, of what was held back; return when a store has it.

        Raises:
            InvalidArgument: no transaction is open, or the message is too long; it stays open.
            DeadlineExceeded: no store took it in time; it is ended and published later.
        """
        ...

    def end(self) -> None:
        """Publish what was held back as if there had been no transaction.

        Raises:
            InvalidArgument: no transaction is open.
        """
        ...

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

    async def resolve(self, way: str, key: str, uid: int, given: bytes) -> None:
        """End the conflict `key` for user `uid`: see `vfs.resolution`.

        Raises:
            NotFound, Busy, IsADirectory, NoAttribute, InvalidArgument, StoreError: as it says there.
        """
        ...

    def reset_metrics(self) -> None:
        """Forget latencies and counts so far."""
        ...


async def run_command(commands: Commands, data: bytes, uid: int) -> None:
    """Carry out the command in `data`, given by user `uid`.

    Raises:
        InvalidArgument: not a command, or its argument has no meaning.
        CaiaError: as the command failed.
    """
    if len(data) > _COMMAND_MAX_BYTES:
        raise InvalidArgument("a command is one line")
    line = data.removesuffix(b"\n")
    word, space, argument = line.partition(b" ")
    if await _run_transaction(commands, line, uid):
        return
    if word == b"sync":
        await commands.sync(_timeout(argument) if argument.strip() else SYNC_TIMEOUT_S)
    elif word == b"fetch" and space:
        await commands.fetch(_path(argument))
    elif word == b"resolve" and space:
        await _resolve(commands, argument, uid)
    elif line == b"adopt":
        await commands.adopt()
    elif line == b"reset-metrics":
        commands.reset_metrics()
    else:
        raise InvalidArgument(_USAGE)


async def _run_transaction(commands: Commands, line: bytes, uid: int) -> bool:
    """Carry out a command about a transaction; return whether it was one."""
    word, _, argument = line.partition(b" ")
    if word == b"commit":
        await commands.commit(_message(argument), uid)
    elif line == b"begin":
        commands.begin()
    elif line == b"end":
        commands.end()
    elif word in _UNDO:
        raise InvalidArgument("what was saved is never undone; end publishes it one by one")
    else:
        return False
    return True


async def _resolve(commands: Commands, argument: bytes, uid: int) -> None:
    """Carry out `resolve WAY KEY`, or `resolve file NAME KEY`."""
    way, _, rest = argument.partition(b" ")
    given = b""
    if way == b"file":
        given, _, rest = rest.partition(b" ")
    try:
        await commands.resolve(way.decode("ascii"), rest.decode("utf-8"), uid, given)
    except UnicodeDecodeError as exc:
        raise InvalidArgument("a conflict is named as in .caia/conflicts") from exc


def _message(argument: bytes) -> str:
    """Return a commit message, without the quotes around it that a user may have sent along."""
    text = argument.strip()
    if len(text) > 1 and text[:1] == text[-1:] and text[:1] in {b'"', b"'"}:
        text = text[1:-1].strip()
    if b"\0" in text:
        raise InvalidArgument("a message has no NUL in it")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidArgument("a message is UTF-8") from exc


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
