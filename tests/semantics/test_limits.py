"""Proofs of caiafs-semantics(7): damage, limits."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from caiafs.cli.exits import ExitCode
from tests.conftest import MountFactory, govc_environment
from tests.mount.test_backlog import begin_interval
from tests.mount.test_replaced_repository import put_in_place
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount, mounted_paths, run_caiafs
from tests.support.promises import promise
from tests.support.requirements import require_root
from tests.support.small_disk import FULL, a_small_disk, fill
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

SMALL, LARGE = b"second version", os.urandom(300_000)


def state_rows(caia: Mount, sql: str) -> list[tuple[object, ...]]:
    """Ask the state DB of a running mount, as the store process does."""
    uri = f"file:{caia.repo}/caiafs/state.db?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
        return db.execute(sql).fetchall()


def spool_file(caia: Mount) -> Path:
    (file,) = (caia.repo / "caiafs" / "spool").iterdir()
    return file


def overwrite(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.seek(1000)
        opened.write(b"\0" * 4096)


def spoil_row(caia: Mount) -> None:
    with closing(sqlite3.connect(caia.repo / "caiafs" / "state.db", timeout=10)) as db:
        changed = db.execute("UPDATE content SET data=x'00' WHERE data=?", (SMALL,))
        assert changed.rowcount == 1
        db.commit()


def noted(path: Path, value: bytes) -> bool:
    """Set an attribute; return whether there was room for it."""
    try:
        os.setxattr(path, "user.note", value)
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        return False
    return True


DAMAGES = {
    "a spool file that is gone": (LARGE, lambda caia: spool_file(caia).unlink()),
    "a spool file that is short": (LARGE, lambda caia: os.truncate(spool_file(caia), 5000)),
    "other bytes in a spool file": (LARGE, lambda caia: overwrite(spool_file(caia))),
    "other bytes in the state DB": (SMALL, spoil_row),
}


@promise(
    "L1",
    "A saved version that a power cut or a bad disk damaged before a store had it is set aside in damaged/ of the state"
    " directory, which caiafs never empties, and health names the document; reading that document fails with EIO until it is"
    " saved again or removed, the version before it stands in the stores, and everything else goes on.",
)
@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_version_costs_that_version_only(mount_caia: MountFactory, kind: str):
    content, spoil = DAMAGES[kind]
    caia = mount_caia()
    caia.expect_log(
        "damaged|publishing waits|cannot be read|cannot hold|is gone|ends at|lost the store|store process"
    )
    (caia / "doc").write_bytes(b"first version")
    caia.sync()
    caia.kill9()  # so that no memory has what is saved next
    caia.start()
    store = caia.store_pid
    os.kill(store, signal.SIGSTOP)
    (caia / "doc").write_bytes(content)
    (caia / "other").write_bytes(b"other")
    wait_until(
        lambda: state_rows(caia, "SELECT count(*) FROM op WHERE oid NOT NULL") == [(2,)],
        "both versions are logged and hashed",
    )
    caia.kill9()
    os.kill(store, signal.SIGKILL)
    spoil(caia)
    caia.start()

    reasons = wait_until(
        lambda: [r for r in caia.health()["reasons"] if "newest version of doc is damaged" in r],
        "health names the document",
    )
    caia.sync()

    assert "save it again or remove it" in reasons[0]
    with pytest.raises(OSError) as caught:
        (caia / "doc").read_bytes()
    assert caught.value.errno == errno.EIO
    assert (caia / "other").read_bytes() == b"other"
    assert caia.git("cat-file", "blob", "HEAD:doc") == "first version"
    assert caia.git("cat-file", "blob", "HEAD:other") == "other"
    kept = caia.repo / "caiafs" / "damaged"
    (record,) = [json.loads(file.read_text()) for file in kept.glob("*.json")]
    assert record["paths"] == ["doc"]
    assert bool(record["file"]) == (kind != "a spool file that is gone")

    caia.remount()
    assert any("doc is damaged" in reason for reason in caia.health()["reasons"])
    (caia / "doc").write_bytes(b"third version")
    caia.sync()

    caia.wait_health("ok")
    assert caia.git("ls-tree", "--name-only", "HEAD").split() == ["doc", "other"]
    assert caia.git("cat-file", "blob", "HEAD:doc") == "third version"
    assert list(kept.glob("*.json"))


@promise(
    "L2",
    "A change of names or attributes that is refused for want of space (ENOSPC) has not been done; what was accepted before is"
    " kept, and when there is room again all goes on, without a remount.",
)
def test_change_refused_for_want_of_space_was_not_done(mount_caia: MountFactory, tmp_path: Path):
    with a_small_disk(tmp_path / "disk") as disk:
        caia = mount_caia(options=[f"state_dir={disk}/state", "reserve_bytes=0"])
        try:
            caia.expect_log(FULL)
            (caia / "doc").write_text("kept")
            filler = fill(disk, leave=0)
            values = [os.urandom(60_000) for _ in range(200)]
            taken = [value for value in values if noted(caia / "doc", value)]

            assert len(taken) < len(values)
            with pytest.raises(OSError):
                (caia / "directory").mkdir()
            assert os.getxattr(caia / "doc", "user.note") == (taken or [b""])[-1]
            assert os.listdir(caia.path) == ["doc"]
            filler.unlink()
            wait_until(lambda: noted(caia / "doc", b"new"), "there is room again")
            caia.sync()
            caia.remount()
            assert os.getxattr(caia / "doc", "user.note") == b"new"
            assert (caia / "doc").read_text() == "kept"
        finally:
            caia.close()


@promise(
    "L3",
    "Where the repository was restored from a backup that is older than the state directory, or replaced, health says so, the"
    " mount shows what the branch has, and what was saved and not published yet is published.",
)
def test_older_repository_is_shown_as_it_is_and_gets_what_waits(caia: Mount, tmp_path: Path):
    caia.expect_log("does not have commit|not in the repository any more|store process")
    (caia / "doc").write_text("in the backup")
    caia.sync()
    caia.unmount()
    shutil.copytree(caia.repo, tmp_path / "backup")
    caia.start()
    (caia / "doc").write_text("lost")
    (caia / "lost").write_text("lost")
    caia.sync()
    store = caia.store_pid
    os.kill(store, signal.SIGSTOP)
    (caia / "waits").write_text("saved last")
    caia.kill9()
    os.kill(store, signal.SIGKILL)
    put_in_place(caia, tmp_path / "backup")

    caia.start()
    wait_until(
        lambda: any("restored from a backup" in reason for reason in caia.health()["reasons"]),
        "health says so",
    )
    caia.sync()

    expected = {"doc": "in the backup", "waits": "saved last"}
    wait_until(
        lambda: {name: (caia / name).read_text() for name in os.listdir(caia.path)} == expected,
        "the mount shows what the branch has",
    )
    assert caia.git("ls-tree", "--name-only", "HEAD").split() == ["doc", "waits"]


@promise(
    "L4",
    "Where more waits for a store than pending_max_bytes, or the disk of the state directory is nearly full, close(2) of a file"
    " that was written takes up to a second longer, and health says so; looking up, listing and reading are never held up.",
)
def test_closing_takes_longer_where_too_many_bytes_wait_and_health_says_so(
    mount_caia: MountFactory,
):
    caia = mount_caia(options=["commit=interval", "commit_interval=1h", "pending_max_bytes=1MiB"])
    begin_interval(caia)
    (caia / "first").write_bytes(os.urandom(3 << 20))
    began = time.perf_counter()
    (caia / "second").write_text("text")
    took_s = time.perf_counter() - began
    looked_s = []
    for _ in range(5):
        began = time.perf_counter()
        assert (caia / "second").read_text() == "text"
        os.listdir(caia.path)
        looked_s.append(time.perf_counter() - began)

    health = caia.health()

    assert 0.9 < took_s < 30
    assert min(looked_s) < took_s / 3
    assert any(
        "closing a written file takes 1.0 s longer" in reason for reason in health["reasons"]
    )
    assert health["pending_bytes"] > 3 << 20
    caia.sync()
    caia.wait_health("ok")
    assert caia.stats()["state"]["delay_s"] == 0


@promise(
    "L5",
    "Of a document of which more versions wait than pending_max_per_document, several go into one commit, the last of which"
    " stays; of all others every version is a commit still.",
)
def test_very_many_versions_of_one_document_coalesce_and_the_last_one_wins(
    mount_caia: MountFactory,
):
    caia = mount_caia(
        options=["commit=interval", "commit_interval=1h", "pending_max_per_document=20"]
    )
    begin_interval(caia)
    for number in range(200):
        (caia / "busy").write_text(f"version {number}\n")
    for number in range(3):
        (caia / "calm").write_text(f"version {number}\n")

    caia.sync()

    assert caia.git("cat-file", "blob", "HEAD:busy") == "version 199\n"
    assert len(caia.commits()) < 10
    history = caia.git("log", "--format=%H", "--", "calm").split()
    texts = [caia.git("cat-file", "blob", f"{commit}:calm") for commit in reversed(history)]
    assert texts == [f"version {number}\n" for number in range(3)]
    assert caia.git("ls-tree", "--name-only", "HEAD").split() == ["begun", "busy", "calm"]
    caia.wait_health("ok")


@promise(
    "L6",
    "A document that is larger than govc_max_document is in git only, which health and caiafs sync name as information; with a"
    " higher limit govc gets it at the next mount.",
)
def test_document_above_the_limit_of_govc_is_in_git_only_until_the_limit_changes(
    mount_caia: MountFactory, govc: GovcServer
):
    options = ["govc_max_document=1MiB"]
    caia = mount_caia(env=govc_environment(govc), options=options)
    caia.expect_log("govc will not hold")
    caia.wait_health("ok")
    content = os.urandom(2 << 20)
    (caia / "large").write_bytes(content)
    (caia / "small").write_text("text")

    done = run_caiafs("sync", caia.path, "--timeout", "30s")

    assert done.returncode == ExitCode.OK, done
    assert "large is not in govc: larger than govc_max_document" in done.stdout
    health = caia.wait_health("ok")
    assert health["information"] == [
        f"large is not in govc: larger than govc_max_document ({(2 << 20)} bytes)"
    ]
    blob = subprocess.run(
        ["git", "cat-file", "blob", "HEAD:large"], cwd=caia.repo, capture_output=True, check=True
    )
    assert blob.stdout == content

    caia.unmount()
    caia.options = ("govc_max_document=4MiB",)
    caia.start()
    wait_until(
        lambda: (
            caia.health()["backends"]["govc"]["condition"] == "ok"
            and caia.health()["information"] == []
        ),
        "govc has it, too",
    )
    caia.sync()


def be_a_link(state_dir: Path, elsewhere: Path) -> None:
    shutil.move(state_dir, elsewhere / "state")
    state_dir.symlink_to(elsewhere / "state")


def be_anothers(state_dir: Path, _elsewhere: Path) -> None:
    require_root()
    os.chown(state_dir, 12345, 12345)


def hold_a_link(state_dir: Path, elsewhere: Path) -> None:
    (state_dir / "log").unlink()
    (state_dir / "log").symlink_to(elsewhere / "victim")


def hold_a_fifo(state_dir: Path, _elsewhere: Path) -> None:
    (state_dir / "log").unlink()
    os.mkfifo(state_dir / "log")


def hold_anothers(state_dir: Path, _elsewhere: Path) -> None:
    require_root()
    os.chown(state_dir / "log", 12345, 12345)


@promise(
    "L7",
    "A state directory that is a link or another user's, or that holds a link, a FIFO or another user's file, is refused: nothing is"
    " mounted, no link is followed, and the message names what is in the way.",
)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (be_a_link, "caiafs"),
        (be_anothers, "caiafs"),
        (hold_a_link, "caiafs/log"),
        (hold_a_fifo, "caiafs/log"),
        (hold_anothers, "caiafs/log"),
    ],
)
def test_state_directory_that_may_be_a_trap_is_refused(
    caia: Mount, tmp_path: Path, change: Callable[[Path, Path], None], named: str
):
    caia.unmount()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "victim").write_text("not to be touched")
    change(caia.repo / "caiafs", elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}

    done = run_caiafs(caia.repo, caia.path)

    assert done.returncode == ExitCode.REPOSITORY, done
    assert str(caia.repo / named) in done.stderr
    assert str(caia.path) not in mounted_paths()
    assert {p: p.read_bytes() for p in elsewhere.rglob("*") if p.is_file()} == before
    if change is be_anothers or change is hold_anothers:
        os.chown(caia.repo / named, os.geteuid(), os.getegid())
