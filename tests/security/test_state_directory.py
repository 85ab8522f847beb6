"""The state directory is ours alone, and nothing that somebody put there has us read, write or wait elsewhere."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from caiafs.cli.exits import ExitCode
from caiafs.core import log as logs
from caiafs.core.errors import StateCorrupt
from caiafs.state.database import make_private
from caiafs.state.guard import spool_file
from tests.support.mount import git, mounted_paths, run_caiafs
from tests.support.requirements import require_root

pytestmark = [pytest.mark.mount, pytest.mark.slow]

FILES = ("state.db", "state.db-wal", "state.db-shm", "lock.mount", "lock.store", "log", "log.1")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Return a new repository with an empty state directory."""
    git("init", "-q", "--bare", tmp_path / "repo", cwd=tmp_path)
    (tmp_path / "repo" / "caiafs").mkdir(mode=0o700)
    return tmp_path / "repo"


@pytest.fixture
def mnt(tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


def refused(repo: Path, mnt: Path, *says: str) -> None:
    """Check that mounting ends soon, with one line that has each of `says`, and mounts nothing."""
    done = run_caiafs(repo, mnt, timeout_s=50)
    assert done.returncode not in {0, ExitCode.USAGE}, done
    assert all(words in done.stderr for words in says), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert str(mnt) not in mounted_paths()


def test_what_a_mount_leaves_behind_is_for_its_owner_only(mount_caia, govc):
    caia = mount_caia(env={"GOVC_SERVICE_URL": govc.url})
    (caia / "small").write_text("text")
    (caia / "large").write_bytes(os.urandom(3_000_000))
    caia.sync()
    (caia / "large").read_bytes()
    caia.unmount()

    state_dir = caia.repo / "caiafs"
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in state_dir.rglob("*")}

    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert {"state.db", "log", "log.store", "last_unmount.json"} <= {path.name for path in found}
    assert {str(p): oct(mode) for p, mode in found.items() if mode & 0o077} == {}


def test_what_others_could_read_is_closed_to_them_at_the_next_mount(mount_caia):
    caia = mount_caia()
    (caia / "doc").write_text("text")
    caia.unmount()
    state_dir = caia.repo / "caiafs"
    state_dir.chmod(0o755)
    (state_dir / "state.db").chmod(0o644)

    caia.start()

    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((state_dir / "state.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", [*FILES, "spool", "cache"])
def test_link_in_the_place_of_a_state_file_is_refused_and_never_followed(
    repo: Path, mnt: Path, tmp_path: Path, name: str
):
    victim = tmp_path / "victim"
    victim.write_text("not to be touched\n")
    victim.chmod(0o644)
    (repo / "caiafs" / name).symlink_to(victim)

    refused(repo, mnt, name, "neither a file nor a directory")

    assert victim.read_text() == "not to be touched\n"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


@pytest.mark.parametrize("name", FILES)
def test_fifo_in_the_place_of_a_state_file_is_refused_and_never_waited_for(
    repo: Path, mnt: Path, name: str
):
    os.mkfifo(repo / "caiafs" / name)

    refused(repo, mnt, name, "neither a file nor a directory")


def test_state_directory_that_is_a_link_is_refused(repo: Path, mnt: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (repo / "caiafs").rmdir()
    (repo / "caiafs").symlink_to(elsewhere)

    refused(repo, mnt, "state directory", "is no directory")

    assert list(elsewhere.iterdir()) == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["", "state.db", "spool"])
def test_state_of_another_user_is_refused(repo: Path, mnt: Path, name: str):
    require_root()
    theirs = repo / "caiafs" / name
    if name == "spool":
        theirs.mkdir()
    elif name:
        theirs.touch()
    os.chown(theirs, 12345, 12345)

    refused(repo, mnt, "belongs to user 12345")


@pytest.mark.parametrize("name", ["../../../victim", "/etc/passwd", "a/b", "", "0" * 15, "log"])
def test_state_database_names_no_spool_file_outside_the_spool(tmp_path: Path, name: str):
    with pytest.raises(StateCorrupt, match="spool file"):
        spool_file(tmp_path, name)


def test_content_that_points_out_of_the_spool_is_never_shown_or_published(
    mount_caia, tmp_path: Path
):
    victim = tmp_path / "victim"
    victim.write_bytes(b"a private key\n" * 10_000)
    caia = mount_caia(options=["commit=fsync", "commit_max_age=1h", "unmount_grace=0s"])
    caia.expect_log(r"spool|left to publish|damaged")
    (caia / "doc").write_bytes(b"an honest content\n" * 10_000)
    caia.kill9()
    state_dir = caia.repo / "caiafs"
    with sqlite3.connect(state_dir / "state.db") as db:
        row = db.execute("SELECT count(*) FROM content WHERE spool NOT NULL").fetchone()
        assert row[0] == 1
        relative = os.path.relpath(victim, state_dir / "spool")
        db.execute("UPDATE content SET spool=? WHERE spool NOT NULL", (relative,))
    db.close()

    try:
        caia.start()
        shown = (caia / "doc").read_bytes()
    except (OSError, AssertionError):
        shown = b""  # refused as a whole, or this one document

    assert b"private" not in shown
    assert victim.exists()
    assert caia.git("log", "--all", "-p", "-S", "private key") == ""


def test_log_is_no_way_to_write_into_another_file(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.touch()
    (tmp_path / "log").symlink_to(victim)
    handler = logs.LateFileHandler(tmp_path / "log")

    handler.emit(logs.logging.makeLogRecord({"msg": "a line"}))

    assert victim.read_text() == ""


def test_making_it_private_is_done_again_without_harm(tmp_path: Path):
    make_private(tmp_path / "state")
    (tmp_path / "state" / "spool" / ("0" * 16)).touch()

    make_private(tmp_path / "state")

    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
