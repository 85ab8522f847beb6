"""A real caiafs mount in a process of its own, for tests and for scripts/bench.

Each `Mount` has a directory to itself (repository, mount point, log), so that many run side by side. Leaving it
detaches the mount and ends its own processes, whatever happened before. Used from one thread.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.waiting import PATIENCE_S, wait_until

PROJECT = Path(__file__).resolve().parents[2]

OUR_ENVIRONMENT = re.compile(
    r"^(CAIA|GOVC_|GIT_|PRIMARY_BACKEND$|PORT$|TEMPORAL_HOST$|COV_CORE_|COVERAGE_PROCESS_START$)"
)

BAD_LINE = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^Traceback |Exception ignored|never awaited")

LEFT = "unmounted with documents left to publish"

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without any setting of caiafs or git, with `extra` on top."""
    env = {k: v for k, v in os.environ.items() if not OUR_ENVIRONMENT.match(k)}
    env["GIT_CONFIG_GLOBAL"] = "/dev/null"
    env["PYTHONPATH"] = str(PROJECT)
    env.update(extra or {})
    return env


def caiafs_command(*args: str | Path) -> list[str]:
    """Return the command line of `caiafs ARGS`."""
    return [sys.executable, "-m", "caiafs.cli.main", *map(str, args)]


