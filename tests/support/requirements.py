"""What a test needs from the machine: missing, it skips with its reason, or fails under CAIAFS_REQUIRE_ALL=1.

CI sets CAIAFS_REQUIRE_ALL=1, so that a component that vanished is never a green run.
"""

import os
import shutil
from pathlib import Path

import pytest


def require_all() -> bool:
    """Whether a missing component is a failure."""
    return os.environ.get("CAIAFS_REQUIRE_ALL", "") == "1"


def require(present: object, reason: str) -> None:
    """Go on when `present` is true; else skip with `reason`, or fail where everything is required."""
    if present:
        return
    if require_all():
        pytest.fail(f"required (CAIAFS_REQUIRE_ALL=1): {reason}", pytrace=False)
    pytest.skip(reason)


def require_tool(name: str) -> str:
    """Return the path of the program `name`."""
    found = shutil.which(name)
    require(found, f"the program {name} is not installed")
    assert found is not None
    return found


def require_fuse() -> None:
    """Need what a kernel mount needs."""
    device = Path("/dev/fuse")
    require(device.exists(), "there is no /dev/fuse here")
    require(os.access(device, os.R_OK | os.W_OK), "/dev/fuse is not ours to open")
    require_tool("fusermount3")


def require_root() -> None:
    """Need to be root, for what only root may do."""
    require(os.geteuid() == 0, "only root can do this")
