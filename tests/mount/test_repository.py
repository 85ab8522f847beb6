"""Existing repositories, bare and not, of CAIA's layout and any other; new ones."""

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount, git, run_caiafs
from tests.support.requirements import require_root
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

LIBRARY = {
    "documents/article/2026/08/7d1f/metadata.json": b'{"id": "7d1f", "title": "On folders"}\n',
    "documents/article/2026/08/7d1f/text.txt": "Folders, they say, are \u00fcber.\n".encode(),
    "documents/article/2026/08/7d1f/raw": bytes(range(256)),
    "documents/web/2025/01/beef/content.txt": b"",
    "README.md": b"A library.\n",
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a work tree in the CAIA Library's layout, committed."""
    root = tmp_path / "work"
    git("init", "-q", "-b", "trunk", root, cwd=tmp_path)
    for name, content in LIBRARY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "latest").symlink_to("documents/article/2026/08/7d1f")
    git("add", "-A", cwd=root)
    git("commit", "-qm", "Start", cwd=root)
    return root


@pytest.fixture
def bare(work: Path, tmp_path: Path) -> Path:
    """Return a bare clone of it."""
    git("clone", "-q", "--bare", work, tmp_path / "library.git", cwd=tmp_path)
    return tmp_path / "library.git"


def test_new_repository_is_bare_and_clones(caia: Mount, tmp_path: Path):
    (caia / "doc").write_text("text")
    caia.sync()

    assert caia.git("rev-parse", "--is-bare-repository").strip() == "true"
    assert (caia.clone(tmp_path / "clone") / "doc").read_text() == "text"


def test_state_directory_is_for_its_owner_only(caia: Mount):
    assert (caia.repo / "caiafs").stat().st_mode & 0o777 == 0o700


def test_library_repository_mounts_as_it_is(mount_caia: MountFactory, bare: Path):
    caia = mount_caia(repo=bare)

    assert {name: (caia / name).read_bytes() for name in LIBRARY} == LIBRARY
    assert (caia / "latest" / "metadata.json").read_bytes() == LIBRARY[
        "documents/article/2026/08/7d1f/metadata.json"
    ]


def test_edit_of_an_existing_repository_goes_on_its_own_branch(
    mount_caia: MountFactory, bare: Path
):
    caia = mount_caia(repo=bare)

    (caia / "README.md").write_text("A library, edited.\n")
    caia.sync()

    assert caia.git("show", "trunk:README.md") == "A library, edited.\n"
    assert caia.git("rev-list", "--count", "trunk").strip() == "2"
    assert caia.git("diff", "--name-only", "trunk~1", "trunk").split() == ["README.md"]


def test_mounting_alone_changes_nothing(mount_caia: MountFactory, bare: Path):
    before = git("for-each-ref", "refs/heads", cwd=bare)
    caia = mount_caia(repo=bare)
    _ = [path.stat() for path in caia.path.rglob("*")]
    caia.sync()

    caia.unmount()

    assert git("for-each-ref", "refs/heads", cwd=bare) == before


def test_other_branch_of_a_work_tree_mounts(mount_caia: MountFactory, work: Path):
    git("branch", "caia", cwd=work)

    caia = mount_caia(repo=work, options=["branch=caia"])
    (caia / "README.md").write_text("On another branch.\n")
    caia.sync()

    assert caia.git("show", "caia:README.md") == "On another branch.\n"
    assert caia.git("show", "trunk:README.md") == "A library.\n"
    assert git("status", "--short", cwd=work) == ""


def test_ordinary_gc_of_the_repository_is_safe_while_mounted(mount_caia: MountFactory, bare: Path):
    caia = mount_caia(repo=bare)
    for i in range(5):
        (caia / "doc").write_text(f"version {i}")
        caia.git("gc", "-q")

    caia.sync()
    caia.git("gc", "-q", "--prune=now")  # like git itself, not while something is being written

    caia.remount()
    assert (caia / "doc").read_text() == "version 4"
    caia.sync()
    assert caia.git("fsck", "--strict", "--no-dangling") == ""


