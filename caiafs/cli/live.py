"""Talking to a mount that lives: its .caia files, read in bounded time, and its control file.

A hung mount process leaves its readers in a wait that only SIGKILL ends, so reading is a child's work.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from caiafs.cli.exits import ExitCode
from caiafs.cli.mounts import Mount, find_mount
from caiafs.core.errors import ConfigError

CAIA_XATTR = "user.caia.dir"
"""Extended attribute of the root that names the .caia directory where `caia_dir=` renamed it."""

_READ_TIMEOUT_S = 10.0

_READ = """
import os, sys
point, attribute, name = sys.argv[1:]
try:
    directory = os.getxattr(point, attribute).decode("utf-8", "surrogateescape")
except OSError:
    directory = ".caia"
try:
    with open(os.path.join(point, directory, name), "rb") as file:
        sys.stdout.buffer.write(file.read())
except OSError as exc:
    sys.exit(f"{exc.errno}")
"""
"""What the child does; its error is the errno as text."""


def find_caiafs(mountpoint: Path) -> Mount:
    """Return the caiafs mount on `mountpoint`.

    Raises:
        ConfigError: there is none.
    """
    mount = find_mount(mountpoint)
    if mount is None or not mount.is_caiafs:
        raise ConfigError(
            f"{mountpoint} is not a caiafs mount" + (f" ({mount.fstype})" if mount else ""),
            exit_code=ExitCode.MOUNTPOINT,
        )
    return mount


def find_living(mountpoint: Path) -> Mount:
    """Return the caiafs mount on `mountpoint`, which answers: what is asked of one that does not never ends.

    Raises:
        ConfigError: there is none, it is dead, or it does not answer.
    """
    mount = find_caiafs(mountpoint)
    read_virtual(mount, "version")
    return mount


def read_virtual(mount: Mount, name: str) -> bytes:
    """Return the content of `.caia/<name>`.

    Raises:
        DeadMount: the mount process is gone.
        ConfigError: it does not answer, or has no such file.
    """
    command = [sys.executable, "-I", "-c", _READ, str(mount.point), CAIA_XATTR, name]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_READ_TIMEOUT_S)
    except subprocess.TimeoutExpired as exc:
        raise ConfigError(
            f"the mount process of {mount.point} does not answer", exit_code=ExitCode.FAILURE
        ) from exc
    if done.returncode == 0:
        return done.stdout
    number = int(done.stderr) if done.stderr.strip().isdigit() else errno.EIO
    if number in {errno.ENOTCONN, errno.ECONNABORTED}:
        raise DeadMount(
            f"the mount process of {mount.point} is dead; caiafs umount {mount.point} detaches it",
            exit_code=ExitCode.MOUNTPOINT,
        )
    raise ConfigError(
        f"cannot read .caia/{name} of {mount.point}: {os.strerror(number)}",
        exit_code=ExitCode.FAILURE,
    )


class DeadMount(ConfigError):
    """The mount is there and its process is not."""


def read_json(mount: Mount, name: str) -> dict[str, Any]:
    """Return `.caia/<name>` as JSON.

    Raises:
        ConfigError: it cannot be read, or is no JSON object.
    """
    text = read_virtual(mount, name)
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ConfigError(f".caia/{name} of {mount.point} is not JSON: {exc}", exit_code=1) from exc
    if not isinstance(value, dict):
        raise ConfigError(f".caia/{name} of {mount.point} is not a JSON object", exit_code=1)
    return value


def caia_directory(mount: Mount) -> Path:
    """Return the .caia directory of `mount`, by whatever name."""
    try:
        name = os.fsdecode(os.getxattr(mount.point, CAIA_XATTR))
    except OSError:
        name = ".caia"
    return mount.point / name


def write_control(mount: Mount, command: bytes) -> None:
    """Write one command to `.caia/control`; returns when it is done.

    Raises:
        OSError: as the command failed; EINVAL for an unknown one.
    """
    control = os.open(caia_directory(mount) / "control", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(control, command)
    finally:
        os.close(control)
