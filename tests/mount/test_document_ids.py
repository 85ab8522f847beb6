"""The id of a document goes where the document goes, and another mount knows it by the same id."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.mount.agreement import document_paths
from tests.mount.test_transactions import control
from tests.support.editors import FIRST, SAVES
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount, git
from tests.support.requirements import require_tool
from tests.support.syscalls import RENAME_EXCHANGE, renameat2
from tests.support.waiting import wait_until
from tests.tools.shell import shell

pytestmark = [pytest.mark.mount, pytest.mark.slow]

ID = "user.caia.id"


def id_of(path: Path) -> str:
    return os.getxattr(path, ID).decode()


def told(caia: Mount) -> list[str]:
    """Return what the commits tell of ids, oldest first."""
    return [
        line
        for line in caia.git("log", "--reverse", "--format=%B").splitlines()
        if line.startswith(("Caiafs-Document:", "Caiafs-Moved:"))
    ]


@pytest.fixture
def doc(caia: Mount) -> Path:
    """Return a published document."""
    (caia / "doc.txt").write_text(FIRST)
    caia.sync()
    return caia / "doc.txt"


WAYS = SAVES | {
    "truncate and write": "echo x > doc.txt",
    "cp over": "echo x > other.tmp; cp other.tmp doc.txt",
    "mv over": "echo x > other.tmp; mv other.tmp doc.txt",
    "published document over it": "echo x > other; sleep 0.3; mv other doc.txt",
    "an editor that takes its time": """
        mv doc.txt doc.txt~
        sleep 1.5
        (cat doc.txt~; echo third line) > doc.txt
        """,
    "the backup comes back": "mv doc.txt doc.txt~; sleep 1.5; mv doc.txt~ doc.txt",
    "mode": "chmod +x doc.txt",
}


@pytest.mark.parametrize("how", WAYS)
def test_document_keeps_its_id_however_it_is_saved(caia: Mount, doc: Path, how: str):
    if how.startswith("vim"):
        require_tool("vim")
    before = id_of(doc)

    shell(WAYS[how], cwd=caia.path)

    assert id_of(doc) == before
    caia.remount()
    assert id_of(doc) == before


MOVES = {
    "mv": ("mv doc.txt moved", "moved"),
    "mv twice": ("mv doc.txt between; sleep 0.3; mv between moved", "moved"),
    "mv to another directory": ("mkdir d; mv doc.txt d/", "d/doc.txt"),
    "through a name that is not published": ("mv doc.txt doc~; sleep 1.5; mv doc~ moved", "moved"),
    "mv after a save": ("echo x > doc.txt; mv doc.txt moved", "moved"),
    "with its directory": ("mkdir a; mv doc.txt a/; sleep 0.3; mv a b", "b/doc.txt"),
}


@pytest.mark.parametrize("how", MOVES)
def test_rename_takes_the_id_along(caia: Mount, doc: Path, how: str):
    before = id_of(doc)
    line, name = MOVES[how]

    shell(line, cwd=caia.path)

    assert id_of(caia / name) == before
    caia.remount()
    assert id_of(caia / name) == before
    doc.write_text("another document where the first one was\n")
    assert id_of(doc) != before


def test_what_is_deleted_and_made_anew_is_another_document(caia: Mount, doc: Path):
    seen = {id_of(doc)}

    for round_ in range(3):
        doc.unlink()
        caia.sync()
        doc.write_text(f"{round_}\n")
        seen.add(id_of(doc))

    assert len(seen) == 4


def test_copies_are_documents_of_their_own(caia: Mount, doc: Path):
    shutil.copy(doc, caia / "copy")

    assert id_of(caia / "copy") != id_of(doc)


def test_directory_takes_the_ids_of_all_that_is_in_it_in_one_trailer(caia: Mount):
    for name in ("a/b/one", "a/two", "a/b/c/three"):
        (caia / name).parent.mkdir(parents=True, exist_ok=True)
        (caia / name).write_text(name)
    before = [id_of(caia / "a" / name) for name in ("b/one", "two", "b/c/three")]

    (caia / "a").rename(caia / "z")

    assert [id_of(caia / "z" / name) for name in ("b/one", "two", "b/c/three")] == before
    assert told(caia) == ["Caiafs-Moved: a z"]


def test_exchanged_directories_exchange_the_ids_of_what_is_in_them(caia: Mount):
    for name in ("a/one", "b/two"):
        (caia / name).parent.mkdir()
        (caia / name).write_text(name)
    one, two = id_of(caia / "a/one"), id_of(caia / "b/two")

    renameat2(caia / "a", caia / "b", RENAME_EXCHANGE)

    assert (id_of(caia / "b/one"), id_of(caia / "a/two")) == (one, two)


def test_most_documents_need_no_word_about_their_ids(caia: Mount):
    for number in range(20):
        (caia / f"doc-{number}").write_text(str(number))
    caia.sync()

    assert told(caia) == []
    assert len({id_of(caia / f"doc-{number}") for number in range(20)}) == 20


def test_what_is_not_published_has_no_id_and_nobody_sets_one(caia: Mount, doc: Path):
    (caia / "doc~").write_text("an editor's")
    (caia / "d").mkdir()
    for path in (caia / "doc~", caia / "d", caia.path):
        with pytest.raises(OSError) as caught:
            id_of(path)
        assert caught.value.errno == errno.ENODATA

    with pytest.raises(PermissionError):
        os.setxattr(doc, ID, b"0123456789abcdef")
    assert os.listxattr(doc) == []


def test_id_of_what_a_transaction_holds_back_is_not_known_yet(caia: Mount, doc: Path):
    before = id_of(doc)
    control(caia, "begin\n")
    (caia / "new").write_text("new")
    assert id_of(doc) == before
    doc.rename(caia / "moved")

    with pytest.raises(OSError):
        id_of(caia / "moved")

    control(caia, "commit Move it\n")
    assert id_of(caia / "moved") == before


def some_ids(caia: Mount, *, seen: Callable[[], object] = lambda: None) -> dict[str, str]:
    """Make documents of every kind, `seen` step by step, and return their ids by name."""
    for name in ("plain", "moved-from", "d/one", "d/two", "again"):
        (caia / name).parent.mkdir(exist_ok=True)
        (caia / name).write_text(name)
    caia.sync()
    seen()
    (caia / "moved-from").rename(caia / "moved")
    (caia / "d").rename(caia / "renamed")
    (caia / "again").unlink()
    caia.sync()
    seen()
    (caia / "again").write_text("another")
    (caia / "moved-from").write_text("another")
    caia.sync()
    seen()
    names = ["plain", "moved", "moved-from", "renamed/one", "renamed/two", "again"]
    return {name: id_of(caia / name) for name in names}


@pytest.mark.parametrize("lost", ["ids only", "state", "state and meta"])
def test_ids_outlive_the_loss_of_what_keeps_them(caia: Mount, lost: str):
    before = some_ids(caia)
    caia.unmount()

    if lost == "ids only":
        for file in (caia.repo / "caiafs").glob("documents.db*"):
            file.unlink()
    else:
        shutil.rmtree(caia.repo / "caiafs")
    if lost == "state and meta":
        caia.git("update-ref", "-d", "refs/caia/meta")
    caia.start()

    assert {name: id_of(caia / name) for name in before} == before
    (caia / "plain").rename(caia / "plain again")
    assert id_of(caia / "plain again") == before["plain"]


def test_death_between_commit_and_record_leaves_the_ids_right(caia: Mount):
    caia.expect_log("store process")
    before = some_ids(caia)
    backup = {file: file.read_bytes() for file in (caia.repo / "caiafs").glob("documents.db*")}
    (caia / "moved").rename(caia / "moved on")
    (caia / "renamed").rename(caia / "elsewhere")
    caia.sync()
    caia.kill9()
    for file in (caia.repo / "caiafs").glob("documents.db*"):
        file.unlink()
    for file, content in backup.items():  # as if nothing had been written since
        file.write_bytes(content)

    caia.start()

    assert id_of(caia / "moved on") == before["moved"]
    assert id_of(caia / "elsewhere/one") == before["renamed/one"]


def test_second_mount_knows_every_document_by_the_same_id_through_govc(
    mount_caia: MountFactory, govc: GovcServer
):
    one = mount_caia("one", env=govc_environment(govc))
    one.wait_health("ok")
    early = mount_caia("early", env=govc_environment(govc))
    early.wait_health("ok")

    def is_level() -> bool:
        return document_paths(early.path) == document_paths(one.path)

    ids = some_ids(one, seen=lambda: wait_until(is_level, "the other mount shows the same"))
    late = mount_caia("late", env=govc_environment(govc))

    for other in (early, late):
        for name, wanted in ids.items():
            wait_until(lambda o=other, n=name: (o / n).exists(), f"{name} is in {other.base.name}")
            assert id_of(other / name) == wanted, f"{name} in {other.base.name}"


def test_both_mounts_agree_on_what_the_other_moved(mount_caia: MountFactory, govc: GovcServer):
    one = mount_caia("one", env=govc_environment(govc))
    one.wait_health("ok")
    two = mount_caia("two", env=govc_environment(govc))
    two.wait_health("ok")
    (one / "doc").write_text("text")
    first = id_of(one / "doc")
    wait_until((two / "doc").exists, "two has it")

    (two / "doc").rename(two / "moved")
    assert id_of(two / "moved") == first
    wait_until((one / "moved").exists, "one has it")
    assert id_of(one / "moved") == first
    (one / "doc").write_text("anew")
    anew = id_of(one / "doc")

    wait_until((two / "doc").exists, "two has the new one")
    assert id_of(two / "doc") == anew != first


def test_ids_come_along_with_a_push_of_another_mount_s_repository(
    mount_caia: MountFactory, tmp_path: Path
):
    one = mount_caia("one")
    ids = some_ids(one)
    one.unmount()
    two = mount_caia("two", start=False)
    git("clone", "-q", "--bare", one.repo, tmp_path / "two.git", cwd=tmp_path)
    two.repo = tmp_path / "two.git"
    two.start()
    assert {name: id_of(two / name) for name in ids} == ids
    one.start()
    (one / "moved").rename(one / "moved on")
    (one / "renamed").rename(one / "elsewhere")
    one.sync()

    subprocess.run(
        ["git", "push", "-q", two.repo, "HEAD:main"], cwd=one.repo, check=True, capture_output=True
    )

    wait_until((two / "elsewhere" / "one").exists, "two has what was pushed")
    assert id_of(two / "moved on") == ids["moved"]
    assert id_of(two / "elsewhere/one") == ids["renamed/one"]


def test_history_of_an_id_can_be_followed_through_the_log(caia: Mount, doc: Path):
    document = id_of(doc)
    doc.rename(caia / "second.txt")
    caia.sync()
    (caia / "second.txt").rename(caia / "third name.txt")
    caia.sync()

    assert told(caia) == [
        f"Caiafs-Document: {document} second.txt",
        f"Caiafs-Document: {document} third%20name.txt",
    ]
