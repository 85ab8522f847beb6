"""What is saved between begin and commit is one commit; whatever ends it otherwise, nothing is lost."""

import errno
import os
import subprocess

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.support.govc_peek import Peek
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def control(caia: Mount, command: str) -> None:
    (caia / ".caia" / "control").write_text(command)


def refused(caia: Mount, command: str) -> int:
    """Return the errno that a command is refused with."""
    with pytest.raises(OSError) as caught:
        control(caia, command)
    return int(caught.value.errno or 0)


def changed(caia: Mount) -> list[list[str]]:
    """Return the names that each commit changed, oldest first."""
    return [
        caia.git("diff-tree", "--root", "--no-commit-id", "--name-only", "-r", commit).split()
        for commit in caia.commits()
    ]


def test_what_is_saved_in_a_transaction_is_one_commit_with_its_message(caia: Mount):
    (caia / "before").write_text("1")
    control(caia, "begin\n")
    for name in "abc":
        (caia / name).write_text(name)
    (caia / "a").write_text("a again")
    (caia / "b").rename(caia / "moved")

    control(caia, 'commit "Bring in three"\n')

    # Without a sync: the write returned when a store had it.
    assert changed(caia) == [["before"], ["a", "c", "moved"]]
    assert caia.git("log", "-1", "--format=%s").strip() == "Bring in three"
    assert caia.git("cat-file", "blob", "HEAD:a") == "a again"


def test_commit_without_a_message_is_one_commit_too(caia: Mount):
    control(caia, "begin")
    for text in ("one", "two", "three"):
        (caia / "doc").write_text(text)
        (caia / f"doc-{text}").write_text(text)
    control(caia, "commit")

    assert len(caia.commits()) == 1
    assert caia.git("log", "-1", "--format=%s").strip() == "Add 4 files"
    assert caia.git("cat-file", "blob", "HEAD:doc") == "three"


def test_end_publishes_every_save_as_if_there_had_been_no_transaction(caia: Mount):
    control(caia, "begin\n")
    for text in ("one", "two", "three"):
        (caia / "doc").write_text(text)
    assert caia.commits() == []

    control(caia, "end\n")

    caia.sync()
    assert changed(caia) == [["doc"]] * 3
    assert (caia / "doc").read_text() == "three"


def test_nonsense_is_refused_and_changes_nothing(caia: Mount):
    assert refused(caia, "commit Nothing open\n") == errno.EINVAL
    assert refused(caia, "end\n") == errno.EINVAL
    control(caia, "begin\n")
    (caia / "doc").write_text("text")
    assert refused(caia, "begin\n") == errno.EINVAL
    assert refused(caia, "abort\n") == errno.EINVAL
    assert refused(caia, "commit " + "x" * 8100) == errno.EINVAL

    control(caia, "commit One\n")

    assert caia.git("log", "--format=%s").split() == ["One"]


def test_a_transaction_without_a_change_makes_no_commit(caia: Mount):
    (caia / "doc").write_text("text")
    caia.sync()

    control(caia, "begin\n")
    (caia / "doc").write_text("text")
    control(caia, "commit Nothing\n")

    assert len(caia.commits()) == 1


def test_health_says_that_a_transaction_is_open_and_sync_what_it_holds_back(caia: Mount):
    (caia / "before").write_text("1")
    control(caia, "begin\n")
    (caia / "doc").write_text("text")

    assert refused(caia, "sync 20s\n") == errno.EBUSY

    assert "transaction is open" in caia.health()["reasons"][0]
    assert changed(caia) == [["before"]]
    control(caia, "commit Done\n")
    assert caia.health()["status"] == "ok"


def test_what_a_transaction_holds_is_durable_and_a_kill_publishes_it_one_by_one(caia: Mount):
    control(caia, "begin\n")
    for text in ("one", "two", "three"):
        (caia / "doc").write_text(text)

    caia.kill9()
    caia.start()

    assert (caia / "doc").read_text() == "three"
    caia.sync()
    assert changed(caia) == [["doc"]] * 3
    assert refused(caia, "commit Too late\n") == errno.EINVAL


