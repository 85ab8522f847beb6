"""`caiafs umount MNT`: unmounts, waits until everything pending is published or the time is over, says what is left."""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import DeadMount, find_caiafs, read_json
from caiafs.cli.mounts import Mount
from caiafs.cli.parser import Parser, duration
from caiafs.cli.users import users_of
from caiafs.core.durations import format_duration
from caiafs.core.errors import ConfigError
from caiafs.core.locations import LAST_UNMOUNT_NAME

_SHOWN_USERS = 5
_DETACH_TIMEOUT_S = 30.0  # dirty pages are written first


@dataclass(frozen=True, slots=True)
class Server:
    """The mount process: its pid, where it keeps state, a descriptor that says when it ends (-1: unknown)."""

    pid: int
    state_dir: Path
    descriptor: int


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Unmount, and return the exit code.

    Raises:
        ConfigError: not a caiafs mount, or busy.
    """
    parser = Parser(
        "umount",
        usage="caiafs umount MNT [--timeout 20s]",
        description="Unmount MNT, wait until its documents are published, and say what is left.",
    )
    parser.add_argument("mountpoint", type=Path, metavar="MNT")
    parser.add_argument("--timeout", type=duration, default=20.0, metavar="DURATION")
    parsed = parser.parse(argv)
    mount = find_caiafs(parsed.mountpoint)
    try:
        server = find_server(mount)
    except DeadMount:
        detach(mount, lazy=True)
        print(
            f"{mount.point}: the mount process was dead; detached. The next mount publishes what is pending."
        )
        return ExitCode.OK
    except ConfigError as exc:
        detach(mount)
        raise ConfigError(
            f"{mount.point}: unmounted, but what is left is not known: {exc}", exit_code=1
        ) from exc
    detach(mount)
    if not wait_for_end(server, parsed.timeout):
        print(
            f"{mount.point}: unmounted; process {server.pid} is still publishing after"
            f" {format_duration(parsed.timeout)} and goes on"
        )
        return ExitCode.INCOMPLETE
    return report_left(mount, server)


def find_server(mount: Mount) -> Server:
    """Return the process behind `mount`, as its stats.json says.

    Raises:
        DeadMount: it is dead.
        ConfigError: it does not answer.
    """
    told = read_json(mount, "stats.json").get("mount", {})
    pid = int(told.get("pid", 0))
    try:
        descriptor = os.pidfd_open(pid) if pid else -1
    except OSError:  # in another pid namespace
        descriptor = -1
    return Server(pid, Path(told.get("state_dir", "")), descriptor)


def detach(mount: Mount, *, lazy: bool = False) -> None:
    """Take `mount` out of the tree.

    Raises:
        ConfigError: it is busy (with who uses it), or this user may not.
    """
    done = _run(["fusermount3", "-uz" if lazy else "-u", "--", str(mount.point)])
    if done.returncode and os.geteuid() == 0 and shutil.which("umount"):
        done = _run(["umount", *(["-l"] if lazy else []), "--", str(mount.point)])
    if not done.returncode:
        return
    if "busy" in done.stderr:
        raise ConfigError(_busy(mount), exit_code=ExitCode.BUSY)
    raise ConfigError(
        f"cannot unmount {mount.point}: {done.stderr.strip()}", exit_code=ExitCode.FAILURE
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_DETACH_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as exc:
        raise ConfigError(
            f"{command[0]} does not end: the mount process hangs; fusermount3 -uz {command[-1]} detaches the"
            " mount, and what is saved is kept",
            exit_code=ExitCode.FAILURE,
        ) from exc


def _busy(mount: Mount) -> str:
    users = users_of(mount.point)
    if not users:
        return f"{mount.point} is busy; another user's process, or a mount below it, uses it"
    shown = "; ".join(str(user) for user in users[:_SHOWN_USERS])
    more = f"; and {len(users) - _SHOWN_USERS} more" if len(users) > _SHOWN_USERS else ""
    return f"{mount.point} is busy: {shown}{more}"


def wait_for_end(server: Server, timeout_s: float) -> bool:
    """Whether the mount process ended within `timeout_s`."""
    if server.descriptor < 0:
        return True
    poll = select.poll()
    poll.register(server.descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    try:
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    finally:
        os.close(server.descriptor)


def report_left(mount: Mount, server: Server) -> int:
    """Print what the mount process could not publish, and return the exit code for it."""
    left = read_left(server)
    waiting = {name: count for name, count in left.items() if count}
    if not waiting:
        print(f"{mount.point}: unmounted" + ("; every store has everything" if left else ""))
        return ExitCode.OK
    shown = ", ".join(f"{count} for {name}" for name, count in sorted(waiting.items()))
    print(
        f"{mount.point}: unmounted; documents left: {shown}."
        f" They are kept in {server.state_dir}, and the next mount publishes them."
    )
    return ExitCode.INCOMPLETE


def read_left(server: Server) -> dict[str, int]:
    """Return the documents left for each store as that process wrote them; empty where it did not."""
    try:
        told = json.loads((server.state_dir / LAST_UNMOUNT_NAME).read_text("utf-8"))
        if told["pid"] == server.pid:
            return {str(name): int(count) for name, count in told["left"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {}
