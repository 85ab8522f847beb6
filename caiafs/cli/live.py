"""Talking to a mount that lives: its .caia files, read in bounded time, and its control file.

A hung mount process leaves its readers in a wait that only SIGKILL ends, so reading is a child's work.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from caiafs.cli.exits import ExitCode
from caiafs.cli.mounts import Mount, find_mount
from caiafs.core.errors import ConfigError

CAIA_XATTR = "user.caia.dir"
"""Extended attribute of the root that names the .caia directory where `caia_dir=` renamed it."""

_READ_TIMEOUT_S = 10.0


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


def read_virtual(mount: Mount, name: str) -> bytes:
    """Return the content of `.caia/<name>`.

    Raises:
        ConfigError: the mount process is dead or does not answer.
    """
    try:
        done = subprocess.run(
            ["cat", "--", caia_directory(mount) / name],
            capture_output=True,
            check=False,
            timeout=_READ_TIMEOUT_S,
            env={"LC_ALL": "C", "PATH": os.defpath},
        )
    except subprocess.TimeoutExpired as exc:
        raise ConfigError(
            f"the mount process of {mount.point} does not answer", exit_code=ExitCode.FAILURE
        ) from exc
    if done.returncode:
        raise _unreadable(mount, done.stderr)
    return done.stdout


def _unreadable(mount: Mount, stderr: bytes) -> ConfigError:
    said = stderr.decode("utf-8", "replace").strip()
    if "not connected" in said or "Software caused" in said:
        return DeadMount(
            f"the mount process of {mount.point} is dead; caiafs umount {mount.point} detaches it",
            exit_code=ExitCode.MOUNTPOINT,
        )
    return ConfigError(said.removeprefix("cat: "), exit_code=ExitCode.FAILURE)


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
