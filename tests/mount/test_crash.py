"""kill -9 of either process in the middle of writing loses nothing whose close returned."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.mount import Mount, git
from tests.support.waiting import wait_until
from tests.support.writer import Writer

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def check_history(caia: Mount, writer: Writer) -> None:
    """Check that every version in the history is one that was written, whole."""
    written = {digest for digests in writer.versions.values() for digest in digests}
    for line in caia.git("log", "--format=", "--raw", "--no-abbrev", "--no-renames").splitlines():
        meta, name = line.split("\t")
        blob = meta.split()[3]
        if set(blob) == {"0"} or name.endswith(".new"):
            continue
        content = subprocess.run(
            ["git", "cat-file", "blob", blob], cwd=caia.repo, capture_output=True, check=True
        ).stdout
        assert hashlib.sha256(content).hexdigest() in written, f"{name} {blob} was never saved"


@pytest.mark.parametrize("saves", [3, 40, 150])
def test_every_closed_file_outlives_the_mount_process(caia: Mount, tmp_path: Path, saves: int):
    writer = Writer(caia.path, seed=saves)
    writer.wait_done(saves)
    caia.kill9()
    writer.stop()

    caia.start()

    writer.check(caia.path)
    caia.sync()
    writer.check(caia.clone(tmp_path / "clone"))
    check_history(caia, writer)
    assert caia.git("fsck", "--strict", "--no-dangling") == ""


def test_every_closed_file_outlives_the_store_process(caia: Mount, tmp_path: Path):
    caia.expect_log(r"store process")
    writer = Writer(caia.path)
    for saves in (20, 80, 150):
        writer.wait_done(saves)
        dead = caia.kill9_store()
        wait_until(lambda dead=dead: caia.store_pid != dead, "another store process lives")
    writer.wait_done(200)
    writer.stop()

    caia.sync()

    caia.wait_health("ok")
    writer.check(caia.path)
    writer.check(caia.clone(tmp_path / "clone"))
    check_history(caia, writer)
    assert caia.git("fsck", "--strict", "--no-dangling") == ""


def test_dead_store_process_is_replaced_and_never_a_hang(caia: Mount):
    caia.expect_log(r"store process")

    caia.kill9_store()

    (caia / "doc").write_text("saved while it is away")
    assert (caia / "doc").read_text() == "saved while it is away"
    wait_until(lambda: caia.stats()["store_process"]["restarts"] == 1, "another one is started")
    caia.wait_health("ok")
    caia.sync()
    assert caia.git("cat-file", "blob", "HEAD:doc") == "saved while it is away"


def test_every_closed_file_outlives_both_processes_at_once(caia: Mount, tmp_path: Path):
    writer = Writer(caia.path, seed=7)
    writer.wait_done(60)
    caia.kill9_store()
    caia.kill9()
    writer.stop()

    caia.start()

    writer.check(caia.path)
    caia.sync()
    writer.check(caia.clone(tmp_path / "clone"))


def test_five_crashes_in_a_row_lose_nothing(caia: Mount, tmp_path: Path):
    writers = []
    for round_ in range(5):
        folder = caia / f"round-{round_}"
        folder.mkdir()
        writer = Writer(folder, seed=round_)
        writers.append((folder.name, writer))
        writer.wait_done(15)
        caia.kill9()
        writer.stop()
        caia.start()

    caia.sync()

    clone = caia.clone(tmp_path / "clone")
    for name, writer in writers:
        writer.check(caia / name)
        writer.check(clone / name)


def test_crash_between_truncate_and_write_leaves_the_old_version(caia: Mount):
    (caia / "doc").write_text("the old version")
    handle = os.open(caia / "doc", os.O_WRONLY | os.O_TRUNC)

    caia.kill9()
    caia.start()

    with pytest.raises(OSError):
        os.close(handle)  # of the mount that died
    assert (caia / "doc").read_text() == "the old version"


def test_operation_before_a_crash_is_published_once(caia: Mount):
    for i in range(10):
        (caia / f"doc-{i}").write_text(f"document {i}\n")
    caia.kill9()

    caia.start()
    caia.sync()

    touched = caia.git("log", "--format=", "--name-only").split()
    assert sorted(touched) == sorted(f"doc-{i}" for i in range(10))
    operations = caia.git("log", "--format=%(trailers:key=Caiafs-Operation,valueonly)").split()
    assert len(operations) == len(set(operations))


def test_dead_mount_does_not_look_like_an_empty_directory(caia: Mount):
    (caia / "doc").write_text("text")

    caia.kill9()

    with pytest.raises(OSError) as caught:
        os.listdir(caia.path)
    assert caught.value.errno in {107, 103}  # ENOTCONN, ECONNABORTED


def test_store_process_ends_with_the_mount_process(caia: Mount):
    store = caia.store_pid

    caia.kill9()

    wait_until(lambda: not Path(f"/proc/{store}").exists(), "the store process has ended")


def test_unmount_publishes_what_is_pending(caia: Mount, tmp_path: Path):
    for i in range(100):
        (caia / f"doc-{i}").write_text(f"document {i}\n")

    assert caia.unmount() == 0

    clone = caia.clone(tmp_path / "clone")
    assert len(list(clone.glob("doc-*"))) == 100


def test_lost_state_database_is_rebuilt_from_git(caia: Mount):
    (caia / "folder").mkdir()
    (caia / "folder" / "doc").write_text("text")
    caia.sync()
    caia.unmount()
    for path in (caia.repo / "caiafs").glob("*.db*"):
        path.unlink()

    caia.start()

    assert (caia / "folder" / "doc").read_text() == "text"
    assert git("fsck", "--strict", "--no-dangling", cwd=caia.repo) == ""
