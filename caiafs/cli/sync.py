"""`caiafs sync MNT`: waits until every configured store has everything; on a terminal a line shows how far it is."""

import errno
import queue
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import find_living, read_json, write_control
from caiafs.cli.mounts import Mount
from caiafs.cli.parser import Parser, duration
from caiafs.core.durations import format_duration
from caiafs.core.errors import CaiaError, ConfigError

_PROGRESS_S = 0.5
_SLACK_S = 15.0
_INCOMPLETE = frozenset({errno.ETIMEDOUT, errno.EIO, errno.EACCES, errno.ESTALE})


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Wait for the stores, and return 0, or 3 after saying which store lacks how much.

    Raises:
        ConfigError: not a caiafs mount, or it does not answer.
    """
    parser = Parser(
        "sync",
        usage="caiafs sync MNT [--timeout 60s]",
        description="Wait until every configured store has every saved document.",
    )
    parser.add_argument("mountpoint", type=Path, metavar="MNT")
    parser.add_argument("--timeout", type=duration, default=60.0, metavar="DURATION")
    parsed = parser.parse(argv)
    mount = find_living(parsed.mountpoint)
    command = f"sync {format_duration(parsed.timeout)}\n".encode()
    error = _ask(mount, command, timeout_s=parsed.timeout + _SLACK_S)
    if error is None:
        print("every store has everything")
        for line in read_json(mount, "health.json").get("information", []):
            print(f"  {line}")
        return ExitCode.OK
    if error.errno not in _INCOMPLETE:
        raise ConfigError(f"sync of {mount.point}: {error.strerror}", exit_code=ExitCode.FAILURE)
    lines = left(mount)
    late = f"not done within {format_duration(parsed.timeout)}"
    why = late if error.errno == errno.ETIMEDOUT else "not possible now"
    print(f"{why}; nothing is lost, it goes on" + (". Left:" if lines else ""))
    for line in lines:
        print(f"  {line}")
    return ExitCode.INCOMPLETE


def _ask(mount: Mount, command: bytes, *, timeout_s: float) -> OSError | None:
    """Write `command` and show progress until it is done; return its error.

    Raises:
        ConfigError: no answer within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    answers: queue.Queue[OSError | None] = queue.Queue()

    def write() -> None:
        try:
            write_control(mount, command)
        except OSError as exc:
            answers.put(exc)
        else:
            answers.put(None)

    # The write waits in the kernel, where only its end or ours frees it; a daemon thread lets Ctrl-C through.
    threading.Thread(target=write, daemon=True).start()
    shown = False
    while time.monotonic() < deadline:
        try:
            answer = answers.get(timeout=_PROGRESS_S)
        except queue.Empty:
            shown = _show_progress(mount) or shown
            continue
        if shown:
            sys.stderr.write("\r\033[K")
        return answer
    raise ConfigError(f"the mount process of {mount.point} does not answer", exit_code=1)


def _show_progress(mount: Mount) -> bool:
    if not sys.stderr.isatty():
        return False
    try:
        lines = left(mount)
    except CaiaError as exc:
        lines = [str(exc)]
    sys.stderr.write(f"\r\033[K{'; '.join(lines) or 'nearly done'}")
    sys.stderr.flush()
    return True


def left(mount: Mount) -> list[str]:
    """Return one line a store that lacks something, with why as far as it is known.

    Raises:
        ConfigError: the mount does not answer.
    """
    stats, health = read_json(mount, "stats.json"), read_json(mount, "health.json")
    lines = []
    pending = stats.get("state", {}).get("pending_ops", 0)
    if pending:
        lines.append(f"{count(pending, 'change')} in no store yet")
    for name, backend in sorted(health.get("backends", {}).items()):
        if backend.get("behind"):
            why = "; ".join(backend.get("reasons", [])) or backend.get("last_error", "")
            lacking = f"{name} lacks {count(backend['behind'], 'document')}"
            lines.append(lacking + (f" ({why})" if why else ""))
    remote = health.get("remote", {})
    if remote.get("documents_left"):
        why = "; ".join(remote.get("reasons", []))
        lacking = f"the git remote lacks {count(remote['documents_left'], 'document')}"
        lines.append(lacking + (f" ({why})" if why else ""))
    return lines


def count(number: int, what: str) -> str:
    """Return a number of things, in words."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
