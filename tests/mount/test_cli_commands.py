"""The commands on a real mount: in the background, status, sync, umount, and what they say."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from caiafs.cli.exits import ExitCode
from caiafs.cli.upkeep import mount_of
from tests.support.mount import caiafs_command, clean_environment, mounted_paths, run_caiafs
from tests.support.requirements import require_root, require_tool
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


class Background:
    """A mount made by the command as a user gives it: `caiafs REPO MNT`."""

    def __init__(self, base: Path) -> None:
        self.repo = base / "repo"
        self.path = base / "mnt"
        self.path.mkdir()

    def start(self, *args: str, **kwargs) -> subprocess.CompletedProcess[str]:
        return run_caiafs(self.repo, self.path, *args, **kwargs)

    def umount(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run_caiafs("umount", self.path, *args)

    @property
    def is_mounted(self) -> bool:
        return str(self.path) in mounted_paths()

    @property
    def pid(self) -> int:
        stats = json.loads((self.path / ".caia" / "stats.json").read_bytes())
        return int(stats["mount"]["pid"])

    def head(self, path: str) -> str:
        shown = subprocess.run(
            ["git", "-C", self.repo, "cat-file", "blob", f"HEAD:{path}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return shown.stdout


def is_alive(pid: int) -> bool:
    """Whether process `pid` runs; one that ended and waits for init to take notice does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def caia(tmp_path: Path) -> Iterator[Background]:
    """Return a place to mount; whatever is mounted there at the end is detached, its process ended."""
    caia = Background(tmp_path)
    yield caia
    if caia.is_mounted:
        pid = caia.pid
        subprocess.run(["fusermount3", "-uz", caia.path], check=True)
        wait_until(lambda: not is_alive(pid), "the mount process ended", timeout_s=40)


def test_the_command_returns_when_the_mount_answers_and_says_what_is_mounted(caia: Background):
    started = caia.start()

    assert started.returncode == ExitCode.OK, started.stderr
    assert caia.is_mounted
    assert started.stdout.splitlines() == [
        f"{caia.path}: documents of {caia.repo} (new)",
        "stores: git only",
        f"log: {caia.repo}/caiafs/log",
    ]


def test_a_second_mount_finds_the_repository_existing(caia: Background):
    caia.start()
    caia.umount()

    assert f"{caia.repo} (existing)" in caia.start().stdout


def test_the_default_repository_is_below_the_caller_s_directory(caia: Background, tmp_path: Path):
    started = run_caiafs(caia.path, cwd=tmp_path)

    assert f"documents of {tmp_path}/data/repo (new)" in started.stdout
    assert (tmp_path / "data" / "repo" / "HEAD").is_file()


def test_the_mount_process_holds_neither_directory_nor_descriptors_of_its_caller(
    caia: Background, tmp_path: Path
):
    started = subprocess.run(
        caiafs_command(caia.repo, caia.path),
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,  # ends only when nobody holds the pipes any more
        timeout=60,
        check=True,
    )

    assert started.stdout
    assert Path(f"/proc/{caia.pid}/cwd").readlink() == Path("/")


def test_a_mount_that_fails_to_start_says_why_and_leaves_nothing(caia: Background, tmp_path: Path):
    caia.start()
    other = tmp_path / "other"
    other.mkdir()

    refused = run_caiafs(caia.repo, other, "-o", "unmount_grace=0s")

    assert refused.returncode == ExitCode.BUSY
    assert len(refused.stderr.splitlines()) == 1
    assert str(other) not in mounted_paths()


def test_umount_returns_when_the_process_has_ended_and_everything_is_stored(caia: Background):
    caia.start()
    (caia.path / "doc").write_text("text")
    pid = caia.pid

    done = caia.umount()

    assert done.returncode == ExitCode.OK, done
    assert "every store has everything" in done.stdout
    assert not is_alive(pid)
    assert not caia.is_mounted
    assert caia.head("doc") == "text"


def test_umount_of_a_busy_mount_names_the_process_and_leaves_it_mounted(caia: Background):
    caia.start()
    with (caia.path / "doc").open("w"):
        done = caia.umount()

    assert done.returncode == ExitCode.BUSY
    assert f"({os.getpid()}) has open {caia.path}/doc" in done.stderr
    assert caia.is_mounted


def test_umount_of_a_dead_mount_detaches_it(caia: Background):
    caia.start()
    pid = caia.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the mount process is gone")

    done = caia.umount()

    assert done.returncode == ExitCode.OK, done
    assert "dead" in done.stdout
    assert not caia.is_mounted


def test_umount_does_not_hang_on_a_process_that_does_not_answer(caia: Background):
    caia.start()
    pid = caia.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        done = run_caiafs("umount", caia.path, timeout_s=50)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert done.returncode == ExitCode.FAILURE
    assert "does not answer" in done.stderr
    wait_until(lambda: not is_alive(pid), "the mount process ended", timeout_s=40)


def test_commands_tell_that_a_mount_is_dead_and_what_to_do(caia: Background):
    caia.start()
    pid = caia.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the mount process is gone")

    for command in (["sync"], ["fetch", "doc"], ["adopt"], ["status"], ["resolve", "--list"]):
        done = run_caiafs(command[0], caia.path, *command[1:])

        assert done.returncode == ExitCode.MOUNTPOINT, done
        assert "is dead; caiafs umount" in done.stderr
    assert caia.umount().returncode == ExitCode.OK