def run_caiafs(
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `caiafs ARGS` to its end and return what it said."""
    return subprocess.run(
        caiafs_command(*args),
        env=clean_environment(env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def mounted_paths() -> list[str]:
    """Return the mount points of this system; reads /proc only, so that a hung mount does not hang us."""
    lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    return [line.split(" ")[1].encode().decode("unicode_escape") for line in lines]


def children(pid: int) -> list[int]:
    """Return the living children of process `pid`."""
    found = []
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            fields = stat_file.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat_file.parent.name))
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that process `pid` has taken: what else runs adds nothing to it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Return the resident memory of process `pid`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[0]) * 1024


class Mount:
    """A caiafs mount: `start`, use `path`, `unmount` or `kill9`, `start` again; closed by `with`.

    Attributes:
        repo: the repository.
        path: the mount point.
        log_path: standard error of all its starts, in order.
    """

    def __init__(
        self,
        base: Path,
        *,
        repo: Path | None = None,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.base = base
        self.repo = repo if repo is not None else base / "repo"
        self.path = base / "mnt"
        self.log_path = base / "log"
        self.options = tuple(options)
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []
        self._allowed: list[re.Pattern[str]] = []

    def __enter__(self) -> "Mount":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    # --- life

    def start(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Mount and return when the mount answers."""
        self.base.mkdir(parents=True, exist_ok=True)
        if str(self.path) not in mounted_paths():
            self.path.mkdir(exist_ok=True)
        options = ["-o", ",".join(self.options)] if self.options else []
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                caiafs_command(self.repo, self.path, "-f", *options),
                env=clean_environment(self.env),
                cwd=self.base,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._groups.append(self._process.pid)
        wait_until(self._is_up, f"{self.path} answers", timeout_s=timeout_s)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"caiafs ended with {self._process.returncode}:\n{self.log()}")
        if str(self.path) not in mounted_paths():
            return False
        with contextlib.suppress(OSError):  # a dead mount that is about to be replaced
            return bool((self.path / ".caia" / "version").read_bytes())
        return False

    @property
    def pid(self) -> int:
        """Return the mount process."""
        assert self._process is not None
        return self._process.pid

    @property
    def store_pid(self) -> int:
        """Return the store process, waiting for one where it is just being restarted."""
        return wait_until(lambda: children(self.pid), "the store process lives")[0]

    def is_running(self) -> bool:
        """Whether the mount process lives."""
        return self._process is not None and self._process.poll() is None

    def wait_ended(self, *, timeout_s: float = END_TIMEOUT_S) -> int:
        """Return the exit code of the mount process, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def unmount(self, *, timeout_s: float = END_TIMEOUT_S) -> int:
        """Unmount as a user does and return the exit code of the mount process.

        Whoever looks at all mounts of the machine, as df(1) of another test does, makes each busy for a moment.
        """
        told = wait_until(self._try_unmount, f"{self.path} can be unmounted", timeout_s=10)
        assert told == ["unmounted"], told
        return self.wait_ended(timeout_s=timeout_s)

    def _try_unmount(self) -> list[str]:
        """Return what came of it, nothing where the mount is busy."""
        done = subprocess.run(
            ["fusermount3", "-u", self.path], check=False, capture_output=True, text=True
        )
        if done.returncode == 0:
            return ["unmounted"]
        return [] if "busy" in done.stderr else [done.stderr]

    def remount(self) -> None:
        """Unmount and mount again."""
        self.unmount()
        self.start()

    def kill9(self) -> None:
        """End the mount process as a crash does."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_ended()

    def kill9_store(self) -> int:
        """End the store process as a crash does; return its id."""
        pid = self.store_pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def close(self) -> None:
        """Detach the mount and end what this object started. Safe to call twice.

        What it does not publish then is no warning: nobody waits for it.
        """
        with contextlib.suppress(OSError):  # a disk that lost its power has no log
            if not any(LEFT in line for line in self.unexpected_log_lines()):
                self.expect_log(LEFT)
        if str(self.path) in mounted_paths():
            subprocess.run(["fusermount3", "-uz", self.path], check=False, capture_output=True)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)
        for group in self._groups:  # each is a session that we started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(END_TIMEOUT_S)
        self._groups.clear()

    # --- what it says

    def virtual(self, name: str) -> bytes:
        """Return the content of `.caia/NAME`."""
        return (self.path / ".caia" / name).read_bytes()

    def stats(self) -> dict[str, Any]:
        """Return `.caia/stats.json`."""
        return dict(json.loads(self.virtual("stats.json")))

    def health(self) -> dict[str, Any]:
        """Return `.caia/health.json`."""
        return dict(json.loads(self.virtual("health.json")))

    def wait_health(self, status: str, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Return health.json once its status is `status`."""

        def reached() -> dict[str, Any] | None:
            health = self.health()
            return health if health["status"] == status else None

        try:
            return wait_until(reached, f"health says {status}", timeout_s=timeout_s) or {}
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it says {self.health()}") from exc

    def sync(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Return when every configured store has everything."""
        control = os.open(self.path / ".caia" / "control", os.O_WRONLY)
        try:
            os.write(control, f"sync {timeout_s:g}s\n".encode())
        except OSError as exc:
            raise AssertionError(f"sync: {exc}; health: {self.health()}\n{self.log()}") from exc
        finally:
            os.close(control)

    def log(self) -> str:
        """Return the log so far: standard error, then the log files of the state directory."""
        texts = [self.log_path] if self.log_path.exists() else []
        texts += [p for p in self._log_files() if p.is_file()]
        return "".join(p.read_text(errors="replace") for p in texts)

    def _log_files(self) -> Iterator[Path]:
        for git_dir in (self.repo, self.repo / ".git"):
            yield git_dir / "caiafs" / "log"
            yield git_dir / "caiafs" / "log.store"

    def expect_log(self, pattern: str) -> None:
        """Let warnings that match `pattern` pass; the test makes them happen."""
        self._allowed.append(re.compile(pattern))

    def unexpected_log_lines(self) -> list[str]:
        """Return the warnings, errors and tracebacks that no test asked for."""
        bad = [line for line in self.log().splitlines() if BAD_LINE.search(line)]
        return [line for line in bad if not any(p.search(line) for p in self._allowed)]

    # --- the repository, with ordinary git

    def git(self, *args: str | Path, cwd: Path | None = None) -> str:
        """Run git on the repository (or in `cwd`) and return its output."""
        return git(*args, cwd=cwd or self.repo)

    def commits(self) -> list[str]:
        """Return the commits of the branch, oldest first."""
        heads = self.git("for-each-ref", "refs/heads", "--format=%(refname)").split()
        return self.git("rev-list", "--reverse", "HEAD").split() if heads else []

    def clone(self, target: Path) -> Path:
        """Clone the repository as anybody would and return the work tree."""
        git("clone", "-q", self.repo, target, cwd=self.base)
        return target


def git(*args: str | Path, cwd: Path, stdin: bytes = b"") -> str:
    """Run `git ARGS` in `cwd` and return its output; bytes that are not UTF-8 become surrogates."""
    done = subprocess.run(
        ["git", *map(str, args)],
        cwd=cwd,
        env=clean_environment(AUTHOR),
        input=stdin,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"git {args} ended with {done.returncode}: {done.stderr!r}")
    return done.stdout.decode("utf-8", "surrogateescape")


AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada Tester",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada Tester",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}
