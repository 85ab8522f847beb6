"""Which machine this is, and how a thing that was written here is known again.

Used by both processes. The seal is no secret among the users of one machine, who can all read its id; it keeps a
repository that comes from elsewhere from passing for one of ours.
"""

import functools
import hashlib
import hmac
import os
from pathlib import Path

SEAL_TRAILER = "Caiafs-Seal"
"""Trailer of a commit that carries its tree's seal."""

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def machine_id() -> str:
    """Return what names this machine, its host name where it has no id."""
    named = _MACHINE_ID.read_text().strip() if _MACHINE_ID.is_file() else ""
    return named or os.uname().nodename


def boot_id() -> str:
    """Return what names the time since the kernel started; another one means that its page cache is gone."""
    return _BOOT_ID.read_text().strip()


def seal(text: str) -> str:
    """Return what proves that `text` was written by this user on this machine."""
    key = f"caiafs:{machine_id()}:{os.geteuid()}".encode()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_sealed(text: str, given: str) -> bool:
    """Whether `given` is this machine's and this user's seal of `text`."""
    return hmac.compare_digest(seal(text), given)
