"""Names that are never published: what happens when a directory above them moves, and when git has them already."""

import os
from pathlib import Path

import pytest

from caiafs.core.types import blob_id
from tests.conftest import MountFactory
from tests.support.mount import Mount, git
from tests.tools.shell import shell

pytestmark = [pytest.mark.mount, pytest.mark.slow]

PATTERNS = "local_patterns=*~:build/:/tmp/*.txt:!keep~"


def published(caia: Mount) -> dict[str, str]:
    """Return the documents that git has, once everything is published."""
    caia.sync()
    names = caia.git("ls-tree", "-r", "--name-only", "HEAD").split() if caia.commits() else []
    return {name: caia.git("cat-file", "blob", f"HEAD:{name}") for name in names}


def state(path: Path) -> bytes:
    return os.getxattr(path, "user.caia.state")


@pytest.mark.parametrize(
    ("before", "line", "after"),
    [
        ({}, "mkdir build; echo 1 > build/a; mv build out", {"out/a"}),
        ({}, "mkdir -p x/build; echo 1 > x/build/a; mv x y", set()),
        ({}, "mkdir -p x/build; echo 1 > x/build/a; mv x/build x/out", {"x/out/a"}),
        ({"out/a"}, "mv out build", set()),
        ({"out/a"}, "mv out build; mv build again", {"again/a"}),
        ({}, "mkdir d~; echo 1 > d~/a; mv d~ d", {"d/a"}),
        ({}, "mkdir tmp; echo 1 > tmp/a.txt; echo 2 > tmp/b; mv tmp t", {"t/a.txt", "t/b"}),
        ({"t/a.txt", "t/b"}, "mv t tmp", {"tmp/b"}),
        ({"t/d/a.txt", "t/b"}, "mkdir tmp; mv t/d/a.txt tmp; mv t tmp/", {"tmp/t/b"}),
        ({}, "echo 1 > keep~", {"keep~"}),
    ],
)
def test_what_is_local_follows_from_the_whole_path_after_a_rename(
    mount_caia: MountFactory, before: set[str], line: str, after: set[str]
):
    caia = mount_caia(options=[PATTERNS])
    for name in before:
        (caia / name).parent.mkdir(exist_ok=True, parents=True)
        (caia / name).write_text(f"{name}\n")
    assert set(published(caia)) == set(before)

    shell(line, cwd=caia.path)

    assert set(published(caia)) == after
    shown = {p.relative_to(caia.path) for p in caia.path.rglob("*") if p.is_file()}
    for path in shown:
        wanted = b"published" if str(path) in after else b"local"
        assert state(caia.path / path) == wanted, path
    caia.remount()
    assert set(published(caia)) == after


@pytest.fixture
def tracked(mount_caia: MountFactory, tmp_path: Path) -> Mount:
    """Return a mount of a repository that has documents under local names."""
    work = tmp_path / "work"
    (work / "d~").mkdir(parents=True)
    for name in ("doc", "doc~", "d~/inner"):
        (work / name).write_text(f"{name} as git has it\n")
    git("init", "-q", "-b", "main", work, cwd=tmp_path)
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", "Begin", cwd=work)
    git("clone", "-q", "--bare", work, tmp_path / "repo.git", cwd=tmp_path)
    return mount_caia(repo=tmp_path / "repo.git")


CHANGES = {
    "in place": ("echo new > doc~", {"doc", "doc~", "d~/inner"}, {"doc~": "new\n"}),
    "in a local directory": (
        "echo new > d~/inner",
        {"doc", "doc~", "d~/inner"},
        {"d~/inner": "new\n"},
    ),
    "mode": ("chmod +x doc~", {"doc", "doc~", "d~/inner"}, {}),
    "removed": ("rm doc~", {"doc", "d~/inner"}, {}),
    "renamed to another name": ("mv doc~ other", {"doc", "other", "d~/inner"}, {}),
    "renamed to a local name": ("mv doc~ other~", {"doc", "d~/inner"}, {}),
    "replaced, as by an editor's backup": (
        "mv doc doc~; echo new > doc",
        {"doc", "doc~", "d~/inner"},
        {"doc": "new\n", "doc~": "doc as git has it\n"},
    ),
    "directory renamed": ("mv d~ d", {"doc", "doc~", "d/inner"}, {}),
    "directory removed": ("rm -r d~", {"doc", "doc~"}, {}),
    "beside it": ("echo 1 > new~; echo 1 > d~/new", {"doc", "doc~", "d~/inner"}, {}),
}


@pytest.mark.parametrize("how", CHANGES)
def test_document_that_git_has_under_a_local_name_stays_tracked(tracked: Mount, how: str):
    line, names, contents = CHANGES[how]
    assert state(tracked / "doc~") == b"published"
    assert (tracked / "d~" / "inner").read_text() == "d~/inner as git has it\n"

    shell(line, cwd=tracked.path)

    found = published(tracked)
    assert set(found) == names
    assert {name: found[name] for name in contents} == contents
    tracked.remount()
    assert published(tracked) == found
    for name, text in found.items():
        assert (tracked / name).read_text() == text


@pytest.mark.parametrize("size", [20, 5_000, 3_000_000])
def test_save_that_goes_to_a_local_name_before_it_is_published_keeps_its_content(
    caia: Mount, size: int
):
    content = os.urandom(size)
    (caia / "first").write_text("something to publish\n")
    (caia / "doc").write_bytes(content)
    (caia / "doc").rename(caia / "doc~")
    caia.sync()

    caia.remount()

    assert (caia / "doc~").read_bytes() == content
    (caia / "doc~").rename(caia / "doc")
    caia.sync()
    assert caia.git("rev-parse", "HEAD:doc").strip() == blob_id(content)


def test_save_that_is_removed_before_it_is_published_stays_readable_through_its_handle(
    mount_caia: MountFactory,
):
    caia = mount_caia(env={"CAIAFS_CACHE_BYTES": "0"})
    content = os.urandom(5_000)
    (caia / "doc").write_bytes(content)
    with (caia / "doc").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        (caia / "doc").unlink()
        caia.sync()

        assert file.read() == content
