"""`caiafs backup` and `restore`: everything comes back as it was, or a clear line and nothing half-made."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount, caiafs_command, clean_environment, git, run_caiafs
from tests.support.upkeep import NEVER, digests, save_some, unpack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def refs(repo: Path) -> str:
    return git("for-each-ref", cwd=repo)


def failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command failed with one line that has these words."""
    assert done.returncode not in {0, 130}, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.fixture
def saved(caia: Mount) -> Mount:
    """Return a mount that was used and unmounted."""
    save_some(caia.path)
    (caia / "bare").mkdir()
    (caia / "small").chmod(0o640)
    os.utime(caia / "small", ns=(1, 1_234_567_890_123_456_789))
    os.setxattr(caia / "small", "user.note", b"kept")
    caia.sync()
    caia.unmount()
    return caia


@pytest.fixture
def bundle(saved: Mount) -> Path:
    """Return a backup of it."""
    file = saved.base / "papers.bundle"
    done = run_caiafs("backup", saved.repo, file)
    assert done.returncode == 0, done.stderr
    return file


def test_restored_repository_shows_the_same_tree_with_attributes(
    saved: Mount, bundle: Path, mount_caia: MountFactory, tmp_path: Path
):
    (saved.repo / "hooks" / "post-checkout").write_text("#!/bin/sh\nexit 1\n")
    hashes = digests(saved.clone(saved.base / "clone"))

    done = run_caiafs("restore", bundle, tmp_path / "new.git")

    assert done.returncode == 0, done.stderr
    assert refs(tmp_path / "new.git") == refs(saved.repo)
    assert not (tmp_path / "new.git" / "hooks" / "post-checkout").exists()
    assert git("fsck", "--strict", "--no-dangling", cwd=tmp_path / "new.git") == ""
    caia = mount_caia("restored", repo=tmp_path / "new.git")
    assert digests(caia.path) == hashes
    status = (caia / "small").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 1_234_567_890_123_456_789)
    assert os.getxattr(caia / "small", "user.note") == b"kept"
    assert (caia / "bare").is_dir()


def test_backup_of_a_live_mount_has_what_was_just_saved(caia: Mount, tmp_path: Path):
    hashes = save_some(caia.path)

    done = run_caiafs("backup", caia.path, tmp_path / "b")

    assert done.returncode == 0, done.stderr
    assert run_caiafs("restore", tmp_path / "b", tmp_path / "new.git").returncode == 0
    clone = git("clone", "-q", tmp_path / "new.git", tmp_path / "clone", cwd=tmp_path)
    assert clone == ""
    assert digests(tmp_path / "clone") == hashes


def test_backup_of_a_mount_finds_what_lies_in_its_state_directory(
    mount_caia: MountFactory, tmp_path: Path
):
    git("init", "-q", "--bare", "-b", "main", tmp_path / "old.git", cwd=tmp_path)
    where = f"state_dir={tmp_path / 'state'}"
    caia = mount_caia(repo=tmp_path / "old.git", options=(where, "branch=docs"))
    (caia / "doc").write_text("saved")

    for source, name in ((caia.path, "by-mount"), (caia.repo, "by-repository")):
        done = run_caiafs("backup", source, tmp_path / name)

        assert done.returncode == 0, done.stderr
        assert run_caiafs("restore", tmp_path / name, tmp_path / f"{name}.git").returncode == 0
        assert git("show", "docs:doc", cwd=tmp_path / f"{name}.git") == "saved"


def test_pending_saves_are_not_left_out_in_silence(mount_caia: MountFactory, tmp_path: Path):
    caia = mount_caia(options=NEVER)
    (caia / "first").write_text("published")
    caia.sync()
    (caia / "second").write_text("pending")
    caia.kill9()

    done = run_caiafs("backup", caia.repo, tmp_path / "b")

    failed(done, "1 change", "--allow-pending")
    assert done.returncode == 3
    assert not (tmp_path / "b").exists()
    allowed = run_caiafs("backup", caia.repo, tmp_path / "b", "--allow-pending")
    assert allowed.returncode == 0
    assert "left out: 1 change" in allowed.stdout


def test_backup_replaces_a_file_only_when_told_to(saved: Mount, bundle: Path):
    before = bundle.read_bytes()

    failed(run_caiafs("backup", saved.repo, bundle), "--force")

    assert bundle.read_bytes() == before
    assert run_caiafs("backup", saved.repo, bundle, "--force").returncode == 0
    assert [f.name for f in bundle.parent.iterdir() if "papers" in f.name] == [bundle.name]


def test_bundle_is_one_that_plain_git_reads(saved: Mount, bundle: Path, tmp_path: Path):
    git("clone", "-q", "--mirror", bundle, tmp_path / "mirror.git", cwd=tmp_path)

    assert refs(tmp_path / "mirror.git") == refs(saved.repo)


def test_damaged_repository_is_not_backed_up(saved: Mount, tmp_path: Path):
    unpack(saved.repo)
    blob = git("rev-parse", "HEAD:small", cwd=saved.repo).strip()
    (saved.repo / "objects" / blob[:2] / blob[2:]).unlink()

    failed(run_caiafs("backup", saved.repo, tmp_path / "b"), "damaged", "fsck")

    assert not list(tmp_path.glob("*b*.partial"))
    assert not (tmp_path / "b").exists()


def test_repository_without_anything_of_caiafs_is_left_to_git(tmp_path: Path):
    git("init", "-q", "-b", "main", "plain", cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "Begin", cwd=tmp_path / "plain")
    git("clone", "-q", "--bare", "plain", "plain.git", cwd=tmp_path)

    failed(run_caiafs("backup", tmp_path / "plain.git", tmp_path / "b"), "nothing of caiafs")


