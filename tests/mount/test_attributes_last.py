"""What git does not know of files lasts: over remounts and kills, and over the loss of the state directory."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caiafs.core.machine import seal
from tests.conftest import MountFactory
from tests.support.mount import (
    AUTHOR,
    Mount,
    children,
    clean_environment,
    cpu_seconds,
    git,
)
from tests.support.requirements import require_root
from tests.support.syscalls import RENAME_EXCHANGE, renameat2
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

META = "refs/caia/meta"
OWN_MAX = 1_900_000_000_123_456_789


def a_tree_with_everything(root: Path) -> None:
    """Make files of all kinds with all attributes that outlive the state directory."""
    for path in ("d/below/deep", "d/empty", "alone/in/the/dark", "sticky"):
        (root / path).mkdir(parents=True)
    (root / "sticky").chmod(0o1777)
    (root / "d/empty").chmod(0o2711)
    documents = ("doc", "d/run", "d/below/other", "d/below/deep/secret", ".gitattributes")
    for number, name in enumerate(documents):
        (root / name).write_text(f"content {number}\n")
    (root / "d/run").chmod(0o4751)
    (root / "d/below/deep/secret").chmod(0o400)
    os.mkdir(os.fsencode(root) + b"/d/caf\xe9")
    raw = os.fsencode(root) + b"/d/caf\xe9/na\xffme"
    with open(raw, "wb") as file:
        file.write(b"latin")
    os.setxattr(raw, b"user.\xe9t\xe9", b"\xff\x00 value")
    for name in (".git", "%caia-attributes", "%caia-links", ".gitmodules"):
        (root / "odd" / name).mkdir(parents=True)
        (root / "odd" / name / "doc").write_text(name)
        (root / "odd" / name).chmod(0o700)
    (root / "link").symlink_to("d/run")
    (root / "hard").hardlink_to(root / "doc")
    (root / "d/below/hard").hardlink_to(root / "doc")
    (root / "d/twin").hardlink_to(root / "d/run")
    os.setxattr(root / "doc", "user.note", b"kept")
    os.setxattr(root / "d", "user.note", b"of a directory")
    if os.geteuid() == 0:
        os.setxattr(root / "doc", "trusted.mark", b"ours")
        os.chown(root / "d/below/other", 1234, 2345)
        os.chown(root / "d/empty", 1234, 2345)
        os.chown(root / "link", 77, 88, follow_symlinks=False)
        (root / "d/empty").chmod(0o2711)
    os.utime(root / "doc", ns=(1_111_111_111_111_111_111, OWN_MAX))
    os.utime(root / "d/run", ns=(-1_000_000_001, -5_000_000_007))
    os.utime(root / "link", ns=(5, 6), follow_symlinks=False)
    os.utime(root / "d/empty", ns=(7_000_000_007, 8_000_000_009))
    os.utime(root / "d", ns=(17_000_000_007, 18_000_000_009))


def special_files(root: Path) -> None:
    os.mkfifo(root / "d/fifo")
    os.mknod(root / "d/socket", 0o600 | stat.S_IFSOCK)


def seen(root: Path) -> dict[bytes, dict[str, Any]]:
    """Return everything that can be seen below `root`, hard links as the paths that share an inode."""
    found: dict[bytes, dict[str, Any]] = {}
    names: dict[int, list[bytes]] = {}
    top = os.fsencode(root)
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        full = top + b"/" + path if path else top
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        shown = {
            name: getattr(status, f"st_{name}")
            for name in ("mode", "uid", "gid", "mtime_ns", "atime_ns", "nlink", "size", "rdev")
        }
        if kind in {stat.S_IFREG, stat.S_IFDIR}:
            shown["xattrs"] = {name: os.getxattr(full, name) for name in os.listxattr(full)}
        if kind == stat.S_IFREG:
            with open(full, "rb") as file:
                shown["content"] = file.read()
        elif kind == stat.S_IFLNK:
            shown["content"] = os.readlink(full)
        elif kind == stat.S_IFDIR:
            waiting += [path + b"/" + name if path else name for name in os.listdir(full)]
        names.setdefault(status.st_ino, []).append(path)
        shown["names"] = names[status.st_ino]
        found[path] = shown
    for shown in found.values():
        shown["names"].sort()
    return found


def differences(before: dict[bytes, Any], after: dict[bytes, Any]) -> dict[bytes, Any]:
    """Return what differs, path by path."""
    found = {}
    for path in before.keys() | after.keys():
        one, other = before.get(path, {}), after.get(path, {})
        keys = one.keys() | other.keys()
        if wrong := {k: (one.get(k), other.get(k)) for k in keys if one.get(k) != other.get(k)}:
            found[path] = wrong
    return found


def lose_state(caia: Mount) -> None:
    shutil.rmtree(caia.repo / "caiafs")


def metas(caia: Mount) -> list[str]:
    """Return the commits on the reference of attributes, oldest first."""
    if not caia.git("for-each-ref", META):
        return []
    return caia.git("rev-list", "--reverse", META).split()


@pytest.mark.parametrize("end", [Mount.unmount, Mount.kill9])
def test_everything_survives_a_remount_and_a_kill(caia: Mount, end: Callable[[Mount], object]):
    a_tree_with_everything(caia.path)
    special_files(caia.path)
    before = seen(caia.path)
    wait_until(lambda: caia.sync() is None, "times alone have reached the state DB")

    end(caia)
    caia.start()

    assert differences(before, seen(caia.path)) == {}


def test_all_but_special_files_survives_the_loss_of_the_state_directory(caia: Mount):
    a_tree_with_everything(caia.path)
    before = seen(caia.path)
    caia.unmount()

    lose_state(caia)
    caia.start()

    assert differences(before, seen(caia.path)) == {}
    assert caia.git("fsck", "--strict", "--no-dangling") == ""


def test_special_files_are_gone_with_the_state_directory_and_disturb_nothing(caia: Mount):
    (caia / "d").mkdir()
    special_files(caia.path)
    (caia / "d/doc").write_text("text")
    (caia / "d/doc").chmod(0o640)
    caia.unmount()

    lose_state(caia)
    caia.start()

    assert os.listdir(caia / "d") == ["doc"]
    assert stat.S_IMODE((caia / "d/doc").stat().st_mode) == 0o640


def test_a_mirror_clone_brings_everything_back(
    caia: Mount, mount_caia: MountFactory, tmp_path: Path
):
    a_tree_with_everything(caia.path)
    before = seen(caia.path)
    caia.sync()

    git("clone", "-q", "--mirror", caia.repo, tmp_path / "mirror", cwd=tmp_path)
    other = mount_caia(repo=tmp_path / "mirror")

    assert differences(before, seen(other.path)) == {}


def test_it_lasts_when_the_state_directory_is_lost_again_and_again(caia: Mount):
    a_tree_with_everything(caia.path)
    before = seen(caia.path)
    for _ in range(2):
        caia.unmount()
        lose_state(caia)
        caia.start()
        (caia / "d/below").chmod(0o711)  # looks into a part of it only, and saves that
        (caia / "d/below").chmod(0o755)
        caia.sync()

    after = seen(caia.path)

    assert differences(before, after) == {}


def test_a_mount_that_changes_nothing_saves_nothing(caia: Mount):
    a_tree_with_everything(caia.path)
    caia.unmount()
    before = metas(caia)
    assert before
    caia.start()
    seen(caia.path)
    caia.unmount()
    assert metas(caia) == before

    lose_state(caia)
    caia.start()
    seen(caia.path)
    caia.unmount()

    assert metas(caia) == before


def test_attributes_alone_make_no_commit_on_the_branch(caia: Mount):
    (caia / "doc").write_text("text")
    caia.sync()
    before, saved = caia.commits(), metas(caia)

    (caia / "doc").chmod(0o600)
    os.setxattr(caia / "doc", "user.note", b"kept")

    wait_until(lambda: len(metas(caia)) > len(saved), "attributes are saved by themselves")
    assert caia.commits() == before


def test_moved_directories_take_their_attributes_along(caia: Mount):
    a_tree_with_everything(caia.path)
    caia.unmount()
    lose_state(caia)
    caia.start()
    (caia / "d").rename(caia / "sticky/moved")  # before anybody has looked into it
    (caia / "alone").rename(caia / "d")
    before = seen(caia.path)
    caia.unmount()

    lose_state(caia)
    caia.start()

    assert differences(before, seen(caia.path)) == {}


def test_removed_names_are_not_restored(caia: Mount):
    (caia / "gone/below").mkdir(parents=True)
    (caia / "stays").mkdir()
    caia.sync()
    (caia / "gone/below").rmdir()
    (caia / "gone").rmdir()
    caia.unmount()

    lose_state(caia)
    caia.start()

    assert os.listdir(caia.path) == ["stays"]


def test_a_write_through_one_restored_hard_link_is_seen_through_the_others(caia: Mount):
    for name in ("a", "b/c"):
        (caia / name).mkdir(parents=True)
    (caia / "a/doc").write_text("one")
    (caia / "b/c/doc").hardlink_to(caia / "a/doc")
    caia.unmount()
    lose_state(caia)
    caia.start()

    (caia / "a/doc").write_text("two")
    caia.sync()

    assert (caia / "b/c/doc").read_text() == "two"
    assert caia.git("cat-file", "blob", "HEAD:b/c/doc") == "two"
    assert (caia / "a/doc").stat().st_nlink == 2


def test_git_decides_about_contents_and_the_executable_bit(caia: Mount, tmp_path: Path):
    require_root()
    (caia / "doc").write_text("ours")
    (caia / "run").write_text("#!/bin/sh\n")
    (caia / "run").chmod(0o6711)
    for name in ("doc", "run"):
        os.chown(caia / name, 1234, 2345)
        os.utime(caia / name, ns=(5, 5))
    (caia / "run").chmod(0o6711)
    caia.unmount()
    work = caia.clone(tmp_path / "work")
    (work / "doc").chmod(0o755)
    (work / "run").write_text("#!/bin/sh\n: another\n")
    git("commit", "-qam", "Edit", cwd=work)
    git("push", "-q", cwd=work)

    lose_state(caia)
    caia.start()

    doc, run = (caia / "doc").stat(), (caia / "run").stat()
    assert (doc.st_mode & 0o7777, doc.st_uid, doc.st_mtime_ns) == (0o755, 1234, 5)
    assert (run.st_mode & 0o7777, run.st_uid) == (0o711, 1234)
    assert run.st_mtime == int(git("log", "-1", "--format=%ct", cwd=work))


def test_a_plain_repository_shows_its_mounter_as_owner_and_commit_times(
    mount_caia: MountFactory, tmp_path: Path
):
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    (work / "d").mkdir()
    (work / "d/doc").write_text("text")
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o755)
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", "--date=2001-02-03T04:05:06Z", cwd=work)
    committed = int(git("log", "-1", "--format=%ct", cwd=work))
    git("clone", "-q", "--mirror", work, tmp_path / "bare", cwd=tmp_path)

    caia = mount_caia(repo=tmp_path / "bare")
    found = seen(caia.path)
    caia.sync()

    modes = {path: stat.S_IMODE(shown["mode"]) for path, shown in found.items()}
    assert modes == {b"": 0o755, b"d": 0o755, b"d/doc": 0o644, b"run": 0o755}
    assert {shown["uid"] for shown in found.values()} == {os.geteuid()}
    assert {shown["mtime_ns"] for shown in found.values()} == {committed * 1_000_000_000}
    assert metas(caia) == []


@pytest.mark.parametrize("lost", ["state.db*", "saved.db*"])
def test_either_database_may_be_lost_alone(caia: Mount, lost: str):
    a_tree_with_everything(caia.path)
    before = seen(caia.path)
    caia.unmount()
    saved = metas(caia)

    for path in (caia.repo / "caiafs").glob(lost):
        path.unlink()
    caia.start()
    assert differences(before, seen(caia.path)) == {}
    (caia / "d/run").chmod(0o4755)
    caia.unmount()
    lose_state(caia)
    caia.start()

    before[b"d/run"]["mode"] = before[b"d/twin"]["mode"] = stat.S_IFREG | 0o4755
    assert differences(before, seen(caia.path)) == {}
    assert len(metas(caia)) == len(saved) + 1


def test_attributes_are_saved_though_somebody_moved_their_reference(caia: Mount):
    (caia / "d").mkdir()
    (caia / "d/doc").write_text("text")
    caia.sync()
    caia.git("update-ref", META, caia.git("rev-parse", "HEAD").strip())

    (caia / "d/doc").chmod(0o600)
    caia.unmount()
    lose_state(caia)
    caia.start()

    assert stat.S_IMODE((caia / "d/doc").stat().st_mode) == 0o600


def test_attributes_are_saved_when_the_store_process_was_killed(caia: Mount):
    (caia / "doc").write_text("text")
    caia.sync()
    caia.expect_log("store process|link")
    before = metas(caia)

    (caia / "doc").chmod(0o600)
    pid = caia.kill9_store()

    wait_until(lambda: caia.store_pid != pid, "there is another store process")
    wait_until(lambda: metas(caia) != before, "attributes are saved")


def test_a_made_directory_stays_when_others_remove_its_last_document(caia: Mount, tmp_path: Path):
    (caia / "made/below").mkdir(parents=True)
    (caia / "made/doc").write_text("text")
    (caia / "other").write_text("text")
    caia.unmount()
    lose_state(caia)
    caia.start()
    work = caia.clone(tmp_path / "work")
    git("rm", "-qr", "made", cwd=work)
    git("commit", "-qm", "Remove", cwd=work)

    git("push", "-q", cwd=work)

    head = git("rev-parse", "HEAD", cwd=work).strip()
    wait_until(lambda: caia.stats()["storage_stats"]["git"]["head"] == head, "it was heard of")
    assert os.listdir(caia / "made") == ["below"]


def test_renames_and_removals_leave_nothing_behind_in_what_is_saved(caia: Mount):
    for name in ("a/one/deep", "b/two"):
        (caia / name).mkdir(parents=True)
        (caia / name / "doc").write_text(name)
    caia.sync()

    (caia / "a").rename(caia / "c")
    renameat2(caia / "b", caia / "c", RENAME_EXCHANGE)
    (caia / "b/one").rename(caia / "c/one")
    shutil.rmtree(caia / "c/two")
    caia.sync()

    listed = caia.git("ls-tree", "-r", "--name-only", META).split()
    names = [name for name in listed if "%caia-documents" not in name]
    expected = ["", "c/", "c/one/", "c/one/deep/"]
    assert sorted(names) == sorted(f"{above}%caia-attributes" for above in [*expected])


def test_what_was_restored_and_not_looked_at_is_saved_again(
    mount_caia: MountFactory, tmp_path: Path
):
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    (work / "d/deep").mkdir(parents=True)
    for name in ("readme", "d/other", "d/deep/doc"):
        (work / name).write_text("text")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)
    git("clone", "-q", "--mirror", work, tmp_path / "bare", cwd=tmp_path)
    caia = mount_caia(repo=tmp_path / "bare")
    (caia / "d/deep/doc").chmod(0o600)
    caia.unmount()
    lose_state(caia)
    caia.start()

    assert sorted(os.listdir(caia / "d")) == ["deep", "other"]  # deep itself is not looked into
    (caia / "readme").chmod(0o600)
    caia.unmount()
    lose_state(caia)
    caia.start()

    assert stat.S_IMODE((caia / "d/deep/doc").stat().st_mode) == 0o600


# --- whom to believe


def from_elsewhere(caia: Mount) -> None:
    """Let the saved attributes be those of another machine."""
    tree = caia.git("rev-parse", f"{META}^{{tree}}").strip()
    message = f"Save attributes in 1 directory\n\nCaiafs-Seal: {'0' * 64}\n"
    commit = git("commit-tree", tree, cwd=caia.repo, stdin=message.encode()).strip()
    caia.git("update-ref", META, commit)


@pytest.mark.parametrize("trusted", [False, True])
def test_what_another_machine_saved_gives_no_power_unless_trusted(
    mount_caia: MountFactory, *, trusted: bool
):
    require_root()
    caia = mount_caia(options=["trust_meta"] if trusted else [])
    (caia / "run").write_text("#!/bin/sh\n")
    os.chown(caia / "run", 1234, 2345)
    (caia / "run").chmod(0o6755)
    for name in ("user.note", "trusted.mark"):
        os.setxattr(caia / "run", name, b"value")
    caia.unmount()
    from_elsewhere(caia)

    lose_state(caia)
    caia.start()

    found = (caia / "run").stat()
    power = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    assert power == ((0o6755, 1234, 2345) if trusted else (0o755, 0, 0))
    names = set(os.listxattr(caia / "run"))
    assert names == ({"user.note", "trusted.mark"} if trusted else {"user.note"})


def test_what_another_machine_saved_is_not_passed_on_as_ours(caia: Mount):
    require_root()
    (caia / "d/below").mkdir(parents=True)
    (caia / "d/below/run").write_text("#!/bin/sh\n")
    (caia / "d/below/run").chmod(0o4755)
    caia.unmount()
    from_elsewhere(caia)
    lose_state(caia)
    caia.start()

    (caia / "new").write_text("text")  # is saved, with a part that nobody has looked into
    caia.unmount()
    lose_state(caia)
    caia.start()

    assert stat.S_IMODE((caia / "d/below/run").stat().st_mode) == 0o755


HOSTILE = {
    "not JSON": b"\xff\xfe nonsense",
    "another version": b'{"version": 99}\n{"name": "doc"}\n',
    "deep nesting": b'{"version": 1}\n' + b"[" * 200_000 + b"\n",
    "names that are no names": b'{"version": 1}\n'
    + b"".join(
        json.dumps(
            {"name": name, "mode": "40755", "uid": 0, "gid": 0, "mtime_ns": 1, "keep": True}
        ).encode()
        + b"\n"
        for name in ("../up", "a/b", "nul\0", ".", "..")
    ),
    "absurd numbers": b'{"version": 1}\n{"name": "doc", "mode": "7777777777777", "uid": -1,'
    b' "gid": 1e300, "mtime_ns": 99999999999999999999999}\n',
    "wrong types": b'{"version": 1}\n{"name": ["doc"], "mode": null, "xattrs": 7}\n[]\n7\n',
}


@pytest.mark.parametrize("blob", HOSTILE.values(), ids=HOSTILE)
def test_hostile_attributes_cost_that_directory_s_attributes_only(caia: Mount, blob: bytes):
    (caia / "good").mkdir()
    (caia / "good/doc").write_text("text")
    (caia / "good/doc").chmod(0o600)
    (caia / "bad").mkdir()
    (caia / "bad/doc").write_text("text")
    caia.unmount()
    replace_blob(caia, "bad/%caia-attributes", blob)
    caia.expect_log("attributes saved in git are left out")

    lose_state(caia)
    caia.start()

    assert sorted(os.listdir(caia / "bad")) == ["doc"]
    assert (caia / "bad/doc").read_text() == "text"
    assert stat.S_IMODE((caia / "bad/doc").stat().st_mode) == 0o644
    assert stat.S_IMODE((caia / "good/doc").stat().st_mode) == 0o600
    assert caia.log_path.read_text().count("attributes saved in git are left out") == 1


def test_attributes_that_are_missing_from_git_cost_no_mount(caia: Mount):
    (caia / "doc").write_text("text")
    caia.unmount()
    caia.git("update-ref", META, caia.git("rev-parse", "HEAD").strip())

    lose_state(caia)
    caia.start()

    assert (caia / "doc").read_text() == "text"


def replace_blob(caia: Mount, path: str, content: bytes) -> None:
    """Put another blob into the tree of saved attributes, sealed as ours."""
    blob = git("hash-object", "-w", "--stdin", cwd=caia.repo, stdin=content).strip()
    index = {"GIT_INDEX_FILE": str(caia.base / "index")}

    def run(*arguments: str) -> str:
        env = clean_environment(AUTHOR | index)
        done = subprocess.run(
            ["git", *arguments], cwd=caia.repo, env=env, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    run("read-tree", META)
    run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    tree = run("write-tree")
    message = f"Save attributes\n\nCaiafs-Seal: {seal(tree)}"
    run("update-ref", META, run("commit-tree", tree, "-m", message))


# --- cost


def cpu_of_both(caia: Mount) -> float:
    return sum(cpu_seconds(pid) for pid in (caia.pid, *children(caia.pid)))


def test_saving_and_restoring_ten_thousand_files_costs_less_than_making_them(caia: Mount):
    for number in range(100):
        (caia / f"d{number}").mkdir()
        for name in range(100):
            (caia / f"d{number}/f{name}").touch(mode=0o600)
    caia.sync(timeout_s=100)
    made_s = cpu_of_both(caia)
    caia.unmount()
    lose_state(caia)

    caia.start()
    modes = {entry.stat().st_mode for d in os.scandir(caia.path) for entry in os.scandir(d)}
    restored_s = cpu_of_both(caia)

    assert modes == {0o100600}
    assert restored_s < made_s, f"made in {made_s:.2f} s, restored in {restored_s:.2f} s"
