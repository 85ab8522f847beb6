"""What each command ends with; caiafs(1) lists the same."""

import enum
import os

from caiafs.core.errors import ConfigError, StateBusy, StateError


class ExitCode(enum.IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    """Done."""
    FAILURE = 1
    """Something else went wrong; the message says what."""
    USAGE = 2
    """The command line or a setting cannot be used."""
    INCOMPLETE = 3
    """Not every store has everything yet; nothing is lost."""
    MOUNTPOINT = 4
    """The mount point cannot be used, or is not a caiafs mount."""
    REPOSITORY = 5
    """The repository or its state directory cannot be used."""
    BUSY = 6
    """Somebody uses the mount, or another mount holds the repository."""
    NO_FUSE = 7
    """FUSE is not there or does not let this user mount."""


def exit_code(error: BaseException) -> int:
    """Return what a command ends with that `error` stopped."""
    if isinstance(error, ConfigError):
        return error.exit_code
    if isinstance(error, StateBusy):
        return ExitCode.BUSY
    if isinstance(error, StateError):
        return ExitCode.REPOSITORY
    return ExitCode.FAILURE


def os_error(error: OSError) -> str:
    """Return in one line what the system refused; only the working directory has no name."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "."
    return f"{where}: {error.strerror or error}"
