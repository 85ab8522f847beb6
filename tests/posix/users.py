"""Doing things as an ordinary user: one attempt in a process of its own, or a whole mount."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mount import PROJECT, Mount, caiafs_command, clean_environment, mounted_paths
from tests.support.requirements import require, require_root, require_tool
from tests.support.waiting import wait_until

SOMEBODY = 65534
ANOTHER = 65533
FUSE_DEVICE = Path("/dev/fuse")


def attempt(uid: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command as user and group `uid`, with no other groups."""
    return subprocess.run(
        list(map(str, command)),
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        env=clean_environment({"HOME": "/nonexistent", "PATH": os.environ["PATH"]}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def may(uid: int, *command: str | Path) -> bool:
    """Whether a command succeeds as `uid`."""
    return attempt(uid, *command).returncode == 0


def let_through(path: Path) -> None:
    """Let every user pass the directories above `path` that are ours, as pytest makes them 0700."""
    for above in path.parents:
        if above.is_relative_to(tempfile.gettempdir()) and above != Path(tempfile.gettempdir()):
            above.chmod(above.stat().st_mode | 0o011)


class UserMount(Mount):
    """A mount that an ordinary user made; only that user can look whether it is up."""

    def start(self, *, timeout_s: float = 30.0) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(exist_ok=True)
        for path in (self.base, self.path):
            os.chown(path, SOMEBODY, SOMEBODY)
        options = ["-o", ",".join(self.options)] if self.options else []
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                caiafs_command(self.repo, self.path, "-f", *options),
                env=clean_environment({"HOME": str(self.base), **self.env}),
                cwd=self.base,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=SOMEBODY,
                group=SOMEBODY,
                extra_groups=[],
            )
        self._groups.append(self._process.pid)
        wait_until(self._answers_its_user, f"{self.path} answers", timeout_s=timeout_s)

    def _answers_its_user(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"caiafs ended with {self._process.returncode}:\n{self.log()}")
        mounted = str(self.path) in mounted_paths()
        return mounted and may(SOMEBODY, "cat", self.path / ".caia" / "version")


@contextlib.contextmanager
def a_users_mount(*options: str) -> Iterator[UserMount]:
    """Mount as an ordinary user with fusermount3, where this machine lets us try."""
    require_root()
    helper = Path(require_tool("fusermount3"))
    require(helper.stat().st_mode & 0o4000, "fusermount3 is not setuid root")
    imports = attempt(
        SOMEBODY,
        "env",  # says by its exit code what cannot be run
        sys.executable,
        "-c",
        f"import sys; sys.path[0]={str(PROJECT)!r}; import caiafs.app",
    )
    if imports.returncode:
        # No component is missing: this checkout lies where other users cannot go.
        pytest.skip(f"an ordinary user cannot run {sys.executable}")
    before = FUSE_DEVICE.stat().st_mode & 0o777
    FUSE_DEVICE.chmod(0o666)  # as every distribution has it; restored below
    base = Path(tempfile.mkdtemp(prefix="caiafs-user-"))
    base.chmod(0o711)
    mount = UserMount(base / "caia", options=options)
    try:
        mount.start()
        yield mount
    finally:
        mount.close()
        FUSE_DEVICE.chmod(before)
        shutil.rmtree(base, ignore_errors=True)
    assert mount.unexpected_log_lines() == []
