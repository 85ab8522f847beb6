"""The parts of the commands that need no mount: mountinfo, busy processes, daemon, what is left."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caiafs.cli import preflight, sync
from caiafs.cli.daemon import start
from caiafs.cli.exits import ExitCode
from caiafs.cli.fetch import document_path, read_list
from caiafs.cli.live import find_caiafs
from caiafs.cli.mounts import Mount, parse_mountinfo
from caiafs.cli.resolve import choose
from caiafs.cli.status import describe
from caiafs.cli.umount import Server, read_left, report_left, wait_for_end
from caiafs.cli.users import users_of
from caiafs.core.config import Config
from caiafs.core.errors import ConfigError, StateBusy
from caiafs.core.locations import git_directory, is_repository, log_file, state_directory
from tests.support.waiting import wait_until

MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
57 22 0:50 / /mnt/with\040space rw,nosuid,nodev - fuse.caiafs caiafs:/a\040b rw,user_id=0
58 22 0:51 / /mnt/with\040space rw - fuse.bindfs other rw
"""


def test_mountinfo_is_unescaped_and_keeps_its_order():
    mounts = parse_mountinfo(MOUNTINFO)

    assert mounts[1] == Mount(Path("/mnt/with space"), "fuse.caiafs", "caiafs:/a b")
    assert [mount.is_caiafs for mount in mounts] == [False, True, False]


def test_what_is_no_caiafs_mount_says_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="is not a caiafs mount") as caught:
        find_caiafs(tmp_path)

    assert caught.value.exit_code == ExitCode.MOUNTPOINT


def test_a_process_inside_or_with_an_open_file_is_named(tmp_path: Path):
    inside = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    with (tmp_path / "doc").open("w"):
        try:
            users = {user.pid: str(user) for user in users_of(tmp_path)}
        finally:
            inside.kill()
            inside.wait()

    assert users[inside.pid] == f"sleep ({inside.pid}) is in {tmp_path}"
    assert f"has open {tmp_path / 'doc'}" in users[os.getpid()]


# Python 3.12 warns of the runner's own threads; the command itself forks before it has any.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestDaemon:
    def test_the_parent_hears_what_the_mount_says_when_it_answers(self, tmp_path: Path):
        def serve(on_ready):
            on_ready("git only")
            return 0

        assert start(serve, tmp_path / "log").text == "git only"

    def test_the_parent_returns_while_the_mount_goes_on(self, tmp_path: Path):
        def serve(on_ready):
            on_ready("up")
            wait_until(lambda: (tmp_path / "end").exists(), "the test goes on")
            (tmp_path / "ended").touch()
            return 0

        started = start(serve, tmp_path / "log")

        assert started.code == 0
        assert not (tmp_path / "ended").exists()
        (tmp_path / "end").touch()
        wait_until((tmp_path / "ended").exists, "the mount process ends")

    def test_an_error_before_the_mount_answers_comes_with_its_exit_code(self, tmp_path: Path):
        def serve(on_ready):
            raise StateBusy("another mount holds it")

        started = start(serve, tmp_path / "log")

        assert (started.code, started.text) == (ExitCode.BUSY, "another mount holds it")

    def test_a_bug_names_the_log(self, tmp_path: Path):
        def serve(on_ready):
            raise RuntimeError("oops")

        started = start(serve, tmp_path / "log")

        assert started.code == ExitCode.FAILURE
        assert str(tmp_path / "log") in started.text

    def test_a_death_before_the_mount_answers_is_an_error(self, tmp_path: Path):
        def serve(on_ready):
            os._exit(0)

        started = start(serve, tmp_path / "log")

        assert started.code == ExitCode.FAILURE
        assert "ended before the mount answered" in started.text

    def test_a_mount_that_nobody_waits_for_any_more_is_given_up(self, tmp_path: Path):
        def serve(on_ready):
            (tmp_path / "waiting").touch()
            wait_until(lambda: (tmp_path / "go").exists(), "the test goes on")
            try:
                on_ready("up")
            except ConfigError:
                (tmp_path / "gave up").touch()
                raise
            return 0

        command = os.fork()
        if command == 0:
            start(serve, tmp_path / "log")
            os._exit(0)
        wait_until((tmp_path / "waiting").exists, "the mount process starts")
        os.kill(command, signal.SIGKILL)
        os.waitpid(command, 0)
        (tmp_path / "go").touch()

        wait_until((tmp_path / "gave up").exists, "the mount process hears of it")

    def test_the_mount_process_has_no_terminal_and_no_directory(self, tmp_path: Path):
        def serve(on_ready):
            fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
            on_ready(json.dumps([*fds, os.getcwd(), os.getsid(0) != os.getpid()]))
            return 0

        told = json.loads(start(serve, tmp_path / "log").text)

        assert told == ["/dev/null", "/dev/null", "/dev/null", "/", True]