def test_commands_do_not_hang_on_a_process_that_does_not_answer(caia: Background):
    caia.start()
    pid = caia.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        for command in (["fetch", "doc"], ["adopt"]):
            done = run_caiafs(command[0], caia.path, *command[1:], timeout_s=40)

            assert done.returncode == ExitCode.FAILURE
            assert "does not answer" in done.stderr
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_mount_and_publishes_first(caia: Background, number: signal.Signals):
    caia.start()
    (caia.path / "doc").write_text("text")
    pid = caia.pid

    os.kill(pid, number)

    wait_until(lambda: not is_alive(pid), "the mount process ended", timeout_s=40)
    assert not caia.is_mounted
    assert caia.head("doc") == "text"


def test_sync_ends_with_zero_when_git_has_everything(caia: Background):
    caia.start()
    (caia.path / "doc").write_text("text")

    done = run_caiafs("sync", caia.path)

    assert done.returncode == ExitCode.OK, done
    assert caia.head("doc") == "text"


def test_sync_without_govc_s_answer_ends_with_three_and_names_it(caia: Background):
    # Port 9 of this machine: nobody listens, and connections are refused at once.
    caia.start(env={"GOVC_SERVICE_URL": "http://127.0.0.1:9"})
    (caia.path / "doc").write_text("text")

    done = run_caiafs("sync", caia.path, "--timeout", "1s")

    assert done.returncode == ExitCode.INCOMPLETE, done
    assert "govc" in done.stdout


def test_status_says_how_the_mount_is(caia: Background):
    caia.start()
    run_caiafs("sync", caia.path)

    done = run_caiafs("status", caia.path)

    assert done.returncode == ExitCode.OK
    assert f"{caia.path}: ok, git only" in done.stdout
    assert f"repository: {caia.repo}" in done.stdout
    assert "pending:    nothing" in done.stdout


def test_status_as_json_holds_health_and_statistics(caia: Background):
    caia.start()

    told = json.loads(run_caiafs("status", caia.path, "--json").stdout)

    assert told["health"]["mode"] == "git only"
    assert told["stats"]["mount"]["repository"] == str(caia.repo)


def test_commands_find_a_mount_by_a_link_and_by_a_relative_path(caia: Background, tmp_path: Path):
    caia.start()
    (tmp_path / "link").symlink_to(caia.path)

    assert run_caiafs("status", tmp_path / "link").returncode == ExitCode.OK
    assert run_caiafs("status", "mnt", cwd=tmp_path).returncode == ExitCode.OK


@pytest.mark.parametrize("name", ["K\u00f6ln", "a b,c", "back\\slash", "no\udcffutf8"])
def test_a_repository_of_any_name_is_mounted(caia: Background, name: str):
    caia.repo = caia.repo.with_name(name)

    started = caia.start()

    assert (started.returncode, started.stderr) == (ExitCode.OK, "")
    (caia.path / "doc").write_text("saved")
    assert run_caiafs("sync", caia.path).returncode == ExitCode.OK
    assert caia.head("doc") == "saved"
    mount = mount_of(caia.repo)
    assert mount is not None
    assert mount.point == caia.path


@pytest.mark.parametrize("command", ["umount", "status", "sync"])
def test_a_directory_that_is_no_mount_is_refused(caia: Background, command: str):
    done = run_caiafs(command, caia.path)

    assert done.returncode == ExitCode.MOUNTPOINT
    assert "is not a caiafs mount" in done.stderr


def test_fetch_without_govc_fails_with_one_line(caia: Background):
    caia.start()

    done = run_caiafs("fetch", caia.path, "doc")

    assert done.returncode == ExitCode.FAILURE
    assert len(done.stderr.splitlines()) == 1
    assert "no govc" in done.stderr


def test_adopt_with_nothing_to_merge_says_so(caia: Background):
    caia.start()

    done = run_caiafs("adopt", caia.path)

    assert done.returncode == ExitCode.FAILURE
    assert "neither a govc nor a git remote" in done.stderr


def test_a_mount_point_named_like_a_command_needs_mount(caia: Background, tmp_path: Path):
    (tmp_path / "status").mkdir()

    run_caiafs("mount", caia.repo, "status", cwd=tmp_path)

    assert str(tmp_path / "status") in mounted_paths()
    assert run_caiafs("umount", tmp_path / "status").returncode == ExitCode.OK


def test_options_of_fstab_arrive_through_the_helper_of_mount_8(caia: Background, tmp_path: Path):
    require_root()
    require_tool("mount.fuse3")
    program = tmp_path / "bin" / "caiafs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m caiafs.cli.main "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    options = "ro,nosuid,nodev,noatime,_netdev,user,x-systemd.automount,commit=close"

    subprocess.run(
        ["mount.fuse3", f"caiafs#{caia.repo}", caia.path, "-o", options],
        env=clean_environment({"PATH": path}),
        check=True,
        timeout=60,
    )

    config = json.loads((caia.path / ".caia" / "config.json").read_bytes())
    assert config["read_only"] == {"value": "true", "origin": "-o ro"}
    assert config["commit"]["value"] == "close"
    assert config["suid"]["value"] == "false"
