"""git, rsync, tar and cp carry trees into the mount and out of it, whole."""

import os
import stat
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.requirements import require_tool
from tests.tools.shell import run, shell

pytestmark = [pytest.mark.mount, pytest.mark.slow]

OLD_NS = 1_500_000_000_123_456_789


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a tree with every kind of thing that tools carry, on a plain file system."""
    root = tmp_path / "source"
    (root / "folder" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "doc").write_text("text\n")
    (root / "folder" / "binary").write_bytes(bytes(range(256)) * 500)
    (root / "folder" / "run").write_text("#!/bin/sh\n")
    (root / "folder" / "run").chmod(0o755)
    (root / "folder" / "private").write_text("private\n")
    (root / "folder" / "private").chmod(0o600)
    (root / "folder" / "hard").hardlink_to(root / "doc")
    (root / "folder" / "soft").symlink_to("../doc")
    (root / "folder" / "dangling").symlink_to("nowhere")
    os.setxattr(root / "doc", "user.note", b"kept \xff")
    os.mkfifo(root / "fifo")
    (root / "empty").chmod(0o1777)
    if os.geteuid() == 0:
        os.chown(root / "folder" / "private", 1234, 2345)
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    return root


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what a faithful copy of a tree keeps, path by path."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        links = 0 if stat.S_ISDIR(kind) else status.st_nlink
        content: object = None
        if stat.S_ISREG(kind):
            content = path.read_bytes()
        elif stat.S_ISLNK(kind):
            content = os.readlink(path)
        owner = (status.st_uid, status.st_gid)
        modified = status.st_mtime_ns
        attributes = {n: os.getxattr(path, n, follow_symlinks=False) for n in _names(path)}
        found[str(path.relative_to(root))] = (
            status.st_mode,
            owner,
            links,
            modified,
            content,
            attributes,
        )
    return found


def _names(path: Path) -> list[str]:
    listed = os.listxattr(path, follow_symlinks=False)
    return sorted(name for name in listed if name.startswith("user."))


def test_description_tells_trees_apart(source: Path, tmp_path: Path):
    run("cp", "-a", source, tmp_path / "copy", cwd=tmp_path)
    assert described(tmp_path / "copy") == described(source)

    (tmp_path / "copy" / "folder" / "run").chmod(0o644)

    assert described(tmp_path / "copy") != described(source)


# --- git


def test_git_repository_of_fifty_commits_is_sound_and_clones_out_and_in(
    caia: Mount, tmp_path: Path
):
    work = caia / "project"
    run("git", "init", "-q", "-b", "main", work, cwd=tmp_path)
    for i in range(50):
        (work / f"doc-{i % 7}").write_text(f"step {i}\n" * (i + 1))
        run("git", "add", "-A", cwd=work)
        run("git", "commit", "-qm", f"Step {i}", cwd=work)

    assert run("git", "fsck", "--strict", "--full", "--no-dangling", cwd=work) == ""
    run("git", "clone", "-q", work, tmp_path / "out", cwd=tmp_path)
    run("git", "clone", "-q", "--no-local", tmp_path / "out", caia / "in", cwd=tmp_path)
    wanted = run("git", "log", "--format=%H %T", cwd=work)
    assert wanted.count("\n") == 50
    for clone in (tmp_path / "out", caia / "in"):
        assert run("git", "log", "--format=%H %T", cwd=clone) == wanted
        assert run("git", "status", "--porcelain", cwd=clone) == ""
        assert run("git", "fsck", "--strict", "--full", "--no-dangling", cwd=clone) == ""


def test_git_gc_branch_merge_and_stash_work_in_the_mount(caia: Mount, tmp_path: Path):
    work = caia / "project"
    run("git", "init", "-q", "-b", "main", work, cwd=tmp_path)
    shell(
        """
        echo one > a; git add a; git commit -qm one
        git checkout -qb side; echo two > b; git add b; git commit -qm two
        git checkout -q main; echo three > c; git add c; git commit -qm three
        git merge -q side -m merged
        echo changed > a; git stash -q; git stash pop -q; git commit -qam four
        git gc -q --aggressive; git repack -adq
        """,
        cwd=work,
    )

    assert run("git", "fsck", "--strict", "--full", "--no-dangling", cwd=work) == ""
    assert run("git", "log", "--format=%s", "--first-parent", cwd=work).split() == [
        "four",
        "merged",
        "three",
        "one",
    ]


def test_dot_git_of_a_project_is_kept_in_the_stores(caia: Mount, tmp_path: Path):
    run("git", "init", "-q", "-b", "main", caia / "project", cwd=tmp_path)
    shell("echo one > a; git add a; git commit -qm one", cwd=caia / "project")

    caia.sync()

    run("git", "fsck", "--strict", "--full", cwd=caia.repo)
    stored = run("git", "ls-tree", "-r", "--name-only", "HEAD", cwd=caia.repo).splitlines()
    assert [name for name in stored if name.endswith("/HEAD")]


# --- rsync, tar, cp


def test_rsync_with_everything_copies_all_and_then_nothing(
    caia: Mount, source: Path, tmp_path: Path
):
    require_tool("rsync")
    copy = ("rsync", "-aAXH", "--itemize-changes", f"{source}/", f"{caia.path}/copy/")

    run(*copy, cwd=tmp_path)
    again = run(*copy, cwd=tmp_path)

    assert described(caia / "copy") == described(source)
    assert again == ""


def test_rsync_by_checksum_out_of_the_mount_and_back_changes_nothing(
    caia: Mount, source: Path, tmp_path: Path
):
    require_tool("rsync")
    run("rsync", "-aAXH", f"{source}/", f"{caia.path}/copy/", cwd=tmp_path)

    run("rsync", "-aAXH", f"{caia.path}/copy/", f"{tmp_path}/out/", cwd=tmp_path)
    back = ("rsync", "-aAXH", "--checksum", "--itemize-changes")

    assert described(tmp_path / "out") == described(source)
    assert run(*back, f"{tmp_path}/out/", f"{caia.path}/copy/", cwd=tmp_path) == ""


def test_rsync_in_place_and_by_delta_updates_a_large_file(caia: Mount, tmp_path: Path):
    require_tool("rsync")
    content = bytearray(os.urandom(3_000_000))
    (tmp_path / "large").write_bytes(content)
    run("rsync", "--no-whole-file", "--inplace", "large", f"{caia.path}/", cwd=tmp_path)
    content[1_500_000:1_500_100] = bytes(100)
    (tmp_path / "large").write_bytes(content)

    run("rsync", "-I", "--no-whole-file", "--inplace", "large", f"{caia.path}/", cwd=tmp_path)

    assert (caia / "large").read_bytes() == content


def test_tar_there_and_back_keeps_modes_links_times_and_xattrs(
    caia: Mount, source: Path, tmp_path: Path
):
    keep = ("--xattrs", "--xattrs-include=user.*", "--format=posix")
    run("tar", *keep, "-C", source, "-cf", tmp_path / "in.tar", ".", cwd=tmp_path)
    (caia / "copy").mkdir()
    (tmp_path / "back").mkdir()

    run("tar", *keep, "-C", caia / "copy", "-xpf", tmp_path / "in.tar", cwd=tmp_path)
    run("tar", *keep, "-C", caia / "copy", "-cf", caia / "out.tar", ".", cwd=tmp_path)
    run("tar", *keep, "-C", tmp_path / "back", "-xpf", caia / "out.tar", cwd=tmp_path)

    assert described(caia / "copy") == described(source)
    assert described(tmp_path / "back") == described(source)


def test_attributes_of_a_copied_tree_survive_kill_and_remount(
    caia: Mount, source: Path, tmp_path: Path
):
    run("cp", "-a", f"{source}/.", caia / "copy", cwd=tmp_path)
    os.sync()
    with open(caia / "copy" / "doc") as handle:
        os.fsync(handle.fileno())

    caia.kill9()
    caia.start()
    assert described(caia / "copy") == described(source)
    caia.remount()

    assert described(caia / "copy") == described(source)


@pytest.mark.parametrize("sparse", ["always", "auto", "never"])
def test_cp_of_a_sparse_file_is_the_same_file(caia: Mount, tmp_path: Path, sparse: str):
    with (tmp_path / "sparse").open("wb") as handle:
        handle.seek(5_000_000)
        handle.write(b"middle")
        handle.truncate(9_000_000)

    run("cp", "-a", f"--sparse={sparse}", tmp_path / "sparse", caia / "in", cwd=tmp_path)
    run("cp", "-a", f"--sparse={sparse}", caia / "in", tmp_path / "out", cwd=tmp_path)

    run("cmp", tmp_path / "sparse", caia / "in", cwd=tmp_path)
    run("cmp", tmp_path / "sparse", tmp_path / "out", cwd=tmp_path)


def test_cp_reflink_auto_and_mv_between_file_systems_work(caia: Mount, tmp_path: Path):
    (tmp_path / "doc").write_text("text")

    run("cp", "--reflink=auto", tmp_path / "doc", caia / "copied", cwd=tmp_path)
    run("mv", tmp_path / "doc", caia / "moved", cwd=tmp_path)
    run("mv", caia / "moved", tmp_path / "back", cwd=tmp_path)

    assert (caia / "copied").read_text() == "text"
    assert (tmp_path / "back").read_text() == "text"
    assert not (caia / "moved").exists()
