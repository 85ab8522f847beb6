"""Keeping the token where it is needed: out of the environments of other processes, and out of what /proc shows of ours.

Used by the command line, which has taken the settings out first. Every process that caiafs starts inherits what is left.
"""

import ctypes
import os
from collections.abc import MutableMapping

from caiafs.core.kinds import REMOTE
from caiafs.core.settings_table import SETTINGS

VARIABLES = tuple(
    setting.env for setting in SETTINGS.values() if setting.secret or setting.kind is REMOTE
)
"""Names of the environment variables that hold secrets; the address of a remote may have a password."""


def forget_secrets(environ: MutableMapping[str, str]) -> None:
    """Remove the secrets from `environ`, this process's environment, and blot them out in /proc/PID/environ.

    The kernel shows the bytes that a process was started with, whatever unsetenv(3) did since.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in VARIABLES:
        if name not in environ:
            continue
        value = libc.getenv(name.encode())
        if value:
            ctypes.memset(value, ord("*"), len(os.fsencode(environ[name])))
        del environ[name]
