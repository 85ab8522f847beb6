"""The parts of a repair that need no repository: which commit a lost branch was at, and where things are kept."""

import errno
from pathlib import Path

import pytest

from caiafs.backends.git.log import CommitRecord
from caiafs.core.types import EMPTY_TREE, ObjectId, Signature
from caiafs.upkeep.lost import Lost
from caiafs.upkeep.repair_git import rank_heads

OURS = "Add a\n\nCaiafs-Operation: 0123abcd-1-1\n"


def oid(name: str) -> ObjectId:
    return ObjectId(name * 40)


def history(*commits: tuple[str, str, int, str]) -> dict[ObjectId, CommitRecord]:
    """Return records of commits, each its name, its parents' names, its time and its message."""
    return {
        oid(name): CommitRecord(
            oid(name),
            EMPTY_TREE,
            tuple(map(oid, parents)),
            Signature("a", "a@b", time * 10**9),
            Signature("a", "a@b", time * 10**9),
            message,
        )
        for name, parents, time, message in commits
    }


def test_a_push_on_top_of_our_commits_was_the_head():
    records = history(("a", "", 1, OURS), ("b", "a", 2, "Theirs"))

    assert rank_heads(records, set(), set())[0] == oid("b")


def test_a_push_that_a_mount_took_in_was_the_head_whatever_was_left_over():
    records = history(("a", "", 1, OURS), ("b", "a", 2, "Theirs"), ("c", "a", 3, OURS))

    assert rank_heads(records, {oid("b")}, set())[0] == oid("b")


def test_what_only_another_branch_leads_to_was_not_the_head():
    records = history(("a", "", 1, OURS), ("b", "a", 2, "Work"), ("c", "b", 3, "More work"))

    assert rank_heads(records, {oid("a")}, {oid("c")}) == [oid("a")]


def test_our_commit_that_another_branch_leads_to_may_have_been_the_head():
    records = history(("a", "", 1, OURS), ("b", "a", 2, OURS))

    assert rank_heads(records, set(), {oid("b")})[0] == oid("b")


def test_without_any_commit_of_ours_the_newest_was_the_head():
    records = history(("a", "", 1, "One"), ("b", "a", 2, "Two"))

    assert rank_heads(records, set(), set())[0] == oid("b")


def test_what_lies_on_another_file_system_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link", str(self), None, str(target))

    reference = tmp_path / "main"
    reference.write_text("nonsense")
    monkeypatch.setattr(Path, "rename", refuse)

    kept = Lost(tmp_path / "state").keep(reference, "refs")

    assert kept.read_text() == "nonsense"
    assert not reference.exists()