def test_death_of_the_store_process_leaves_a_transaction_open_and_whole(caia: Mount):
    caia.expect_log("store process")
    control(caia, "begin\n")
    (caia / "a").write_text("a")
    dead = caia.kill9_store()
    wait_until(lambda: caia.store_pid != dead, "another store process lives")
    (caia / "b").write_text("b")
    (caia / "a").write_text("a again")

    control(caia, "commit Whole\n")

    assert changed(caia) == [["a", "b"]]


@pytest.mark.parametrize("dies", ["mount", "both"])
def test_committed_transaction_outlives_the_processes_as_one_commit(
    mount_caia: MountFactory, govc: GovcServer, dies: str
):
    environment = {**govc_environment(govc), "CAIAFS_ENABLE_FALLBACK": "false"}
    caia = mount_caia(env=environment)
    caia.expect_log("govc|store process|publishing waits|unmount")
    caia.wait_health("ok")
    govc.stop()  # so that it is committed and in no store when it dies
    control(caia, "begin\n")
    for name in "abc":
        (caia / name).write_text(name)
    (caia / "a").write_text("a again")
    writer = subprocess.Popen(
        ["sh", "-c", "printf 'commit Whole\n' > .caia/control"],
        cwd=caia.path,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: "transaction" not in str(caia.health()["reasons"]), "it is committed")

    if dies == "both":
        caia.kill9_store()
    caia.kill9()
    writer.wait(30)
    govc.start()
    caia.start()

    caia.sync()
    assert changed(caia) == [["a", "b", "c"]]
    assert caia.git("log", "--format=%s").strip() == "Whole"
    assert Peek(govc.url, "caia-documents").text("a") == "a again"


def test_forgotten_transaction_ends_by_itself(mount_caia: MountFactory):
    caia = mount_caia(options=["transaction_max_age=1s"])
    caia.expect_log("a transaction is ended")
    control(caia, "begin\n")
    (caia / "doc").write_text("text")

    wait_until(lambda: changed(caia) == [["doc"]], "it is published")

    assert refused(caia, "commit Too late\n") == errno.EINVAL
    assert caia.health()["status"] == "ok"


def test_unmount_ends_a_transaction_and_publishes_what_it_holds(caia: Mount):
    caia.expect_log("the unmount ends a transaction")
    control(caia, "begin\n")
    (caia / "doc").write_text("one")
    (caia / "doc").write_text("two")

    caia.unmount()

    assert changed(caia) == [["doc"]] * 2


def test_close_does_not_wait_for_a_transaction_to_end(mount_caia: MountFactory):
    caia = mount_caia(options=["commit=close"])
    control(caia, "begin\n")
    for name in "abc":
        (caia / name).write_text(name)
    assert caia.commits() == []

    control(caia, "commit Three\n")

    assert changed(caia) == [["a", "b", "c"]]


@pytest.mark.parametrize("policy", ["commit=fsync,commit_max_age=1h", "commit=interval"])
def test_commit_takes_what_the_policy_would_have_waiting(mount_caia: MountFactory, policy: str):
    caia = mount_caia(options=[*policy.split(","), "commit_interval=1h"])
    control(caia, "begin\n")
    for name in "ab":
        (caia / name).write_text(name)

    control(caia, "commit Two\n")

    assert changed(caia) == [["a", "b"]]


def test_large_transaction_is_one_commit_whatever_the_bounds_of_a_group(mount_caia: MountFactory):
    options = ["group_max_documents=10", "group_max_bytes=100K", "inline_max_bytes=4K"]
    caia = mount_caia(options=options)
    control(caia, "begin\n")
    for number in range(60):
        (caia / f"doc-{number}").write_bytes(os.urandom(20_000))

    control(caia, "commit Sixty\n")

    assert [len(names) for names in changed(caia)] == [60]


def test_large_transaction_reaches_govc_whole(mount_caia: MountFactory, govc: GovcServer):
    caia = mount_caia(env=govc_environment(govc))
    caia.wait_health("ok")
    control(caia, "begin\n")
    for number in range(300):
        (caia / f"doc-{number}").write_text(f"document {number}\n")

    control(caia, "commit Three hundred\n")
    caia.sync()

    assert [len(names) for names in changed(caia)] == [300]
    assert Peek(govc.url, "caia-documents").text("doc-299") == "document 299\n"