# --- restoring what is not right


def cut(bundle: Path) -> None:
    with bundle.open("r+b") as file:
        file.truncate(bundle.stat().st_size // 2)


def cut_in_the_header(bundle: Path) -> None:
    with bundle.open("r+b") as file:
        file.truncate(60)


def change_the_pack(bundle: Path) -> None:
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 0x10
    bundle.write_bytes(data)


def make_empty(bundle: Path) -> None:
    bundle.write_bytes(b"")


def make_text(bundle: Path) -> None:
    bundle.write_text("# v2 git bundle\nnot at all\n")


def add_a_tail(bundle: Path) -> None:
    with bundle.open("ab") as file:
        file.write(b"something more")


def edit_header(bundle: Path, edit: Callable[[bytes], bytes]) -> None:
    header, _, pack = bundle.read_bytes().partition(b"\n\n")
    bundle.write_bytes(edit(header) + b"\n\n" + pack)


def name_a_reference_outside(bundle: Path) -> None:
    edit_header(bundle, lambda h: h.replace(b"refs/caia/meta", b"refs/../../../hooks/x"))


def name_a_reference_that_is_a_lock(bundle: Path) -> None:
    edit_header(bundle, lambda h: h.replace(b"refs/caia/meta", b"refs/caia/meta.lock"))


def name_a_commit_that_is_not_there(bundle: Path) -> None:
    edit_header(bundle, lambda h: h.replace(h.split(b"\n")[1][:40], b"7" * 40))


def ask_for_a_prerequisite(bundle: Path) -> None:
    edit_header(bundle, lambda h: h.replace(b"bundle\n", b"bundle\n-" + b"7" * 40 + b" x\n"))


def ask_for_a_filter(bundle: Path) -> None:
    edit_header(
        bundle, lambda h: h.replace(b"# v2 git bundle\n", b"# v3 git bundle\n@filter=blob:none\n")
    )


def name_no_branch(bundle: Path) -> None:
    edit_header(bundle, lambda h: h.replace(b"refs/heads/main", b"refs/tags/main"))


@pytest.mark.parametrize(
    "harm",
    [
        cut,
        cut_in_the_header,
        change_the_pack,
        make_empty,
        make_text,
        add_a_tail,
        name_a_reference_outside,
        name_a_reference_that_is_a_lock,
        name_a_commit_that_is_not_there,
        ask_for_a_prerequisite,
        ask_for_a_filter,
        name_no_branch,
    ],
)
def test_bundle_that_is_not_right_leaves_nothing_behind(bundle: Path, tmp_path: Path, harm):
    harm(bundle)
    (tmp_path / "place").mkdir()

    done = run_caiafs("restore", bundle, tmp_path / "place" / "new.git")

    failed(done, bundle.name)
    assert not list((tmp_path / "place").iterdir())


def test_missing_bundle_is_one_line(tmp_path: Path):
    failed(run_caiafs("restore", tmp_path / "none", tmp_path / "new.git"), "No such file")


def test_bundle_of_a_plain_repository_is_refused(tmp_path: Path):
    git("init", "-q", "-b", "main", "plain", cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "Begin", cwd=tmp_path / "plain")
    git("bundle", "create", "-q", "../b", "main", cwd=tmp_path / "plain")

    failed(run_caiafs("restore", tmp_path / "b", tmp_path / "new.git"), "nothing of caiafs")

    assert not (tmp_path / "new.git").exists()


def test_bundle_with_a_tree_that_git_refuses_is_refused(saved: Mount, tmp_path: Path):
    blob = git("hash-object", "-w", "--stdin", cwd=saved.repo, stdin=b"[core]\n").strip()
    listing = f"100644 blob {blob}\t.git\n".encode()
    tree = git("mktree", cwd=saved.repo, stdin=listing).strip()
    commit = git("commit-tree", tree, "-m", "Hostile", cwd=saved.repo).strip()
    git("update-ref", "refs/heads/evil", commit, cwd=saved.repo)
    git("bundle", "create", "-q", tmp_path / "b", "--all", cwd=saved.repo)

    failed(run_caiafs("restore", tmp_path / "b", tmp_path / "new.git"))

    assert not (tmp_path / "new.git").exists()


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_restore_takes_no_place_that_is_taken(bundle: Path, tmp_path: Path, what: str):
    target = tmp_path / "taken"
    if what == "file":
        target.write_text("mine")
    elif what == "link":
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")

    failed(run_caiafs("restore", bundle, target), "there already")


def test_restore_into_an_empty_directory(bundle: Path, tmp_path: Path):
    (tmp_path / "new.git").mkdir()

    assert run_caiafs("restore", bundle, tmp_path / "new.git").returncode == 0
    assert (tmp_path / "new.git" / "HEAD").read_text() == "ref: refs/heads/main\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_restore_leaves_no_half_made_repository(
    bundle: Path, tmp_path: Path, number: signal.Signals
):
    place = tmp_path / "place"
    place.mkdir()
    process = subprocess.Popen(
        caiafs_command("restore", bundle, place / "new.git"),
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: list(place.glob(".new.git.*")) or process.poll() is not None, "it began")
    process.send_signal(number)
    process.communicate(timeout=60)

    complete = (place / "new.git").exists()
    if complete:  # it was faster
        assert git("fsck", "--strict", cwd=place / "new.git") == ""
    elif number == signal.SIGINT:
        assert not list(place.iterdir())
    assert complete or run_caiafs("restore", bundle, place / "new.git").returncode == 0
