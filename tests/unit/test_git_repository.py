"""Which directories are taken for a repository, and which branch moves."""

import os
import subprocess
import sys
import threading
import time

import pytest

from caiafs.backends.git.loose import write_loose
from caiafs.backends.git.objects import ObjectReader
from caiafs.backends.git.pack import write_pack
from caiafs.backends.git.refs import STALE_LOCK_S, RefLocked, RefUpdate
from caiafs.backends.git.repository import open_repository
from caiafs.core.errors import ConfigError, Corrupt, NotFound, RevisionConflict
from caiafs.core.types import EMPTY_TREE, DocPath, GitMode, ObjectId
from tests.support.git_objects import a_blob, a_tree, fsck, git
from tests.support.requirements import require_root, require_tool


@pytest.fixture
def work_tree(tmp_path):
    """Return an ordinary repository with one commit on branch main."""
    path = tmp_path / "work"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    git(path, "config", "user.name", "Ada")
    git(path, "config", "user.email", "ada@example.org")
    (path / "doc.txt").write_text("hello\n")
    git(path, "add", "doc.txt")
    git(path, "commit", "-q", "-m", "First")
    return path


def test_missing_directory_becomes_a_bare_repository_on_main(tmp_path):
    repository = open_repository(tmp_path / "data" / "repo", branch=None)

    assert repository.is_new
    assert repository.is_bare
    assert repository.branch_ref == "refs/heads/main"
    assert repository.head_commit() is None
    assert repository.tree_of(None) == EMPTY_TREE
    assert git(repository.git_dir, "symbolic-ref", "HEAD").strip() == "refs/heads/main"
    assert fsck(repository.git_dir) == ""


def test_empty_directory_becomes_a_repository_and_is_found_again(tmp_path):
    first = open_repository(tmp_path, branch=None)
    second = open_repository(tmp_path, branch=None)

    assert (first.is_new, second.is_new) == (True, False)


def test_new_repository_that_a_crash_left_half_made_is_made_again(tmp_path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "refs").mkdir()
    (tmp_path / "config").write_text("")

    assert open_repository(tmp_path, branch=None).head_commit() is None


def test_bare_repository_keeps_its_own_branch(tmp_path):
    git(tmp_path, "init", "-q", "--bare", "-b", "trunk", "r.git")

    assert open_repository(tmp_path / "r.git").branch_ref == "refs/heads/trunk"


def test_checked_out_branch_is_refused_with_the_ways_out(work_tree):
    with pytest.raises(ConfigError) as caught:
        open_repository(work_tree)

    assert "branch=NAME" in str(caught.value)
    assert "git clone --bare" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_branch_of_a_work_tree_starts_where_head_is(work_tree):
    repository = open_repository(work_tree, branch="caia")

    assert not repository.is_bare
    assert repository.git_dir == work_tree / ".git"
    assert repository.head_commit() == git(work_tree, "rev-parse", "main").strip()
    entry = repository.reader.entry_at(
        repository.tree_of(repository.head_commit()), DocPath(b"doc.txt")
    )
    assert entry is not None
    assert repository.reader.read_blob(entry.oid) == b"hello\n"


def test_git_directory_of_a_work_tree_is_as_good_as_the_work_tree(work_tree):
    assert open_repository(work_tree / ".git", branch="caia").git_dir == work_tree / ".git"
    with pytest.raises(ConfigError, match="checked out"):
        open_repository(work_tree / ".git")


def test_branch_checked_out_in_a_linked_work_tree_is_refused(tmp_path, work_tree):
    git(work_tree, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))

    with pytest.raises(ConfigError, match="side is checked out"):
        open_repository(work_tree, branch="side")
    assert open_repository(tmp_path / "side", branch="x").git_dir == work_tree / ".git"


def test_detached_head_needs_a_branch_name(work_tree):
    git(work_tree, "checkout", "-q", "--detach")

    with pytest.raises(ConfigError, match="branch=NAME"):
        open_repository(work_tree)


def test_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(ConfigError, match="is a file"):
        open_repository(tmp_path / "file")


def test_directory_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("x")

    with pytest.raises(ConfigError, match="neither a git repository nor an empty directory"):
        open_repository(tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_directory_inside_a_repository_is_not_taken_for_it(work_tree):
    (work_tree / "below").mkdir()
    (work_tree / "below" / "x").write_text("x")

    with pytest.raises(ConfigError, match="neither"):
        open_repository(work_tree / "below")


def test_missing_repository_is_refused_where_none_may_be_made(tmp_path):
    with pytest.raises(ConfigError, match="no repository"):
        open_repository(tmp_path / "missing", create=False)
    assert not (tmp_path / "missing").exists()


def test_sha256_repository_is_refused(tmp_path):
    git(tmp_path, "init", "-q", "--bare", "--object-format=sha256", "r.git")

    with pytest.raises(ConfigError, match="SHA-256"):
        open_repository(tmp_path / "r.git")


def test_repository_of_another_owner_is_refused(tmp_path):
    require_root()
    repository = open_repository(tmp_path / "r.git")
    os.chown(repository.git_dir, 65534, 65534)

    with pytest.raises(ConfigError, match="another user"):
        open_repository(tmp_path / "r.git")


@pytest.mark.parametrize(
    "name",
    ["", "a..b", "-x", "a b", "x.lock", "a/.b", "a//b", "/a", "a/", "@", "a~1", "a\x00", "a:b"],
)
def test_bad_branch_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="no valid branch name"):
        open_repository(tmp_path / "r", branch=name)
    assert not (tmp_path / "r").exists()