def test_foreign_commit_is_seen_at_the_next_mount(mount_caia: MountFactory, work: Path, bare: Path):
    caia = mount_caia(repo=bare)
    assert (caia / "README.md").read_text() == "A library.\n"
    caia.unmount()
    (work / "README.md").write_text("Edited elsewhere.\n")
    git("commit", "-qam", "Edit", cwd=work)
    git("push", "-q", bare, "trunk", cwd=work)

    caia.start()

    wait_until(
        lambda: (caia / "README.md").read_text() == "Edited elsewhere.\n", "the foreign change"
    )


def test_first_commit_of_a_branch_that_was_mounted_empty_is_seen_at_the_next_mount(
    mount_caia: MountFactory, tmp_path: Path
):
    caia = mount_caia()
    caia.unmount()
    work = tmp_path / "work"
    git("init", "-q", "-b", "main", work, cwd=tmp_path)
    (work / "first").write_text("theirs\n")
    git("add", "first", cwd=work)
    git("commit", "-qm", "The first", cwd=work)
    git("push", "-q", caia.repo, "main", cwd=work)

    caia.start()

    assert (caia / "first").read_text() == "theirs\n"


def test_shallow_clone_is_published_like_any_other(
    mount_caia: MountFactory, work: Path, tmp_path: Path
):
    (work / "README.md").write_text("Edited.\n")
    git("commit", "-qam", "Edit", cwd=work)
    git("clone", "-q", "--bare", "--depth", "1", f"file://{work}", "shallow.git", cwd=tmp_path)

    caia = mount_caia(repo=tmp_path / "shallow.git")
    (caia / "new").write_text("text")
    caia.sync()

    assert caia.git("show", "HEAD:new") == "text"
    assert len(caia.git("log", "--format=%h").split()) == 2


def test_document_that_git_has_lost_costs_itself_only(mount_caia: MountFactory, bare: Path):
    lost = git("rev-parse", "HEAD:README.md", cwd=bare).strip()
    (bare / "objects" / lost[:2] / lost[2:]).unlink()

    caia = mount_caia(repo=bare)
    caia.expect_log("is missing in git")

    with pytest.raises(OSError, match="Input/output error"):
        (caia / "README.md").read_bytes()
    assert (caia / "latest" / "raw").read_bytes() == bytes(range(256))
    (caia / "README.md").write_text("Written anew.\n")
    caia.sync()
    assert caia.git("show", "HEAD:README.md") == "Written anew.\n"


def test_large_repository_mounts_without_walking_it(mount_caia: MountFactory, tmp_path: Path):
    stream = b"commit refs/heads/main\ncommitter A <a@example.org> 1 +0000\ndata 0\n"
    stream += b"".join(
        b"M 100644 inline d/%03d/%05d\ndata 6\n%05d\n\n" % (i % 200, i, i) for i in range(20_000)
    )
    bare = tmp_path / "large.git"
    git("init", "-q", "--bare", "-b", "main", bare, cwd=tmp_path)
    git("-c", "fastimport.unpackLimit=0", "fast-import", "--quiet", cwd=bare, stdin=stream)

    caia = mount_caia(repo=bare)

    assert (caia / "d" / "007" / "00207").read_text() == "00207\n"
    state = sum(path.stat().st_size for path in (bare / "caiafs").iterdir() if path.is_file())
    assert state < 4_000_000  # 20,000 documents would not fit


def test_two_mounts_of_two_repositories_side_by_side(mount_caia: MountFactory):
    first, second = mount_caia(), mount_caia()

    (first / "doc").write_text("first")
    (second / "doc").write_text("second")

    assert (first / "doc").read_text() == "first"
    first.wait_health("ok")
    second.wait_health("ok")


@pytest.mark.parametrize("steps", ["edit", "edit other", "other edit other"])
def test_large_document_that_left_the_caches_is_published_when_edited(
    caia: Mount, tmp_path: Path, steps: str
):
    # Its blob id takes a while, for the base has to be loaded first: the publisher must wait for it.
    require_root()
    content = bytearray(os.urandom(1 << 20) * 32)
    (caia / "large").write_bytes(content)
    caia.sync()
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")

    for step in steps.split():
        if step == "other":
            (caia / "other").write_bytes(os.urandom(100_000))
            caia.sync()
            continue
        with (caia / "large").open("r+b", buffering=0) as handle:
            for offset in range(0, len(content), 1 << 18):
                handle.seek(offset)
                handle.write(b"edited")
                content[offset : offset + 6] = b"edited"
        caia.sync()

    wanted = hashlib.sha256(content).digest()
    clone = caia.clone(tmp_path / "clone")
    assert hashlib.sha256((clone / "large").read_bytes()).digest() == wanted
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    assert hashlib.sha256((caia / "large").read_bytes()).digest() == wanted


