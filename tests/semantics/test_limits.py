"""Proofs of caiafs-semantics(7): damage, limits."""

import errno
import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.mount.test_replaced_repository import put_in_place
from tests.support.mount import Mount
from tests.support.promises import promise
from tests.support.small_disk import a_small_disk, fill
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
        "damaged|publishing waits|cannot be read|is gone|ends at|lost the store|store process"
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
            caia.expect_log("disk of the state directory|cannot grow|checkpoint of|wait in memory")
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