def test_objects_can_go_to_a_directory_of_their_own(tmp_path, work_tree):
    repository = open_repository(work_tree, branch="caia", object_dir=tmp_path / "objects")
    entry, item = a_blob(b"elsewhere")

    write_loose(repository.write_dir, [item])

    assert repository.new_reader().read_blob(entry.oid) == b"elsewhere"
    with pytest.raises(NotFound):
        open_repository(work_tree, branch="caia").reader.read_blob(entry.oid)


@pytest.mark.parametrize("write", [write_loose, write_pack])
def test_reader_sees_what_another_process_writes_later(tmp_path, write):
    repository = open_repository(tmp_path / "r")
    entry, item = a_blob(b"later")
    assert not repository.reader.exists(entry.oid)

    write(repository.write_dir, [item])

    assert repository.reader.exists(entry.oid)
    assert repository.reader.size(entry.oid) == 5
    assert repository.reader.read_blob(entry.oid) == b"later"


def test_reader_goes_on_when_git_repacks_under_it(tmp_path):
    repository = open_repository(tmp_path / "r")
    items = [a_blob(b"blob %d" % number)[1] for number in range(10)]
    for item in items:
        write_pack(repository.write_dir, [item])
    tree = a_tree(repository, {b"%d" % n: item.data for n, item in enumerate(items)})
    git(repository.git_dir, "update-ref", "refs/test", tree)
    assert repository.reader.read_blob(items[0].oid) == b"blob 0"

    git(repository.git_dir, "repack", "-a", "-d", "-q")

    assert [repository.reader.read_blob(item.oid) for item in items] == [i.data for i in items]


def test_object_of_another_kind_or_none_at_all_is_not_found(tmp_path):
    repository = open_repository(tmp_path / "r")
    tree = a_tree(repository, {b"a": b"1"})

    with pytest.raises(NotFound):
        repository.reader.read_blob(tree)
    with pytest.raises(NotFound):
        repository.reader.read_tree(ObjectId("ab" * 20))
    with pytest.raises(NotFound):
        repository.reader.size(ObjectId("not an id"))


def test_damaged_object_is_corrupt(tmp_path):
    repository = open_repository(tmp_path / "r")
    entry, item = a_blob(b"content")
    write_loose(repository.write_dir, [item])
    path = repository.write_dir / entry.oid[:2] / entry.oid[2:]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-6] + b"damage")

    with pytest.raises(Corrupt):
        repository.new_reader().read_blob(entry.oid)


def test_modes_are_read_as_git_has_them(work_tree):
    (work_tree / "run").write_text("x")
    (work_tree / "run").chmod(0o755)
    (work_tree / "link").symlink_to("run")
    git(work_tree, "add", ".")
    git(work_tree, "commit", "-q", "-m", "Modes")
    reader = ObjectReader(work_tree / ".git")

    entries = reader.read_tree(ObjectId(git(work_tree, "rev-parse", "HEAD^{tree}").strip()))

    assert {entry.name: entry.mode for entry in entries} == {
        b"doc.txt": GitMode.FILE,
        b"run": GitMode.EXECUTABLE,
        b"link": GitMode.SYMLINK,
    }


# --- references


@pytest.fixture
def two_commits(tmp_path):
    repository = open_repository(tmp_path / "r")
    tree = a_tree(repository, {b"a": b"1"})
    commits = []
    for message in ("one", "two"):
        command = ["-c", "user.name=A", "-c", "user.email=a@b", "commit-tree", tree, "-m", message]
        commits.append(ObjectId(git(repository.git_dir, *command).strip()))
    return repository, *commits


def test_reference_moves_from_what_was_expected_only(two_commits):
    repository, one, two = two_commits
    repository.refs.update("refs/caia/deep/er/x", one, expected=None)

    with pytest.raises(RevisionConflict):
        repository.refs.update("refs/caia/deep/er/x", two, expected=two)
    with pytest.raises(RevisionConflict):
        repository.refs.update("refs/caia/deep/er/x", two, expected=None)
    repository.refs.update("refs/caia/deep/er/x", two, expected=one)

    assert repository.refs.read("refs/caia/deep/er/x") == two
    assert repository.refs.names("refs/caia/") == {"refs/caia/deep/er/x": two}


