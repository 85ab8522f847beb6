"""Ordinary tools at the mount's root end, do their work, and never enter `.caia`."""

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.support.mount import Mount, clean_environment, git
from tests.support.requirements import require_tool

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def run(*args: str | Path, ok: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        list(map(str, args)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode in ok, f"{args} ended with {done.returncode}: {done.stderr}"
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a small tree on a plain file system."""
    root = tmp_path / "source"
    for i in range(30):
        folder = root / f"folder-{i % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"doc-{i}.txt").write_text(f"text of document {i}\n")
    (root / "folder-0" / "link").symlink_to("doc-0.txt")
    (root / "folder-0" / "run").write_text("#!/bin/sh\n")
    (root / "folder-0" / "run").chmod(0o755)
    return root


@pytest.fixture
def filled(caia: Mount, source: Path) -> Mount:
    """Return a mount with the tree in it."""
    run("cp", "-a", f"{source}/.", caia.path)
    return caia


def test_find_lists_the_documents_only(filled: Mount, source: Path):
    found = run("find", filled.path, "-mindepth", "1", "-printf", "%P\n")

    wanted = run("find", source, "-mindepth", "1", "-printf", "%P\n")
    assert sorted(found.splitlines()) == sorted(wanted.splitlines())


def test_grep_r_reads_the_documents_only(filled: Mount):
    found = run("grep", "-r", "-l", "e", filled.path).splitlines()

    assert len(found) == 31 - 1  # the script has no e
    assert not [line for line in found if ".caia" in line]


def test_du_and_ls_lr_end(filled: Mount):
    assert ".caia" not in run("du", "-a", filled.path)
    assert ".caia" not in run("ls", "-laR", filled.path)


def test_tar_there_and_back_is_the_same_tree(filled: Mount, source: Path, tmp_path: Path):
    run("tar", "-C", filled.path, "-cf", tmp_path / "t.tar", ".")
    (tmp_path / "back").mkdir()
    run("tar", "-C", tmp_path / "back", "-xf", tmp_path / "t.tar")

    run("diff", "-r", "--no-dereference", source, tmp_path / "back")
    assert not (tmp_path / "back" / ".caia").exists()


def test_cp_a_keeps_modes_times_and_links(filled: Mount, source: Path):
    listing = ("-mindepth", "1", "-printf", "%P %y %m %s %T@ %l\n")

    copied = run("find", filled.path, *listing).splitlines()

    assert {line for line in copied if " d " not in line} == {
        line for line in run("find", source, *listing).splitlines() if " d " not in line
    }


def test_rsync_with_delete_mirrors_and_the_second_run_transfers_nothing(caia: Mount, source: Path):
    require_tool("rsync")
    (caia / "stale").write_text("not in the source")
    sync = ("rsync", "-a", "--delete", "--itemize-changes", f"{source}/", f"{caia.path}/")

    run(*sync)

    run("diff", "-r", "--no-dereference", source, caia.path)
    assert run(*sync) == ""
    caia.wait_health("ok")


def test_rsync_out_of_the_mount_copies_the_documents_only(
    filled: Mount, source: Path, tmp_path: Path
):
    require_tool("rsync")

    run("rsync", "-a", "--delete", f"{filled.path}/", f"{tmp_path}/copy/")

    run("diff", "-r", "--no-dereference", source, tmp_path / "copy")


def test_git_add_all_at_the_root_takes_the_documents_only(filled: Mount, tmp_path: Path):
    elsewhere = tmp_path / "git"
    git("init", "-q", "--bare", elsewhere, cwd=tmp_path)
    at_root = (f"--git-dir={elsewhere}", f"--work-tree={filled.path}", "-c", "core.bare=false")

    git(*at_root, "add", "-A", cwd=filled.path)

    listed = git(*at_root, "ls-files", cwd=filled.path).splitlines()
    assert len(listed) == 32
    assert not [name for name in listed if name.startswith(".caia")]
    assert git(*at_root, "status", "--short", "--untracked-files", cwd=filled.path).count("??") == 0


def test_rm_rf_of_everything_ends_and_leaves_caia(filled: Mount):
    filled.sync()

    run("rm", "-rf", filled.path, ok=(1,))  # the mount point itself is busy

    assert os.listdir(filled.path) == []
    filled.wait_health("ok")
    filled.sync()
    assert filled.git("ls-tree", "-r", "HEAD") == ""


def test_find_delete_ends_and_leaves_caia(filled: Mount):
    run("find", filled.path, "-mindepth", "1", "-delete")

    assert os.listdir(filled.path) == []
    filled.wait_health("ok")


def test_git_repository_in_the_mount_works(caia: Mount, tmp_path: Path):
    work = caia / "project"
    git("init", "-q", work, cwd=tmp_path)
    for i in range(5):
        (work / "doc").write_text(f"step {i}\n")
        git("add", "-A", cwd=work)
        git("commit", "-qm", f"Step {i}", cwd=work)

    assert git("fsck", "--strict", "--no-dangling", cwd=work) == ""
    assert git("log", "--format=%s", cwd=work).splitlines()[0] == "Step 4"
    assert git("status", "--short", cwd=work) == ""


def test_sqlite_database_in_the_mount_is_sound(caia: Mount):
    database = sqlite3.connect(caia / "library.db")
    database.execute("create table document (id integer primary key, text text)")
    for i in range(50):
        with database:
            database.execute("insert into document (text) values (?)", (f"text {i}",))
    database.close()

    again = sqlite3.connect(caia / "library.db")
    assert again.execute("pragma integrity_check").fetchone() == ("ok",)
    assert again.execute("select count(*) from document").fetchone() == (50,)
    again.close()
