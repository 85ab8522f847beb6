"""The git command as upkeep needs it: its outcome as a value, and streams in and out of it in bounded memory.

Hooks and whatever a repository's configuration could start are off, as in `backends.git.command`.
"""

import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO

import trio

from caiafs.backends.git.command import git_argv, git_environment
from caiafs.backends.git.repository import Repository
from caiafs.core.errors import CaiaError, Corrupt, Unreachable

PIECE_BYTES = 1 << 20
_FSCK_OVERRIDES = ("-c", "fsck.skipList=/dev/null")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How git ended and what it said."""

    code: int
    out: bytes
    err: bytes

    @property
    def last_line(self) -> str:
        """What it said last, for an error message."""
        lines = self.err.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.code}"


def environment_of(repository: Repository) -> dict[str, str]:
    """Return the environment for git on this repository, its separate object directory included."""
    return git_environment(repository.object_dir, repository.git_dir)


async def ask_git(repository: Repository, *arguments: str, stdin: bytes = b"") -> Outcome:
    """Run git to its end, whatever it says.

    Raises:
        Unreachable: there is no git command.
    """
    try:
        done = await trio.run_process(
            git_argv(repository.git_dir, *_FSCK_OVERRIDES, *arguments),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment_of(repository),
        )
    except OSError as exc:
        raise Unreachable(f"cannot run git: {exc}", backend="git", operation=arguments[0]) from exc
    return Outcome(done.returncode, bytes(done.stdout or b""), bytes(done.stderr or b""))


async def check_objects(repository: Repository) -> None:
    """Have git read every object.

    Raises:
        Corrupt: one is not what its id says.
        Unreachable: there is no git command.
    """
    found = await ask_git(
        repository, "fsck", "--strict", "--full", "--no-dangling", "--no-progress"
    )
    if found.code:
        raise Corrupt(f"git fsck --strict: {found.last_line}", backend="git", operation="fsck")


@asynccontextmanager
async def git_output(
    repository: Repository, *arguments: str, stdin: IO[bytes] | None = None
) -> AsyncIterator[trio.abc.ReceiveStream]:
    """Give what git prints as a stream; git must end well, or the block's end raises Corrupt."""
    errors = bytearray()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        pipes = {"stdin": stdin if stdin is not None else subprocess.DEVNULL}
        process = await _start(nursery, repository, arguments, stdout=subprocess.PIPE, **pipes)
        assert process.stdout is not None, "it is a pipe"
        assert process.stderr is not None, "it is a pipe"
        nursery.start_soon(_collect, process.stderr, errors)
        try:
            yield process.stdout
            await process.wait()
        except (CaiaError, OSError) as exc:  # raised below, where no nursery wraps it
            failure = exc
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    _check(process, arguments, bytes(errors))


async def feed_git(
    repository: Repository,
    arguments: Sequence[str],
    feed: Callable[[trio.abc.SendStream], Awaitable[None]],
) -> bytes:
    """Run git with what `feed` sends as its input; return what it printed.

    Raises:
        Corrupt: git did not like it.
        Unreachable: there is no git command.
    """
    errors, printed = bytearray(), bytearray()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        process = await _start(
            nursery, repository, arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        assert process.stderr is not None, "it is a pipe"
        nursery.start_soon(_collect, process.stderr, errors)
        nursery.start_soon(_collect, process.stdout, printed)
        try:
            with contextlib.suppress(trio.BrokenResourceError):
                await feed(process.stdin)  # where git ends before its input does, it says why
            await process.stdin.aclose()
            await process.wait()
        except (CaiaError, OSError) as exc:
            failure = exc
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    _check(process, arguments, bytes(errors))
    return bytes(printed)


async def _start(
    nursery: trio.Nursery,
    repository: Repository,
    arguments: Sequence[str],
    **pipes: int | IO[bytes],
) -> trio.Process:
    try:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                git_argv(repository.git_dir, *_FSCK_OVERRIDES, *arguments),
                **pipes,
                stderr=subprocess.PIPE,
                check=False,
                env=environment_of(repository),
            )
        )
    except OSError as exc:
        raise Unreachable(f"cannot run git: {exc}", backend="git", operation=arguments[0]) from exc
    return process


async def _collect(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
    async for piece in stream:
        into += piece


def _check(process: trio.Process, arguments: Sequence[str], errors: bytes) -> None:
    if process.returncode:
        said = Outcome(process.returncode, b"", errors).last_line
        raise Corrupt(f"git {arguments[0]}: {said}", backend="git", operation=arguments[0])
