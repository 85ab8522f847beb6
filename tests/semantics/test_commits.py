"""Proofs of caiafs-semantics(7): what becomes one commit, what it says, and which document is which."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount, git
from tests.support.promises import promise
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

MESSAGE, SOURCE, ID = "user.caia.message", "user.caia.source", "user.caia.id"


def control(caia: Mount, command: str) -> None:
    (caia / ".caia" / "control").write_text(command)


def commits(caia: Mount) -> list[tuple[str, list[str]]]:
    """Return subject and changed names of each commit, oldest first."""
    found = []
    for commit in caia.commits():
        subject = caia.git("log", "-1", "--format=%s", commit).strip()
        names = caia.git("diff-tree", "--root", "--no-commit-id", "--name-only", "-r", commit)
        found.append((subject, names.split()))
    return found


def identity(path: Path) -> bytes:
    return os.getxattr(path, ID)


@promise(
    "C1",
    'What is saved between writing "begin" and "commit MESSAGE" to .caia/control is one commit'
    " with that message, by the user who wrote it, with the last version of each document; the"
    " write returns when a store has acknowledged it.",
)
def test_transaction_is_one_commit_with_its_message(caia: Mount):
    control(caia, "begin\n")
    for name in "abc":
        (caia / name).write_text("first")
        (caia / name).write_text(f"last {name}")
    control(caia, "commit Bring in three\n")

    assert commits(caia) == [("Bring in three", ["a", "b", "c"])]
    assert caia.git("cat-file", "blob", "HEAD:b") == "last b"
    users = caia.git("log", "--format=%(trailers:key=Caiafs-User,valueonly)").split()
    assert users == caia.git("log", "--format=%ae").strip().split("@")[:1]


@promise(
    "C2",
    "Until then nothing of it is published, health says so, close(2) does not wait for a store,"
    " and what it promises is kept as ever.",
)
def test_open_transaction_publishes_nothing_and_keeps_what_close_promises(
    mount_caia: MountFactory,
):
    caia = mount_caia(options=["commit=close"])
    control(caia, "begin\n")
    (caia / "doc").write_text("text")

    assert caia.commits() == []
    assert any("transaction" in reason for reason in caia.health()["reasons"])
    caia.kill9()
    caia.start()
    assert (caia / "doc").read_text() == "text"


@promise(
    "C3",
    'Nothing is ever undone: "end", an unmount, a death of the mount process, or'
    " transaction_max_age publish what a transaction held as if there had been none, each save a"
    " commit.",
)
@pytest.mark.parametrize("how", ["end", "unmount", "death", "age"])
def test_transaction_that_is_not_committed_is_published_save_by_save(
    mount_caia: MountFactory, how: str
):
    caia = mount_caia(options=["transaction_max_age=1s"] if how == "age" else [])
    caia.expect_log("transaction")
    control(caia, "begin\n")
    (caia / "doc").write_text("one")
    (caia / "doc").write_text("two")

    if how == "end":
        control(caia, "end\n")
    elif how == "unmount":
        caia.remount()
    elif how == "death":
        caia.kill9()
        caia.start()

    wait_until(lambda: len(caia.commits()) == 2, "each save is a commit")
    assert (caia / "doc").read_text() == "two"


@promise(
    "C4",
    "A transaction that was committed is one commit, even where both processes die before a store"
    " has it.",
)
def test_committed_transaction_is_one_commit_after_a_death(
    mount_caia: MountFactory, govc: GovcServer
):
    environment = {**govc_environment(govc), "CAIAFS_ENABLE_FALLBACK": "false"}
    caia = mount_caia(env=environment)
    caia.expect_log("govc|store process|publishing waits")
    caia.wait_health("ok")
    govc.stop()
    control(caia, "begin\n")
    for name in "ab":
        (caia / name).write_text("first")
        (caia / name).write_text("last")
    child = os.fork()
    if not child:
        try:
            control(caia, "commit Both\n")
        finally:
            os._exit(0)
    wait_until(lambda: "transaction" not in str(caia.health()["reasons"]), "it is committed")

    caia.kill9_store()
    caia.kill9()
    os.waitpid(child, 0)
    govc.start()
    caia.start()

    caia.sync()
    assert commits(caia) == [("Both", ["a", "b"])]


@promise(
    "C5",
    "The extended attributes user.caia.message and user.caia.source of a document are the message"
    " of its next commit and its trailer Caiafs-Source; they outlive a remount, and can be read"
    " and withdrawn until then.",
)
def test_message_and_source_are_those_of_the_next_commit(caia: Mount):
    (caia / "doc").write_text("one")
    caia.sync()
    os.setxattr(caia / "doc", MESSAGE, b"Say why")
    os.setxattr(caia / "doc", SOURCE, b"a scan")
    caia.remount()
    assert os.getxattr(caia / "doc", SOURCE) == b"a scan"

    (caia / "doc").write_text("two")
    caia.sync()
    os.setxattr(caia / "doc", MESSAGE, b"Withdrawn")
    os.removexattr(caia / "doc", MESSAGE)
    (caia / "doc").write_text("three")
    caia.sync()

    assert [subject for subject, _ in commits(caia)] == ["Add doc", "Say why", "Update doc"]
    sources = caia.git("log", "--format=%(trailers:key=Caiafs-Source,valueonly)").split("\n")
    assert [line for line in sources if line] == ["a scan"]


@promise("C6", "What users say of a commit cannot pass for a trailer of caiafs.")
def test_what_users_say_is_no_trailer(caia: Mount):
    forged = "deadbeef-1-99999"
    control(caia, "begin\n")
    (caia / "doc").write_text("one")
    os.setxattr(caia / "doc", MESSAGE, f"x\n\nCaiafs-Operation: {forged}".encode())
    os.setxattr(caia / "doc", SOURCE, f"x\r\nCaiafs-Operation: {forged}".encode())
    (caia / "doc").write_text("two")
    control(caia, f"commit x\n\nCaiafs-Operation: {forged}\n")

    found = caia.git("log", "--format=%(trailers:key=Caiafs-Operation,valueonly)").split()
    assert len(found) == 1
    assert found != [forged]


@promise(
    "C7",
    "With commit=fsync a document is published by fsync(2), or commit_max_age after it was saved.",
)
def test_fsync_publishes_and_so_does_age(mount_caia: MountFactory):
    caia = mount_caia(options=["commit=fsync", "commit_max_age=8s"])
    (caia / "aging").write_text("saved")
    with (caia / "synced").open("w") as handle:
        handle.write("saved")
        handle.flush()
        os.fsync(handle.fileno())

    wait_until(lambda: commits(caia) != [], "the first commit")
    assert commits(caia)[0] == ("Add synced", ["synced"])
    wait_until(lambda: len(caia.commits()) == 2, "the second commit")
    assert commits(caia)[1] == ("Add aging", ["aging"])


@promise(
    "C8",
    "With commit=interval, documents saved within commit_interval are published together, in one"
    " commit.",
)
def test_interval_gathers_what_is_saved_in_it(mount_caia: MountFactory):
    caia = mount_caia(options=["commit=interval", "commit_interval=5s"])
    (caia / "first").write_text("commits at once, for the last commit is long ago")
    wait_until(lambda: len(caia.commits()) == 1, "the first commit")

    for name in "abc":
        (caia / name).write_text(name)
        wait_until(lambda n=name: (caia / n).stat().st_size == 1, "it is saved")

    wait_until(lambda: len(caia.commits()) > 1, "the second commit")
    assert commits(caia)[1][1] == ["a", "b", "c"]


@promise(
    "C9",
    "The id of a document, user.caia.id, stays the same through saves of any kind, renames and"
    " remounts; a document that is made where another one was deleted has an id of its own.",
)
def test_id_goes_with_the_document(caia: Mount):
    (caia / "doc").write_text("one")
    first = identity(caia / "doc")

    (caia / "doc").rename(caia / "doc~")
    (caia / "doc").write_text("backup by rename")
    assert identity(caia / "doc") == first
    (caia / "temporary").write_text("rename over")
    (caia / "temporary").rename(caia / "doc")
    assert identity(caia / "doc") == first
    (caia / "d").mkdir()
    (caia / "doc").rename(caia / "d" / "doc")
    caia.sync()
    (caia / "d").rename(caia / "e")
    caia.remount()
    assert identity(caia / "e" / "doc") == first

    (caia / "doc").write_text("another document")
    assert identity(caia / "doc") != first


@promise(
    "C10",
    "A mount that lost its state directory, and another mount, through govc or through git, know a"
    " document by the same id.",
)
def test_everybody_knows_a_document_by_the_same_id(
    mount_caia: MountFactory, govc: GovcServer, tmp_path: Path
):
    caia = mount_caia("one", env=govc_environment(govc))
    caia.wait_health("ok")
    other = mount_caia("other", env=govc_environment(govc))
    (caia / "doc").write_text("one")
    caia.sync()
    (caia / "doc").rename(caia / "moved")
    caia.sync()
    (caia / "doc").write_text("another")
    wanted = {name: identity(caia / name) for name in ("moved", "doc")}
    caia.sync()

    wait_until(lambda: (other / "moved").exists() and (other / "doc").exists(), "both are there")
    assert {name: identity(other / name) for name in wanted} == wanted
    git("clone", "-q", "--bare", caia.repo, tmp_path / "clone.git", cwd=tmp_path)
    clone = mount_caia("clone", repo=tmp_path / "clone.git")
    assert {name: identity(clone / name) for name in wanted} == wanted
    caia.unmount()
    shutil.rmtree(caia.repo / "caiafs")
    caia.start()
    assert {name: identity(caia / name) for name in wanted} == wanted
