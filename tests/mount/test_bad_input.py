"""What cannot be mounted gives one clear line and the exit code of caiafs(1)."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from caiafs.cli.exits import ExitCode
from tests.support.mount import (
    Mount,
    caiafs_command,
    clean_environment,
    git,
    mounted_paths,
    run_caiafs,
)
from tests.support.requirements import require, require_root, require_tool

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture
def mnt(tmp_path: Path) -> Path:
    """Return a good mount point."""
    path = tmp_path / "mnt"
    path.mkdir()
    return path


def refused(*args: str | Path, code: ExitCode, says: Sequence[str], **kwargs) -> str:
    """Check that `caiafs ARGS` ends with `code` and one line that has each of `says`."""
    done = run_caiafs(*args, **kwargs)
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == code, done
    assert len(lines) == 1, done.stderr
    assert all(text in lines[0] for text in says), lines[0]
    assert not [path for path in mounted_paths() if path in map(str, args)]
    return lines[0]


def test_missing_mount_point(tmp_path: Path):
    missing = tmp_path / "missing"

    refused(tmp_path / "r", missing, code=ExitCode.MOUNTPOINT, says=[str(missing), "not exist"])


def test_mount_point_with_files_tells_how_to_bring_them_in(tmp_path: Path, mnt: Path):
    (mnt / "doc").touch()

    refused(tmp_path / "r", mnt, code=ExitCode.MOUNTPOINT, says=["not empty", "cp -a", "nonempty"])


def test_mount_point_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").touch()

    refused(tmp_path / "r", tmp_path / "file", code=ExitCode.MOUNTPOINT, says=["not a directory"])


def test_mount_point_already_mounted(caia: Mount, tmp_path: Path):
    done = run_caiafs(tmp_path / "other", caia.path)

    assert done.returncode == ExitCode.MOUNTPOINT
    assert "already mounted" in done.stderr
    caia.wait_health("ok")


def test_repository_already_mounted_elsewhere(caia: Mount, mnt: Path):
    says = [f"mounted on {caia.path}", "caiafs umount"]

    refused(caia.repo, mnt, "-o", "unmount_grace=0s", code=ExitCode.BUSY, says=says)


def test_repository_that_is_a_file(tmp_path: Path, mnt: Path):
    (tmp_path / "file").touch()

    refused(tmp_path / "file", mnt, code=ExitCode.REPOSITORY, says=["is a file"])


def test_repository_directory_with_other_files(tmp_path: Path, mnt: Path):
    (tmp_path / "stuff").mkdir()
    (tmp_path / "stuff" / "photo.jpg").touch()

    refused(tmp_path / "stuff", mnt, code=ExitCode.REPOSITORY, says=["no git repository"])


def test_repository_of_somebody_else(tmp_path: Path, mnt: Path):
    require_root()
    git("init", "-q", "--bare", tmp_path / "theirs", cwd=tmp_path)
    for path in [tmp_path / "theirs", *(tmp_path / "theirs").rglob("*")]:
        os.chown(path, 12345, 12345)

    refused(tmp_path / "theirs", mnt, code=ExitCode.REPOSITORY, says=["belongs to"])


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "nonsense"])
def test_bad_url_names_itself_its_origin_and_what_is_allowed(tmp_path: Path, mnt: Path, url: str):
    refused(
        tmp_path / "r",
        mnt,
        env={"GOVC_SERVICE_URL": url},
        code=ExitCode.USAGE,
        says=["GOVC_SERVICE_URL", url, "http"],
    )


def test_unknown_option_suggests_the_known_one(tmp_path: Path, mnt: Path):
    refused(tmp_path / "r", mnt, "-o", "comit=close", code=ExitCode.USAGE, says=["comit", "commit"])


@pytest.mark.parametrize("option", ["commit=sometimes", "poll_interval=soon", "umask=9"])
def test_wrong_value_names_itself_and_what_is_allowed(tmp_path: Path, mnt: Path, option: str):
    name, _, value = option.partition("=")

    refused(tmp_path / "r", mnt, "-o", option, code=ExitCode.USAGE, says=[name, value, "allowed"])


def test_repository_below_the_mount_point(mnt: Path):
    refused(mnt / "repo", mnt, code=ExitCode.MOUNTPOINT, says=["below the mount point"])


def test_state_directory_below_the_mount_point(tmp_path: Path, mnt: Path):
    refused(
        tmp_path / "r",
        mnt,
        f"--state-dir={mnt / 'state'}",
        code=ExitCode.MOUNTPOINT,
        says=["state directory", "below the mount point"],
    )


def test_repository_whose_checked_out_branch_would_move(tmp_path: Path, mnt: Path):
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    (work / "doc").write_text("text")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)

    refused(work, mnt, code=ExitCode.REPOSITORY, says=["branch=", "bare"])


def test_no_fuse_device(tmp_path: Path, mnt: Path):
    require_root()
    require_tool("unshare")
    without_devices = 'mount -t tmpfs none /dev && exec "$@"'
    in_namespace = ["unshare", "--mount", "sh", "-c", without_devices, "sh"]
    done = subprocess.run(
        [*in_namespace, *caiafs_command(tmp_path / "r", mnt)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    require("unshare" not in done.stderr.partition(":")[0], f"no mount namespace: {done.stderr}")

    assert done.returncode == ExitCode.NO_FUSE
    assert len(done.stderr.splitlines()) == 1
    assert "/dev/fuse is missing" in done.stderr


def test_nothing_is_left_behind_by_a_refusal(tmp_path: Path, mnt: Path):
    (mnt / "doc").touch()

    run_caiafs(tmp_path / "r", mnt)

    assert not (tmp_path / "r").exists()
    assert sorted(os.listdir(tmp_path)) == ["mnt"]


def test_dead_mount_of_our_own_is_replaced(caia: Mount):
    (caia / "doc").write_text("text")
    caia.sync()

    caia.kill9()
    caia.start()

    assert (caia / "doc").read_text() == "text"


def test_nonempty_mount_point_mounts_where_it_is_asked_for(mount_caia):
    caia = mount_caia(options=["nonempty"], start=False)
    caia.path.mkdir(parents=True)
    (caia / "hidden").write_text("covered")

    caia.start()
    assert os.listdir(caia.path) == []
    caia.unmount()

    assert (caia / "hidden").read_text() == "covered"
    shutil.rmtree(caia.path)
