"""Proofs of caiafs-semantics(7): checking, repairing and backing up."""

from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount, git, run_caiafs
from tests.support.promises import promise
from tests.support.upkeep import NEVER, checkpoint, digests, flip, fsck, save_some, state
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@promise(
    "U1",
    "caiafs fsck without --repair changes nothing, and finds nothing wrong after ordinary use or the death of a mount.",
)
def test_check_of_a_killed_mount_is_clean_and_changes_nothing(caia: Mount):
    hashes = save_some(caia.path)
    store = caia.store_pid
    caia.kill9()
    wait_until(lambda: not Path(f"/proc/{store}").exists(), "the store process has ended")
    refs = git("for-each-ref", cwd=caia.repo)

    told = fsck(caia.repo)

    assert (told.code, told.errors()) == (0, [])
    assert git("for-each-ref", cwd=caia.repo) == refs
    caia.start()
    assert digests(caia.path) == hashes


@promise(
    "U2",
    "caiafs fsck --repair loses nothing: what was saved and not published goes into git as far as it can be read, and"
    " whatever is taken from its place is kept below lost/ or damaged/ in the state directory or below refs/caia/lost.",
)
def test_repair_of_a_damaged_state_loses_no_version(mount_caia: MountFactory):
    caia = mount_caia(options=NEVER)
    hashes = save_some(caia.path)
    caia.kill9()
    checkpoint(state(caia) / "state.db")
    flip(state(caia) / "state.db", 0, 100)
    damaged = (state(caia) / "state.db").read_bytes()

    told = fsck(caia.repo, "--repair")

    assert told.code == 1
    assert told.lost is not None
    assert (told.lost / "state" / "state.db").read_bytes() == damaged
    assert digests(caia.clone(caia.base / "clone")) == hashes
    caia.start()
    assert digests(caia.path) == hashes


@promise(
    "U3",
    "What caiafs backup wrote, caiafs restore makes a repository of with the same references, which mounts as the same"
    " tree with the attributes that are saved in git; plain git can clone the file too.",
)
def test_backup_restores_the_same_tree(caia: Mount, mount_caia: MountFactory, tmp_path: Path):
    hashes = save_some(caia.path)
    (caia / "small").chmod(0o600)

    assert run_caiafs("backup", caia.path, tmp_path / "b").returncode == 0

    refs = git("for-each-ref", cwd=caia.repo)
    assert run_caiafs("restore", tmp_path / "b", tmp_path / "new.git").returncode == 0
    assert git("for-each-ref", cwd=tmp_path / "new.git") == refs
    again = mount_caia("again", repo=tmp_path / "new.git")
    assert digests(again.path) == hashes
    assert (again / "small").stat().st_mode & 0o777 == 0o600
    git("clone", "-q", tmp_path / "b", tmp_path / "clone", cwd=tmp_path)
    assert digests(tmp_path / "clone") == hashes


@promise(
    "U4",
    "caiafs backup and restore leave a whole result or none; neither they nor caiafs migrate replace what is there and"
    " differs, unless they are told to.",
)
def test_nothing_half_made_and_nothing_overwritten(caia: Mount, tmp_path: Path):
    (caia / "doc").write_text("of the source")
    caia.sync()
    caia.unmount()
    file, target = tmp_path / "b", tmp_path / "new.git"
    assert run_caiafs("backup", caia.repo, file).returncode == 0
    whole = file.read_bytes()
    assert run_caiafs("backup", caia.repo, file).returncode == 1
    assert file.read_bytes() == whole
    file.write_bytes(whole[:-30])
    assert run_caiafs("restore", file, target).returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["b", caia.base.name])
    assert run_caiafs("migrate", caia.repo, target).returncode == 0
    git("clone", "-q", target, tmp_path / "work", cwd=tmp_path)
    (tmp_path / "work" / "doc").write_text("of the target")
    git("commit", "-qam", "Change", "--amend", cwd=tmp_path / "work")
    git("push", "-qf", cwd=tmp_path / "work")

    assert run_caiafs("migrate", caia.repo, target).returncode == 3

    assert git("show", "HEAD:doc", cwd=target) == "of the target"
