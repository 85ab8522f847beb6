"""What is checked before mounting: each failure is one line that says what to do, and its exit code."""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import DeadMount, read_virtual
from caiafs.cli.mounts import Mount, find_mount
from caiafs.core.config import Config
from caiafs.core.errors import ConfigError
from caiafs.core.locations import is_repository, state_directory

_FUSE_DEVICE = Path("/dev/fuse")
_FUSE_CONF = Path("/etc/fuse.conf")


def check(config: Config) -> list[str]:
    """Check everything that can be checked before the mount; return what the user should be told.

    A dead mount of our own on the mount point is detached.

    Raises:
        ConfigError: one line, with the exit code.
    """
    check_fuse(config)
    told = clear_mountpoint(config.mountpoint)
    check_places(config)
    check_mountpoint(config)
    check_repository(config)
    return told


def check_fuse(config: Config) -> None:
    """Raise where this machine or user cannot mount."""
    if not _FUSE_DEVICE.exists():
        raise ConfigError(
            f"{_FUSE_DEVICE} is missing: load the kernel module (modprobe fuse), or in a container give it"
            " the device (docker run --device /dev/fuse --cap-add SYS_ADMIN)",
            exit_code=ExitCode.NO_FUSE,
        )
    if shutil.which("fusermount3") is None:
        raise ConfigError(
            "fusermount3 is not installed: apt-get install fuse3", exit_code=ExitCode.NO_FUSE
        )
    if os.geteuid() != 0 and not os.access(_FUSE_DEVICE, os.R_OK | os.W_OK):
        raise ConfigError(
            f"this user may not open {_FUSE_DEVICE}: ask for membership of its group, or chmod 666 it",
            exit_code=ExitCode.NO_FUSE,
        )
    if (config.allow_other or config.allow_root) and os.geteuid() != 0:
        _check_user_allow_other(_FUSE_CONF)


def _check_user_allow_other(conf: Path) -> None:
    try:
        lines = [line.strip() for line in conf.read_text("utf-8", "replace").splitlines()]
    except OSError:
        lines = []
    if "user_allow_other" not in lines:
        raise ConfigError(
            f"allow_other and allow_root need the line user_allow_other in {conf}; root can add it",
            exit_code=ExitCode.NO_FUSE,
        )


def clear_mountpoint(mountpoint: Path) -> list[str]:
    """Detach a dead mount of our own; refuse where something is mounted that lives.

    Returns:
        What was done, for the user.
    """
    mount = find_mount(mountpoint)
    if mount is None:
        return []
    if not mount.is_caiafs:
        if not mount.fstype.startswith("fuse"):
            return []  # an ordinary file system is a fine place for a mount point
        raise ConfigError(
            f"{mountpoint} is already mounted ({mount.fstype} from {mount.source})",
            exit_code=ExitCode.MOUNTPOINT,
        )
    if not _is_dead(mount):
        raise ConfigError(
            f"{mountpoint} is already mounted ({mount.source}); caiafs umount {mountpoint} ends it",
            exit_code=ExitCode.MOUNTPOINT,
        )
    done = subprocess.run(
        ["fusermount3", "-uz", "--", mount.point], capture_output=True, check=False
    )
    if done.returncode:
        raise ConfigError(
            f"{mountpoint} is a dead mount that cannot be detached: {_said(done.stderr)}",
            exit_code=ExitCode.MOUNTPOINT,
        )
    return [f"detached the dead mount on {mountpoint}"]


def _is_dead(mount: Mount) -> bool:
    # stat(2) would not tell: the kernel keeps the root's attributes after the process has died.
    try:
        read_virtual(mount, "version")
    except DeadMount:
        return True
    except ConfigError:
        return False
    return False


def _said(stderr: bytes) -> str:
    return stderr.decode("utf-8", "replace").strip().removeprefix("fusermount3: ")


def check_mountpoint(config: Config) -> None:
    """Raise where the mount point is no directory that we may mount on."""
    mountpoint = config.mountpoint
    try:
        mode = mountpoint.stat().st_mode
    except FileNotFoundError as exc:
        raise ConfigError(
            f"mount point {mountpoint} does not exist: mkdir -p {mountpoint}",
            exit_code=ExitCode.MOUNTPOINT,
        ) from exc
    except OSError as exc:
        raise ConfigError(
            f"mount point {mountpoint}: {exc.strerror}", exit_code=ExitCode.MOUNTPOINT
        ) from exc
    if not stat.S_ISDIR(mode):
        raise ConfigError(
            f"mount point {mountpoint} is not a directory", exit_code=ExitCode.MOUNTPOINT
        )
    if os.geteuid() != 0 and not os.access(mountpoint, os.W_OK):
        raise ConfigError(
            f"mount point {mountpoint} is not writable by this user, which fusermount3 asks for",
            exit_code=ExitCode.MOUNTPOINT,
        )
    if not config.nonempty and _has_entries(mountpoint):
        raise ConfigError(
            f"mount point {mountpoint} is not empty. To bring its files in, move it away, mount, and copy"
            f" them with cp -a; to hide them while mounted, -o nonempty",
            exit_code=ExitCode.MOUNTPOINT,
        )


def _has_entries(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError as exc:
        raise ConfigError(
            f"mount point {directory}: {exc.strerror}", exit_code=ExitCode.MOUNTPOINT
        ) from exc


def check_repository(config: Config) -> None:
    """Raise where the repository is something else, or somebody else's."""
    repository = config.repository
    if not repository.exists():
        return
    if not repository.is_dir():
        raise ConfigError(
            f"repository {repository} is a file, not a directory", exit_code=ExitCode.REPOSITORY
        )
    if not os.access(repository, os.R_OK | os.X_OK):
        raise ConfigError(
            f"repository {repository} may not be read by this user", exit_code=ExitCode.REPOSITORY
        )
    if not is_repository(repository) and _has_foreign_files(repository):
        raise ConfigError(
            f"repository {repository} holds files and is no git repository; name an empty or new"
            " directory, and copy the files in after mounting",
            exit_code=ExitCode.REPOSITORY,
        )
    owner = repository.stat().st_uid
    if owner != os.geteuid() and config.state_dir is None:
        raise ConfigError(
            f"repository {repository} belongs to {_user_name(owner)}; mount as that user, clone it, or"
            " keep state elsewhere with --state-dir",
            exit_code=ExitCode.REPOSITORY,
        )


def _has_foreign_files(repository: Path) -> bool:
    with os.scandir(repository) as entries:
        return any(entry.name != "caiafs" for entry in entries)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def check_places(config: Config) -> None:
    """Raise where mounting would cover what the mount itself needs."""
    mountpoint = os.path.realpath(config.mountpoint)  # resolve() breaks where links go round
    for what, place in (
        ("repository", config.repository),
        ("state directory", state_directory(config)),
    ):
        if Path(os.path.realpath(place)).is_relative_to(mountpoint):
            raise ConfigError(
                f"the {what} {place} is below the mount point {mountpoint}, which would cover it",
                exit_code=ExitCode.MOUNTPOINT,
            )
