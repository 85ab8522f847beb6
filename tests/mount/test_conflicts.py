"""Conflicts as a user meets them: seen in .caia, read, ended by a command or by hand; on git with pushes, and on govc."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.support.colleague import Colleague, being_written, collide
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount, run_caiafs
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

BASE, OURS, THEIRS = b"base\nmore\n", b"ours\nmore\n", b"theirs\nmore\n"


def listed(caia: Mount) -> list[dict[str, Any]]:
    return list(json.loads(caia.virtual("conflicts.json"))["conflicts"])


def explained(caia: Mount, count: int = 1) -> list[dict[str, Any]]:
    """Return the open conflicts once there are so many and the history has said where they come from."""

    def all_explained() -> list[dict[str, Any]] | None:
        found = listed(caia)
        known = len(found) == count and all(c["explained"] for c in found)
        return found if known else None

    return wait_until(all_explained, f"{count} conflicts are listed and explained") or []


def versions(caia: Mount, conflict: dict[str, Any]) -> dict[str, bytes]:
    directory = caia / ".caia" / "conflicts" / conflict["id"]
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != "info.json"}


def resolve(caia: Mount, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return run_caiafs("resolve", caia.path, *args)


@pytest.fixture
def colleague(caia: Mount, tmp_path: Path) -> Colleague:
    """Return somebody with a clone of a mount in which `doc.txt` is published."""
    (caia / "doc.txt").write_bytes(BASE)
    caia.sync()
    return Colleague(caia, tmp_path / "colleague")


@pytest.fixture
def conflict(caia: Mount, colleague: Colleague) -> dict[str, Any]:
    """Return the conflict of `doc.txt` in the mount `caia`."""
    collide(caia, colleague, {b"doc.txt": (OURS, THEIRS)})
    return explained(caia)[0]


@pytest.fixture
def two_on_govc(mount_caia: MountFactory, govc: GovcServer) -> tuple[Mount, Mount]:
    """Return two mounts with repositories of their own on one govc, `doc.txt` published and seen by both."""
    env = {**govc_environment(govc), "CAIAFS_POLL_INTERVAL": "200ms"}
    one = mount_caia("one", env=env)
    (one / "doc.txt").write_bytes(BASE)
    one.sync()
    other = mount_caia("other", env=env)
    run_caiafs("fetch", other.path, "doc.txt")
    wait_until(lambda: (other / "doc.txt").exists(), "the other mount shows the document")
    return one, other


def collide_on_govc(one: Mount, other: Mount) -> None:
    """Have both save `doc.txt` at once; `other` is the later one."""
    with being_written(other, {b"doc.txt": OURS}):
        (one / "doc.txt").write_bytes(THEIRS)
        one.sync()
    other.sync()
    one.sync()


def test_a_conflict_shows_its_versions_and_who_made_them(caia: Mount, conflict: dict[str, Any]):
    assert versions(caia, conflict) == {"base": BASE, "ours": OURS, "theirs": THEIRS}
    assert conflict["path"] == "doc.txt"
    assert conflict["kind"] == "content"
    assert (caia / conflict["copy"]).read_bytes() == THEIRS
    assert conflict["theirs"]["author"] == "Ada Tester <ada@example.org>"
    assert conflict["theirs"]["commit"] != conflict["ours"]["commit"] == conflict["commit"]
    info = caia / ".caia" / "conflicts" / conflict["id"] / "info.json"
    assert json.loads(info.read_bytes()) == conflict


def test_health_counts_conflicts_and_is_ok_and_status_names_them(
    caia: Mount, conflict: dict[str, Any]
):
    assert caia.health()["conflicts"] == 1
    assert caia.health()["status"] == "ok"
    assert "doc.txt: both changed it" in run_caiafs("status", caia.path).stdout
    assert "theirs  12 bytes, by Ada Tester" in resolve(caia, "--list").stdout


def test_nothing_in_the_directory_of_conflicts_can_be_changed(
    caia: Mount, conflict: dict[str, Any]
):
    directory = caia / ".caia" / "conflicts"
    inside = directory / conflict["id"]

    for change in (
        lambda: (inside / "ours").write_bytes(b"x"),
        lambda: (inside / "ours").unlink(),
        lambda: (inside / "theirs").rename(inside / "base"),
        lambda: (inside / "new").touch(),
        lambda: (inside / "base").chmod(0o644),
        lambda: os.truncate(inside / "ours", 1),
        lambda: (directory / "new").mkdir(),
        lambda: inside.rmdir(),
    ):
        with pytest.raises(PermissionError):
            change()
    assert versions(caia, conflict) == {"base": BASE, "ours": OURS, "theirs": THEIRS}


def test_tools_merge_the_versions_where_they_are(caia: Mount, conflict: dict[str, Any]):
    where = caia / ".caia" / "conflicts" / conflict["id"]
    names = [where / name for name in ("ours", "base", "theirs")]

    done = subprocess.run(["git", "merge-file", "-p", *names], capture_output=True, check=False)

    assert done.returncode == 1
    assert b"ours\n=======\ntheirs\n" in done.stdout
    shutil.copytree(where, caia.base / "copied")
    assert (caia.base / "copied" / "theirs").read_bytes() == THEIRS


@pytest.mark.parametrize(
    ("way", "content", "subject"),
    [
        ("--ours", OURS, "Resolve doc.txt: keep what has the name"),
        ("--theirs", THEIRS, "Resolve doc.txt: take the other version"),
        ("--base", BASE, "Resolve doc.txt: go back to what both started from"),
        ("--file", b"both\n", "Resolve doc.txt: with a new version"),
    ],
)
def test_resolving_is_one_commit_that_says_which_version(
    caia: Mount, conflict: dict[str, Any], way: str, content: bytes, subject: str
):
    given = caia.base / "merged"
    given.write_bytes(b"both\n")
    (caia / "doc.txt").chmod(0o640)
    os.setxattr(caia / "doc.txt", "user.kept", b"yes")
    caia.sync()
    before = caia.commits()

    done = resolve(caia, "doc.txt", way, *([given] if way == "--file" else []))

    assert done.returncode == 0, done.stderr
    assert (caia / "doc.txt").read_bytes() == content
    assert (caia / "doc.txt").stat().st_mode & 0o777 == 0o640
    assert os.getxattr(caia / "doc.txt", "user.kept") == b"yes"
    assert os.listdir(caia.path) == ["doc.txt"]
    assert listed(caia) == []
    assert os.listdir(caia / ".caia" / "conflicts") == []
    assert caia.health()["conflicts"] == 0
    caia.sync()
    (made,) = [commit for commit in caia.commits() if commit not in before]
    assert caia.git("show", "-s", "--format=%s", made).strip() == subject
    assert caia.git("ls-tree", "--name-only", "HEAD").split() == ["doc.txt"]
    assert caia.git("cat-file", "blob", "HEAD:doc.txt").encode() == content
    assert "Caiafs-Resolved: " in caia.git("show", "-s", "--format=%B", made)


def test_merged_takes_a_document_that_was_edited_and_has_no_markers(
    caia: Mount, conflict: dict[str, Any]
):
    untouched = resolve(caia, "doc.txt", "--merged")
    (caia / "doc.txt").write_bytes(b"<<<<<<< ours\nours\n=======\ntheirs\n>>>>>>> theirs\n")
    marked = resolve(caia, "doc.txt", "--merged")
    (caia / "doc.txt").write_bytes(b"both\n")
    done = resolve(caia, "doc.txt", "--merged")

    assert untouched.returncode == marked.returncode == 1
    assert "was not edited since" in untouched.stderr
    assert "still has conflict markers" in marked.stderr
    assert done.returncode == 0, done.stderr
    assert (caia / "doc.txt").read_bytes() == b"both\n"
    assert listed(caia) == []


def test_an_open_document_is_to_be_closed_first(caia: Mount, conflict: dict[str, Any]):
    with (caia / "doc.txt").open("ab"):
        done = resolve(caia, "doc.txt", "--theirs")

    assert done.returncode == 1
    assert "is open for writing: save and close it" in done.stderr
    assert (caia / "doc.txt").read_bytes() == OURS
    assert resolve(caia, "doc.txt", "--theirs").returncode == 0


def test_a_version_that_was_saved_just_before_is_in_the_history(
    caia: Mount, conflict: dict[str, Any]
):
    (caia / "doc.txt").write_bytes(b"saved just before\n")

    assert resolve(caia, "doc.txt", "--theirs").returncode == 0

    caia.sync()
    blobs = caia.git("log", "--format=", "-p", "--", "doc.txt")
    assert "+saved just before" in blobs
    assert (caia / "doc.txt").read_bytes() == THEIRS


@pytest.mark.parametrize("how", ["removed", "renamed", "renamed over the document"])
def test_what_happens_to_the_copy_by_hand_ends_the_conflict(
    caia: Mount, conflict: dict[str, Any], how: str
):
    copy = caia / conflict["copy"]

    if how == "removed":
        copy.unlink()
    else:
        copy.rename(caia / ("doc.txt" if "over" in how else "other.txt"))

    assert listed(caia) == []
    assert os.listdir(caia / ".caia" / "conflicts") == []
    assert resolve(caia, "doc.txt", "--ours").returncode == 1


def test_commands_that_cannot_be_say_what_can(caia: Mount, conflict: dict[str, Any]):
    for args, code, words in (
        (("doc.txt",), 2, "which version of doc.txt? --ours"),
        (("none.txt", "--ours"), 1, "no conflict of none.txt is open"),
        ((), 2, "which document?"),
        (("doc.txt", "--file", "/nowhere/x"), 1, "/nowhere/x: No such file"),
        (("doc.txt", "--theirs", "--file", "x"), 2, "not both"),
        (("doc.txt", "--list"), 2, "--list takes no PATH"),
    ):
        done = resolve(caia, *args)
        assert (done.returncode, words in done.stderr) == (code, True), done
    assert sorted(os.listdir(caia.path)) == sorted(["doc.txt", conflict["copy"]])


def test_document_and_copy_are_named_by_any_path_that_leads_there(
    caia: Mount, colleague: Colleague
):
    (caia / "d").mkdir()
    names = [b"d/a", b"d/b", b"d/c", b"d/e"]
    collide(caia, colleague, dict.fromkeys(names, (OURS, THEIRS)))
    found = {c["path"]: c for c in explained(caia, 4)}

    assert resolve(caia, caia / "d" / "a", "--ours").returncode == 0
    assert resolve(caia, "d/b", "--ours").returncode == 0
    assert resolve(caia, found["d/c"]["copy"], "--ours").returncode == 0
    here = run_caiafs("resolve", "..", "e", "--ours", cwd=caia / "d")
    assert here.returncode == 0, here.stderr
    assert sorted(os.listdir(caia / "d")) == ["a", "b", "c", "e"]


def test_names_of_any_bytes_and_length_and_deep_paths(caia: Mount, colleague: Colleague):
    deep = b"/".join([b"deep" * 20] * 12)
    names = [
        deep + b"/doc.txt",
        b"not utf-8 \xff.txt",
        b"line\nbreak",
        b"l" * 250 + b".txt",
        "größe.txt".encode(),
    ]
    collide(caia, colleague, dict.fromkeys(names, (OURS, THEIRS)))

    found = explained(caia, len(names))

    assert {versions(caia, conflict)["theirs"] for conflict in found} == {THEIRS}
    assert all(conflict["base"] is None and conflict["kind"] == "added" for conflict in found)
    shown = os.listdir(caia / ".caia" / "conflicts")
    assert all(name.isprintable() and len(os.fsencode(name)) < 256 for name in shown)
    assert any(name.startswith("größe.txt.") for name in shown)
    for name in names:
        done = run_caiafs("resolve", caia.path, os.fsdecode(name), "--theirs")
        assert done.returncode == 0, done.stderr
        with open(os.path.join(os.fsencode(caia.path), name), "rb") as file:
            assert file.read() == THEIRS
    assert listed(caia) == []


def test_large_versions_are_read_through_the_store_process(caia: Mount, colleague: Colleague):
    base, ours, theirs = (os.urandom(9_000_000) for _ in range(3))
    (caia / "large").write_bytes(base)
    caia.sync()
    collide(caia, colleague, {b"large": (ours, theirs)})

    (conflict,) = explained(caia)

    assert versions(caia, conflict) == {"base": base, "ours": ours, "theirs": theirs}
    assert resolve(caia, "large", "--base").returncode == 0
    assert (caia / "large").read_bytes() == base


def test_remount_and_loss_of_the_state_show_the_same(caia: Mount, conflict: dict[str, Any]):
    caia.remount()
    assert explained(caia) == [conflict]

    caia.unmount()
    shutil.rmtree(caia.repo / "caiafs")
    caia.start()

    (found,) = explained(caia)
    assert found == conflict
    assert versions(caia, found) == {"base": BASE, "ours": OURS, "theirs": THEIRS}


def test_a_conflict_that_was_pushed_into_a_directory_that_nobody_looked_into_is_found(
    caia: Mount, colleague: Colleague
):
    copy = "d/e/doc.conflict-20260101T000000Z-1a2b3c4d.txt"
    colleague.push_files({b"d/e/doc.txt": OURS, copy.encode(): THEIRS})

    found = wait_until(lambda: listed(caia), "the conflict is listed")

    assert [(c["path"], c["copy"], c["base"]) for c in found] == [("d/e/doc.txt", copy, None)]
    (caia / "d").rename(caia / "moved")
    assert [c["path"] for c in listed(caia)] == ["moved/e/doc.txt"]


@pytest.mark.govc
def test_both_mounts_on_one_govc_show_the_same_conflict(two_on_govc: tuple[Mount, Mount]):
    one, other = two_on_govc

    collide_on_govc(one, other)

    shown = []
    for caia in (one, other):
        (conflict,) = explained(caia)
        assert versions(caia, conflict) == {"base": BASE, "ours": OURS, "theirs": THEIRS}
        shown.append({key: conflict[key] for key in ("id", "path", "copy", "kind", "base")})
    assert shown[0] == shown[1]


@pytest.mark.govc
@pytest.mark.parametrize(
    "ways", [("--ours", "--theirs"), ("--theirs", "--theirs"), ("--base", "--ours")]
)
def test_two_mounts_that_resolve_at_once_come_to_the_same(
    two_on_govc: tuple[Mount, Mount], ways: tuple[str, str]
):
    one, other = two_on_govc
    collide_on_govc(one, other)
    for caia in (one, other):
        explained(caia)

    codes = [
        resolve(caia, "doc.txt", way).returncode
        for caia, way in zip(two_on_govc, ways, strict=True)
    ]

    assert codes[0] == 0
    one.sync()
    other.sync()

    def is_level() -> bool:
        trees = [caia.git("ls-tree", "-r", "HEAD") for caia in (one, other)]
        names = [os.listdir(caia.path) for caia in (one, other)]
        contents = {(caia / "doc.txt").read_bytes() for caia in (one, other)}
        return trees[0] == trees[1] and names == [["doc.txt"]] * 2 and len(contents) == 1

    wait_until(is_level, "both hold the same document and no copy")
    assert listed(one) == listed(other) == []


@pytest.mark.govc
def test_resolving_works_while_govc_is_away(two_on_govc: tuple[Mount, Mount], govc: GovcServer):
    one, other = two_on_govc
    for caia in (one, other):
        caia.expect_log("govc")
    collide_on_govc(one, other)
    explained(other)
    govc.stop()

    assert resolve(other, "doc.txt", "--theirs").returncode == 0

    assert (other / "doc.txt").read_bytes() == THEIRS
    wait_until(
        lambda: other.git("ls-tree", "--name-only", "HEAD").split() == ["doc.txt"],
        "git has the resolution",
    )
    govc.start()
    other.wait_health("ok")
    other.sync()
    one.wait_health("ok")