class TestUmount:
    def test_the_end_of_the_process_ends_the_wait(self):
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        server = Server(process.pid, Path("/"), os.pidfd_open(process.pid))
        assert process.stdin is not None
        process.stdin.close()

        assert wait_for_end(server, 30.0)
        process.wait()

    def test_the_wait_ends_without_the_process(self):
        process = subprocess.Popen(["sleep", "60"])
        began = time.monotonic()

        assert not wait_for_end(Server(process.pid, Path("/"), os.pidfd_open(process.pid)), 0.05)
        assert time.monotonic() - began < 30
        process.kill()
        process.wait()

    def test_what_is_left_is_said_with_exit_code_three(self, tmp_path: Path, capsys):
        left = {"left": {"govc": 12, "git": 0}, "time_ns": 1, "pid": 42}
        (tmp_path / "last_unmount.json").write_text(json.dumps(left))
        mount = Mount(Path("/mnt"), "fuse.caiafs", "caiafs:x")

        assert report_left(mount, Server(42, tmp_path, -1)) == ExitCode.INCOMPLETE
        assert "12 for govc" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "text", ['{"left": {"git": 1}, "pid": 41}', "[]", "", '{"left": 3, "pid": 42}']
    )
    def test_another_process_s_note_is_not_ours(self, tmp_path: Path, text: str):
        (tmp_path / "last_unmount.json").write_text(text)

        assert read_left(Server(42, tmp_path, -1)) == {}


class TestPreflight:
    def config(self, tmp_path: Path, **fields) -> Config:
        return Config(tmp_path / "repo", tmp_path / "mnt", **fields)

    def test_a_missing_mount_point_says_how_to_make_it(self, tmp_path: Path):
        with pytest.raises(ConfigError, match="mkdir -p") as caught:
            preflight.check_mountpoint(self.config(tmp_path))

        assert caught.value.exit_code == ExitCode.MOUNTPOINT

    def test_a_mount_point_that_is_a_file(self, tmp_path: Path):
        (tmp_path / "mnt").touch()

        with pytest.raises(ConfigError, match="is not a directory"):
            preflight.check_mountpoint(self.config(tmp_path))

    def test_a_mount_point_with_files_says_how_to_bring_them_in(self, tmp_path: Path):
        (tmp_path / "mnt").mkdir()
        (tmp_path / "mnt" / "doc").touch()

        with pytest.raises(ConfigError, match=r"cp -a.*-o nonempty"):
            preflight.check_mountpoint(self.config(tmp_path))
        preflight.check_mountpoint(self.config(tmp_path, nonempty=True))

    def test_a_repository_below_the_mount_point(self, tmp_path: Path):
        config = Config(tmp_path / "mnt" / "repo", tmp_path / "mnt")

        with pytest.raises(ConfigError, match=r"repository .* below the mount point"):
            preflight.check_places(config)

    def test_a_state_directory_below_the_mount_point_through_a_link(self, tmp_path: Path):
        (tmp_path / "mnt").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "mnt")
        config = self.config(tmp_path, state_dir=tmp_path / "link" / "state")

        with pytest.raises(ConfigError, match=r"state directory .* below the mount point"):
            preflight.check_places(config)

    def test_a_repository_that_is_a_file(self, tmp_path: Path):
        (tmp_path / "repo").touch()

        with pytest.raises(ConfigError, match="is a file") as caught:
            preflight.check_repository(self.config(tmp_path))

        assert caught.value.exit_code == ExitCode.REPOSITORY

    def test_a_folder_of_documents_is_not_taken_for_a_repository(self, tmp_path: Path):
        (tmp_path / "repo").mkdir()
        preflight.check_repository(self.config(tmp_path))
        (tmp_path / "repo" / "doc").touch()

        with pytest.raises(ConfigError, match="no git repository"):
            preflight.check_repository(self.config(tmp_path))

    @pytest.mark.parametrize("text", ["", "#user_allow_other\n", "mount_max = 3\n"])
    def test_allow_other_needs_the_line_in_fuse_conf(self, tmp_path: Path, text: str):
        (tmp_path / "fuse.conf").write_text(text)

        with pytest.raises(ConfigError, match="user_allow_other"):
            preflight._check_user_allow_other(tmp_path / "fuse.conf")

    def test_with_the_line_allow_other_is_fine(self, tmp_path: Path):
        (tmp_path / "fuse.conf").write_text("# x\n  user_allow_other\n")

        preflight._check_user_allow_other(tmp_path / "fuse.conf")


