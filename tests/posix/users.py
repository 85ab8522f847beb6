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


class NamespacedMount:
    """A mount that an ordinary user made in a mount namespace whose /etc/fuse.conf says user_allow_other."""

    def __init__(self, base: Path, option: str) -> None:
        self.path = base / "caia"
        self.path.mkdir(parents=True)
        os.chown(base, SOMEBODY, SOMEBODY)
        os.chown(self.path, SOMEBODY, SOMEBODY)
        conf = base / "fuse.conf"
        conf.write_text("user_allow_other\n")
        self._log = base / "log"
        as_user = f"setpriv --reuid={SOMEBODY} --regid={SOMEBODY} --clear-groups"
        caiafs = caiafs_command(base / "repo", self.path, "-f", "-o", option)
        script = f'mount --bind {conf} /etc/fuse.conf && exec {as_user} "$@"'
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script, "sh", *caiafs],
                env=clean_environment({"HOME": str(base)}),
                cwd=base,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_mounted(self) -> None:
        """Return when the user who mounts gets an answer."""
        wait_until(self._answers, f"{self.path} answers")

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"caiafs ended:\n{self._log.read_text()}")
        return self.attempt(SOMEBODY, "cat", self.path / ".caia" / "version").returncode == 0

    def attempt(self, uid: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command as `uid` where the mount can be seen."""
        enter = ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt"]
        who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return subprocess.run(
            [*enter, *who, *map(str, command)],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def close(self) -> None:
        """Unmount; the namespace and what is mounted in it end with the process."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _require_a_users_fuse() -> None:
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


@contextlib.contextmanager
def _a_users_directory() -> Iterator[Path]:
    before = FUSE_DEVICE.stat().st_mode & 0o777
    FUSE_DEVICE.chmod(0o666)  # as every distribution has it; restored below
    base = Path(tempfile.mkdtemp(prefix="caiafs-user-"))
    base.chmod(0o711)
    try:
        yield base
    finally:
        FUSE_DEVICE.chmod(before)
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def a_users_mount(*options: str) -> Iterator[UserMount]:
    """Mount as an ordinary user with fusermount3, where this machine lets us try."""
    _require_a_users_fuse()
    with _a_users_directory() as base:
        mount = UserMount(base / "caia", options=options)
        try:
            mount.start()
            yield mount
        finally:
            mount.close()
        assert mount.unexpected_log_lines() == []


@contextlib.contextmanager
def a_users_mount_where_others_are_allowed(option: str) -> Iterator[NamespacedMount]:
    """Mount as an ordinary user with -o allow_root or allow_other; nothing of the machine is changed."""
    _require_a_users_fuse()
    for tool in ("unshare", "nsenter", "setpriv"):
        require_tool(tool)
    with _a_users_directory() as base:
        mount = NamespacedMount(base / "home", option)
        try:
            mount.wait_mounted()
            yield mount
        finally:
            mount.close()
