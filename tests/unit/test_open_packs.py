"""A reader that lives for weeks holds few packs open, and none that `git repack` removed."""

import os
import subprocess
from pathlib import Path

import pytest

from caiafs.backends.git import objects
from caiafs.backends.git.objects import ObjectReader
from caiafs.backends.git.pack import new_object, write_pack

PACKS = 100


def open_packs() -> list[str]:
    """Return the packs that this process has open, removed ones too."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:
            continue
        if "/objects/pack/pack-" in target:
            found.append(target)
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git_dir = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", "--bare", git_dir], check=True)
    return git_dir


def read_from_many_packs(reader: ObjectReader, git_dir: Path) -> None:
    for number in range(PACKS):
        item = new_object(b"blob", b"content %d" % number)
        write_pack(git_dir / "objects", [item])
        assert reader.read_blob(item.oid) == item.data


def test_reading_from_many_packs_holds_few_open(repository: Path):
    reader = ObjectReader(repository)

    read_from_many_packs(reader, repository)

    assert 0 < len(open_packs()) < PACKS


def test_packs_that_were_removed_are_let_go(repository: Path, monkeypatch: pytest.MonkeyPatch):
    reader = ObjectReader(repository)
    read_from_many_packs(reader, repository)
    subprocess.run(["git", "repack", "-adkq"], cwd=repository, check=True)
    monkeypatch.setattr(objects, "_REOPEN_S", 0.0)

    assert reader.exists(new_object(b"blob", b"content 1").oid)

    assert not [target for target in open_packs() if target.endswith(" (deleted)")]
