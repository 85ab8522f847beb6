"""What a store process finds in the branch of what the mount has saved, whatever the clocks of its commits said."""

import subprocess

import pytest

from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.repository import open_repository
from caiafs.core.types import EMPTY_TREE, ObjectId
from caiafs.sync.recovery import find_settled

OURS = "0badcafe"
RECENT_S = 1_800_000_000
SET_BACK_S = 1_000_000_000


@pytest.fixture
def repository(tmp_path):
    made = open_repository(tmp_path / "repo.git")
    git(made, "hash-object", "-t", "tree", "-w", "/dev/null")
    return made


def git(repository, *arguments, time_s=RECENT_S):
    person = {"NAME": "n", "EMAIL": "e@x", "DATE": f"{time_s} +0000"}
    env = {
        f"GIT_{who}_{key}": value
        for who in ("AUTHOR", "COMMITTER")
        for key, value in person.items()
    }
    command = ["git", f"--git-dir={repository.git_dir}", *arguments]
    return subprocess.run(
        command, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(repository, *parents, operation="", time_s=RECENT_S):
    text = f"c\n\nCaiafs-Operation: {operation}\n" if operation else f"c {parents}"
    arguments = [part for parent in parents for part in ("-p", parent)]
    made = git(repository, "commit-tree", EMPTY_TREE, *arguments, "-m", text, time_s=time_s)
    return ObjectId(made)


def chain(repository, length, *, begin=None, time_s=RECENT_S):
    head = begin
    for step in range(length):
        head = commit(repository, *([head] if head else []), time_s=time_s + step)
    return head


def settled(repository, head, known):
    return find_settled(CommitLog(repository.new_reader()), head, known, OURS)


def test_commit_made_with_a_clock_that_was_set_back_is_found_behind_a_merge(repository):
    known = chain(repository, 100)
    ours = commit(repository, known, operation=f"{OURS}-3-7", time_s=SET_BACK_S)
    theirs = chain(repository, 5, begin=known, time_s=RECENT_S + 1000)
    head = commit(repository, theirs, ours, time_s=RECENT_S + 2000)

    assert settled(repository, head, known) == 7


def test_commit_that_the_mount_knows_counts_too(repository):
    known = commit(repository, chain(repository, 3), operation=f"{OURS}-1-2")

    assert settled(repository, known, known) == 2
    assert settled(repository, commit(repository, known), known) == 2


def test_without_a_known_commit_the_whole_branch_is_searched(repository):
    ours = commit(repository, chain(repository, 3), operation=f"{OURS}-1-2")
    head = chain(repository, 80, begin=ours)

    assert settled(repository, head, None) == 2
    assert settled(repository, head, ObjectId("1" * 40)) == 2
    assert settled(repository, None, None) == 0