@contextlib.contextmanager
def read_only_view(source: Path, view: Path) -> Iterator[Path]:
    """Show `source` at `view`, where nobody can write to it."""
    view.mkdir()
    subprocess.run(["mount", "--bind", source, view], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", view], check=True)
        yield view
    finally:
        subprocess.run(["umount", "-l", view], check=True)


def test_repository_alone_is_whole_whatever_the_state_directory(
    mount_caia: MountFactory, tmp_path: Path
):
    git("init", "-q", "--bare", "-b", "main", tmp_path / "old.git", cwd=tmp_path)
    caia = mount_caia(repo=tmp_path / "old.git", options=(f"state_dir={tmp_path / 'state'}",))
    (caia / "doc").write_text("saved")
    caia.sync()
    caia.unmount()
    (tmp_path / "state").rename(tmp_path / "lost")

    assert git("fsck", "--strict", "--no-dangling", cwd=caia.repo) == ""
    assert git("show", "main:doc", cwd=caia.repo) == "saved"
    done = run_caiafs("fsck", caia.repo)
    assert done.returncode == 0, done.stdout


def test_repository_that_cannot_be_written_keeps_what_is_saved_beside_it(
    mount_caia: MountFactory, tmp_path: Path
):
    require_root()
    repo = tmp_path / "old.git"
    git("init", "-q", "--bare", "-b", "main", repo, cwd=tmp_path)
    with read_only_view(repo, tmp_path / "view") as view:
        caia = mount_caia(
            repo=view, options=(f"state_dir={tmp_path / 'state'}", "unmount_grace=2s")
        )
        caia.expect_log("Read-only file system|documents left to publish")
        (caia / "doc").write_text("saved")
        wait_until(
            lambda: any("Read-only file system" in reason for reason in caia.health()["reasons"]),
            "health says why it waits",
        )
        caia.unmount()
    assert not (repo / "refs" / "heads" / "main").exists()

    caia = mount_caia(repo=repo, options=(f"state_dir={tmp_path / 'state'}",))
    caia.sync()
    assert git("show", "main:doc", cwd=repo) == "saved"


def test_submodule_holds_nothing_and_stays_where_it_is(mount_caia: MountFactory, tmp_path: Path):
    repo = tmp_path / "old.git"
    git("init", "-q", "--bare", "-b", "main", repo, cwd=tmp_path)
    entry = f"160000 commit {'1' * 40}\tmodule\n".encode()
    tree = git("mktree", "--missing", cwd=repo, stdin=entry).strip()
    commit = git("commit-tree", "-m", "Start", tree, cwd=repo).strip()
    git("update-ref", "refs/heads/main", commit, cwd=repo)
    caia = mount_caia(repo=repo)
    (caia / "doc").write_text("saved")
    (caia / "folder").mkdir()

    for attempt in (
        lambda: (caia / "module" / "new").write_text("lost"),
        lambda: (caia / "module" / "folder").mkdir(),
        lambda: (caia / "doc").rename(caia / "module" / "doc"),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            attempt()
    for attempt in (
        lambda: (caia / "module").rmdir(),
        lambda: (caia / "module").rename(caia / "elsewhere"),
        lambda: (caia / "folder").rename(caia / "module"),
    ):
        with pytest.raises(OSError, match="Device or resource busy"):
            attempt()
    caia.sync()
    assert caia.health()["status"] == "ok"
    assert "160000 commit" in git("ls-tree", "main", "module", cwd=repo)

    clone = caia.clone(tmp_path / "clone")
    git("rm", "-q", "--cached", "module", cwd=clone)
    (clone / "module").mkdir(exist_ok=True)
    (clone / "module" / "theirs").write_text("a document now")
    git("add", "-A", cwd=clone)
    git("commit", "-qm", "Replace the submodule", cwd=clone)
    git("push", "-q", "origin", "HEAD:main", cwd=clone)
    wait_until((caia / "module" / "theirs").exists, "what replaced it")
    (caia / "module" / "ours").write_text("beside it")
    caia.sync()
    assert git("show", "main:module/ours", cwd=repo) == "beside it"
