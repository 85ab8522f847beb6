"""The repository is older than the state DB, another one, or empty: the mount shows what it has, and what waits is published."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount, children, git
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

EXPECTED = "does not have commit|not in the repository any more|somebody moved"


def contents(root: Path) -> dict[str, str]:
    """Return every document below a mount point."""
    return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


def tree_of(caia: Mount) -> dict[str, str]:
    names = caia.git("ls-tree", "-r", "--name-only", "HEAD").split()
    return {name: caia.git("cat-file", "blob", f"HEAD:{name}") for name in names}


def wait_told(caia: Mount) -> None:
    reason = wait_until(
        lambda: [r for r in caia.health()["reasons"] if "restored from a backup or replaced" in r],
        "health says so",
    )[0]
    assert "does not have commit" in reason


@pytest.fixture
def caia(mount_caia: MountFactory, tmp_path: Path) -> Mount:
    """Return a mounted CAIA with four documents, and `tmp_path/backup` of its repository."""
    made = mount_caia()
    made.expect_log(EXPECTED)
    for name in ("a", "dir/b", "dir/deep/c", "other/d"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(f"first {name}")
    made.sync()
    made.unmount()
    shutil.copytree(made.repo, tmp_path / "backup")
    made.start()
    return made


def put_in_place(caia: Mount, replacement: Path) -> None:
    """Replace the repository of an unmounted CAIA; its state stays."""
    state = replacement / "caiafs"
    if state.exists():
        shutil.rmtree(state)
    (caia.repo / "caiafs").rename(state)
    shutil.rmtree(caia.repo)
    replacement.rename(caia.repo)


def change_and_lose(caia: Mount, replacement: Path) -> None:
    """Save what only the lost repository has, then put `replacement` in its place."""
    (caia / "dir" / "b").write_text("second b")
    (caia / "new").write_text("new")
    (caia / "dir" / "made").mkdir()
    (caia / "dir" / "made" / "e").write_text("new e")
    (caia / "a").unlink()
    caia.sync()
    caia.unmount()
    put_in_place(caia, replacement)


@pytest.mark.parametrize("looked_at", [True, False])
def test_mount_shows_what_the_backup_has(caia: Mount, tmp_path: Path, looked_at: bool):
    if looked_at:
        contents(caia.path)
    change_and_lose(caia, tmp_path / "backup")

    caia.start()
    wait_told(caia)

    expected = {name: f"first {name}" for name in ("a", "dir/b", "dir/deep/c", "other/d")}
    wait_until(lambda: contents(caia.path) == expected, "the mount shows the backup")
    (caia / "dir" / "b").write_text("third b")
    caia.sync()
    assert tree_of(caia) == expected | {"dir/b": "third b"}
    caia.remount()
    caia.wait_health("ok")
    assert contents(caia.path) == expected | {"dir/b": "third b"}


def test_versions_that_wait_are_published_into_the_older_repository(caia: Mount, tmp_path: Path):
    (caia / "dir" / "b").write_text("second b")
    caia.sync()
    caia.unmount()
    caia.options = ("commit=interval", "commit_interval=1h")
    caia.start()
    (caia / "waits").write_text("waits")
    (caia / "dir" / "b").write_text("third b")
    (caia / "other" / "d").unlink()
    caia.expect_log("documents left to publish")
    caia.kill9()
    wait_until(lambda: not children(caia.pid), "the store process has ended")
    put_in_place(caia, tmp_path / "backup")
    caia.options = ()

    caia.start()
    wait_told(caia)
    caia.sync()

    published = tree_of(caia)
    assert published["waits"] == "waits"
    assert published["dir/b"] == "third b"
    assert "other/d" not in published
    wait_until(lambda: contents(caia.path) == published, "the mount shows what is published")
    assert "first dir/b" in published.values()  # nobody knows what it was: a conflict copy


def test_fresh_empty_repository_gets_what_is_saved_from_now_on(caia: Mount, tmp_path: Path):
    contents(caia.path)
    git("init", "-q", "--bare", "-b", "main", tmp_path / "empty", cwd=tmp_path)
    change_and_lose(caia, tmp_path / "empty")

    caia.start()
    wait_told(caia)

    wait_until(lambda: contents(caia.path) == {}, "the mount shows the empty repository")
    (caia / "dir").mkdir(exist_ok=True)
    (caia / "dir" / "b").write_text("again")
    caia.sync()
    assert tree_of(caia) == {"dir/b": "again"}


def test_branch_that_was_replaced_by_an_unrelated_one_keeps_both(caia: Mount, tmp_path: Path):
    caia.sync()
    before = tree_of(caia)
    caia.unmount()
    work = tmp_path / "unrelated"
    git("init", "-q", "-b", "main", work, cwd=tmp_path)
    (work / "theirs").write_text("theirs")
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", "Another beginning", cwd=work)
    git("push", "-q", "-f", caia.repo, "HEAD:main", cwd=work)

    caia.start()
    caia.sync()

    assert tree_of(caia) == before | {"theirs": "theirs"}
    wait_until(lambda: contents(caia.path) == tree_of(caia), "the mount shows both")


def test_repository_that_is_moved_away_for_a_while_costs_nothing(caia: Mount, tmp_path: Path):
    caia.expect_log("was moved|store process restarted|publishing waits")
    (caia / "small").write_text("before")
    caia.sync()

    caia.repo.rename(tmp_path / "away")
    (caia / "small").write_text("meanwhile")
    assert (caia / "small").read_text() == "meanwhile"
    reason = wait_until(
        lambda: [r for r in caia.health()["reasons"] if "was moved" in r],
        "health says what is missing",
        timeout_s=120,
    )[0]
    assert str(caia.repo) in reason
    assert caia.stats()["state"]["pending_ops"] >= 1

    (tmp_path / "away").rename(caia.repo)
    caia.sync(timeout_s=120)
    assert tree_of(caia)["small"] == "meanwhile"
    caia.wait_health("ok")