def test_moving_a_reference_again_to_where_it_is_changes_nothing(two_commits):
    repository, one, _ = two_commits
    repository.refs.update("refs/caia/x", one, expected=None)

    repository.refs.update("refs/caia/x", one, expected=None)

    assert repository.refs.read("refs/caia/x") == one


def test_of_several_references_none_moves_when_one_cannot(two_commits):
    repository, one, two = two_commits

    with pytest.raises(RevisionConflict):
        repository.refs.update_all(
            [RefUpdate("refs/caia/a", one, None), RefUpdate("refs/caia/b", one, two)]
        )

    assert repository.refs.names("refs/caia/") == {}


def test_reference_is_removed_packed_or_not(two_commits):
    repository, one, _ = two_commits
    repository.refs.update("refs/caia/a", one, expected=None)
    git(repository.git_dir, "pack-refs", "--all")

    repository.refs.update("refs/caia/a", None, expected=one)

    assert repository.refs.read("refs/caia/a") is None


KILLED = """
import os, signal, sys
from pathlib import Path
from caiafs.backends.git import refs
from caiafs.core.types import ObjectId

store = refs.RefStore(Path(sys.argv[1]))
store.mark_locks_in(Path(sys.argv[2]))
refs._current = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.update("refs/heads/main", ObjectId(sys.argv[3]), expected=None)
"""


def test_lock_that_a_killed_store_process_held_is_removed_at_the_next_start(two_commits, tmp_path):
    repository, _, second = two_commits
    marks = tmp_path / "marks"
    arguments = (repository.git_dir, marks, second)
    subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], check=False)
    lock = repository.git_dir / "refs" / "heads" / "main.lock"
    assert lock.exists()
    assert list(marks.iterdir())

    repository.refs.mark_locks_in(marks)

    assert not lock.exists()
    assert not list(marks.iterdir())
    repository.refs.update("refs/heads/main", second, expected=repository.head_commit())


def test_lock_of_somebody_else_is_left_alone_at_the_start(two_commits, tmp_path):
    repository, _, second = two_commits
    marks = tmp_path / "marks"
    arguments = (repository.git_dir, marks, second)
    subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], check=False)
    lock = repository.git_dir / "refs" / "heads" / "main.lock"
    lock.unlink()
    lock.touch()

    repository.refs.mark_locks_in(marks)

    assert lock.exists()


def test_lock_of_a_killed_process_is_removed_when_it_is_old(two_commits):
    repository, one, _ = two_commits
    (repository.git_dir / "refs" / "caia").mkdir()
    (repository.git_dir / "refs" / "caia" / "x.lock").touch()
    with pytest.raises(RefLocked):
        repository.refs.update("refs/caia/x", one, expected=None)

    too_early = repository.refs.remove_stale_lock("refs/caia/x", time.time())
    later = repository.refs.remove_stale_lock("refs/caia/x", time.time() + STALE_LOCK_S + 1)
    repository.refs.update("refs/caia/x", one, expected=None)

    assert (too_early, later) == (False, True)
    assert repository.refs.read("refs/caia/x") == one


def test_two_threads_moving_one_reference_never_both_win(two_commits):
    repository, one, two = two_commits
    outcomes: list[bool] = []

    def move(new: ObjectId) -> None:
        try:
            repository.refs.update("refs/caia/x", new, expected=None)
            outcomes.append(True)
        except (RevisionConflict, RefLocked):
            outcomes.append(False)

    threads = [threading.Thread(target=move, args=(oid,)) for oid in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == [False, True]


def test_moved_reference_and_its_new_directories_are_synced(tmp_path, two_commits):
    repository, one, _ = two_commits
    program = (
        "from pathlib import Path\n"
        "from caiafs.backends.git.refs import RefStore\n"
        f"RefStore(Path({str(repository.git_dir)!r})).update('refs/caia/new/x', {one!r}, expected=None)\n"
    )
    trace = tmp_path / "trace"
    require_tool("strace")

    subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-e",
            "trace=fsync",
            "-o",
            str(trace),
            sys.executable,
            "-c",
            program,
        ],
        check=True,
    )

    synced = trace.read_text()
    for name in ("refs/caia/new/x.lock>", "refs/caia/new>", "refs/caia>", "refs>"):
        assert name in synced


def test_a_pack_that_comes_to_an_empty_object_directory_is_seen(tmp_path, work_tree):
    repository = open_repository(work_tree, branch="caia", object_dir=tmp_path / "objects")
    entry, item = a_blob(b"later")
    assert not repository.reader.exists(entry.oid)

    write_pack(repository.write_dir, [item])

    assert repository.reader.exists(entry.oid)
