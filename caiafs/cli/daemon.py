"""Running the mount in the background: the user's command waits until the mount answers, or says why it doesn't.

The child reports once, through a pipe that closes on exec. Forks before any thread or event loop exists.
"""

import json
import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caiafs.cli.exits import ExitCode, exit_code
from caiafs.core.errors import CaiaError, ConfigError, leaf

log = logging.getLogger(__name__)

Serve = Callable[[Callable[[str], None]], int]
"""Runs the mount until it ends; calls its argument once the mount answers; returns an exit code."""


@dataclass(frozen=True, slots=True)
class Started:
    """How the start went: 0 and what the mount says of its stores, or an exit code and an error line."""

    code: int
    text: str


def start(serve: Serve, log_file: Path) -> Started:
    """Run `serve` in a process of its own and return once its mount answers or it has failed."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os.setsid()
        if os.fork():  # the session's leader ends, so that no terminal can become ours
            os._exit(0)
        _run_detached(serve, write_end, log_file)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end, "rb") as pipe:
        message = pipe.read()
    if not message:
        return Started(
            ExitCode.FAILURE, f"the mount process ended before the mount answered; see {log_file}"
        )
    return Started(**json.loads(message))


def _run_detached(serve: Serve, write_end: int, log_file: Path) -> None:
    """Be the mount process; never returns."""
    code: int = ExitCode.FAILURE
    reported = False

    def report(started: Started) -> None:
        nonlocal reported
        if reported:
            return
        reported = True
        text = json.dumps({"code": int(started.code), "text": started.text})
        try:
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(text.encode())
        except BrokenPipeError as exc:  # Ctrl-C: whoever waited is gone, and wants no mount
            raise ConfigError("the command that waited for the mount was ended") from exc

    try:
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        code = serve(lambda text: report(Started(ExitCode.OK, text)))
        report(Started(code or ExitCode.FAILURE, f"the mount ended at once; see {log_file}"))
    except CaiaError as exc:
        code = exit_code(exc)
        # Before the mount answers the caller is told, and the log may be that of a mount which lives.
        if reported:
            log.exception("mount ended")
        report(Started(code, str(exc)))
    except BaseException as exc:  # noqa: BLE001  # nothing above us could say it
        log.critical("mount process broke\n%s", traceback.format_exc())
        error = leaf(exc)
        report(Started(code, f"{type(error).__name__}: {error}; see {log_file}"))
    finally:
        logging.shutdown()
        os._exit(code)