class TestLocations:
    def test_a_bare_repository_keeps_state_in_itself(self, tmp_path: Path):
        subprocess.run(["git", "init", "-q", "--bare", tmp_path / "repo"], check=True)
        config = Config(tmp_path / "repo", tmp_path / "mnt")

        assert is_repository(config.repository)
        assert state_directory(config) == tmp_path / "repo" / "caiafs"
        assert log_file(config) == tmp_path / "repo" / "caiafs" / "log"

    def test_one_with_a_working_tree_keeps_it_in_dot_git(self, tmp_path: Path):
        subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)

        assert git_directory(tmp_path / "repo") == tmp_path / "repo" / ".git"

    def test_a_linked_working_tree_shares_its_repository_s(self, tmp_path: Path):
        main = tmp_path / "main"
        env = {"GIT_CONFIG_GLOBAL": "/dev/null", "PATH": os.environ["PATH"]}
        identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
        subprocess.run(["git", "init", "-q", main], check=True, env=env)
        for args in (
            ["commit", "-q", "--allow-empty", "-m", "Start"],
            ["worktree", "add", "-q", tmp_path / "linked"],
        ):
            subprocess.run(["git", *identity, *args], cwd=main, check=True, env=env, stderr=-3)

        assert git_directory(tmp_path / "linked") == main / ".git"

    def test_nothing_is_no_repository(self, tmp_path: Path):
        assert not is_repository(tmp_path)
        assert not is_repository(tmp_path / "missing")


class TestFetch:
    @pytest.mark.parametrize(
        ("path", "document"),
        [(b"a/b", b"a/b"), (b"./a//b/", b"a/b"), (b"/mnt/caia/a", b"a"), (b"\xff", b"\xff")],
    )
    def test_paths_are_relative_to_the_root_of_the_mount(self, path: bytes, document: bytes):
        assert document_path(path, Path("/mnt/caia")) == document

    @pytest.mark.parametrize("path", [b"/etc/passwd", b"../x", b".", b"/mnt/caia", b"a\nb"])
    def test_what_is_no_document_below_is_refused(self, path: bytes):
        with pytest.raises(ConfigError):
            document_path(path, Path("/mnt/caia"))

    def test_a_path_through_a_link_to_the_mount_is_below_it(self, tmp_path: Path):
        (tmp_path / "mnt").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "mnt")

        given = os.fsencode(tmp_path / "link" / "d" / "a")

        assert document_path(given, tmp_path / "mnt") == b"d/a"
        conflict = {
            "id": "a-00000000",
            "path": "d/a",
            "path_quoted": "d/a",
            "copy": "d/b",
            "copy_quoted": "d/b",
        }
        assert choose([conflict], given, Mount(tmp_path / "mnt", "fuse.caiafs", "")) is conflict

    def test_a_list_has_one_path_a_line(self, tmp_path: Path):
        (tmp_path / "list").write_bytes(b"a b\n\nc\xff\n")

        assert read_list(str(tmp_path / "list")) == [b"a b", b"c\xff"]


class TestSync:
    def run_sync(self, monkeypatch, error: OSError | None) -> int:
        mount = Mount(Path("/mnt"), "fuse.caiafs", "caiafs:x")
        answers = {
            "stats.json": {"state": {"pending_ops": 2}},
            "health.json": {"backends": {"govc": {"behind": 12, "reasons": ["refused"]}}},
        }
        monkeypatch.setattr(sync, "find_living", lambda _: mount)
        monkeypatch.setattr(sync, "read_json", lambda _, name: answers[name])

        def write(_, command: bytes) -> None:
            assert command == b"sync 5s\n"
            if error is not None:
                raise error

        monkeypatch.setattr(sync, "write_control", write)
        return sync.run(["/mnt", "--timeout", "5s"], {})

    def test_everything_stored_is_zero(self, monkeypatch):
        assert self.run_sync(monkeypatch, None) == ExitCode.OK

    def test_what_is_left_is_three_with_store_and_count(self, monkeypatch, capsys):
        late = OSError(errno.ETIMEDOUT, "timed out")

        assert self.run_sync(monkeypatch, late) == ExitCode.INCOMPLETE
        shown = capsys.readouterr().out
        assert "govc lacks 12 documents (refused)" in shown
        assert "2 changes in no store yet" in shown

    def test_another_error_is_a_failure(self, monkeypatch):
        with pytest.raises(ConfigError, match="Permission denied") as caught:
            self.run_sync(monkeypatch, OSError(errno.EPERM, "Permission denied"))

        assert caught.value.exit_code == ExitCode.FAILURE


def test_status_says_in_words_how_the_mount_is():
    health = {
        "status": "degraded",
        "mode": "hybrid",
        "reasons": ["govc: connection refused"],
        "backends": {
            "govc": {"configured": True, "condition": "failed", "behind": 3, "breaker": "open"},
            "git": {"configured": True, "condition": "ok", "implementation": "git"},
        },
    }
    stats = {
        "mount": {"pid": 7, "uptime_s": 61.2, "repository": "/r", "log": "/r/caiafs/log"},
        "state": {"pending_ops": 2, "oldest_pending_s": 30},
    }

    shown = "\n".join(describe(Path("/mnt"), health, stats))

    assert "/mnt: degraded, hybrid, up 1m1s" in shown
    assert "- govc: connection refused" in shown
    assert "3 behind, breaker open" in shown
    assert "2 changes, the oldest for 30s" in shown


def test_status_counts_one_change_as_one():
    shown = describe(Path("/mnt"), {}, {"state": {"pending_ops": 1, "oldest_pending_s": 30}})

    assert "pending:    1 change, the oldest for 30s" in shown
