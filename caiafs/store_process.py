"""The store process: `python -m caiafs.store_process --fd N --parent PID`, started by `link.supervisor`.

Everything it needs comes with the first message over descriptor N. It ends with the mount process: at the end of the
stream, at SIGTERM, which the kernel sends when the parent dies, and by an alarm where its loop hangs.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

import stamina.instrumentation
import trio

from caiafs.core import locations
from caiafs.core import log as logs
from caiafs.core.config import config_from_json
from caiafs.core.errors import CaiaError, StateCorrupt
from caiafs.core.remote_url import secrets_of
from caiafs.link.channel import Channel, LinkClosed, LinkError
from caiafs.link.messages import Failed, Start
from caiafs.state import paths
from caiafs.state.lock import RepositoryLock
from caiafs.state.reader import StateReader
from caiafs.sync.assembly import run_parts

log = logging.getLogger("caiafs.store_process")

LOCK_WAIT_S = 20.0
_HANG_S = 10
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the store process to its end."""
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    _die_with(int(arguments["--parent"]))
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Our own log says what went wrong, once, and not each try.
    stamina.instrumentation.set_on_retry_hooks([])
    trio.run(_serve_until_signal, int(arguments["--fd"]))


def _die_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the mount process dies; end now where it died already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


async def _serve_until_signal(fd: int) -> None:
    stream = trio.SocketStream(trio.socket.socket(fileno=fd))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_sigterm, nursery.cancel_scope)
        try:
            await serve(Channel(stream))
        finally:
            # From here on nothing may hold the process up.
            signal.alarm(_HANG_S)
        nursery.cancel_scope.cancel()


async def _cancel_at_sigterm(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            signal.alarm(_HANG_S)
            scope.cancel()


async def serve(channel: Channel) -> None:
    """Serve one mount process over `channel`; the first message is Start."""
    try:
        start = await channel.receive()
        if start is None:
            return
        if not isinstance(start, Start):
            raise LinkError(f"a {type(start).__name__} came before Start")
        await _serve_started(channel, start)
    except* LinkClosed:
        log.info("the mount process is gone")
    except* CaiaError as group:
        for exc in _leaves(group):
            log.error("%s", exc)  # noqa: TRY400  # said to a person; it is no bug
        await _tell_failure(channel, "; ".join(str(exc) for exc in _leaves(group)))
    except* Exception as group:
        log.exception("the store process broke")  # nobody reads what goes to standard error
        first = _leaves(group)[0]
        await _tell_failure(channel, f"an internal error: {type(first).__name__}; see the log")
        raise


async def _tell_failure(channel: Channel, reason: str) -> None:
    with contextlib.suppress(LinkError):
        await channel.send(Failed(reason))


def _leaves(group: BaseExceptionGroup[Exception]) -> list[BaseException]:
    found: list[BaseException] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found


def _check_state(state_dir: Path) -> None:
    """Return if `state_dir` is the mount's: the repository it lies in may have been moved or replaced.

    Raises:
        StateCorrupt: it is not.
    """
    try:
        owner = int(paths.mount_lock(state_dir).read_text() or os.getppid())
    except (OSError, ValueError):
        owner = os.getppid()
    if not state_dir.is_dir() or owner != os.getppid():
        raise StateCorrupt(
            f"{state_dir} is not that of this mount: the repository was moved or replaced; put it back, or unmount"
        )


async def _serve_started(channel: Channel, start: Start) -> None:
    state_dir = Path(start.state_dir)
    _check_state(state_dir)
    lock = await RepositoryLock.acquire(paths.store_lock(state_dir), timeout_s=LOCK_WAIT_S)
    try:
        config = config_from_json(start.config)
        # With the lock held: two processes that rotate one file lose lines.
        logs.setup(
            state_dir / locations.STORE_LOG_NAME,
            config.log_level,
            to_stderr=config.foreground,
            secrets=[config.govc_auth_token, *secrets_of(config.git_remote)],
        )
        with StateReader(state_dir) as state:
            await run_parts(channel, start, config, state)
    finally:
        lock.release()


if __name__ == "__main__":
    main()
