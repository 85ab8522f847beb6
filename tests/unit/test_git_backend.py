"""Building commits, moving the branch, packs and logs: what the contract of backends does not say."""

import itertools
import os
import subprocess
import sys

import pytest
import trio

from caiafs.backends.git import pack
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.command import run_git
from caiafs.backends.git.log import (
    CommitLog,
    escape_path,
    format_commit,
    parse_commit,
    parse_trailers,
    unescape_path,
)
from caiafs.backends.git.loose import write_loose
from caiafs.backends.git.pack import PackWriter, new_object, write_pack
from caiafs.backends.git.repository import open_repository
from caiafs.backends.git.upkeep import MAX_PACKS
from caiafs.backends.git.writer import STREAM_ABOVE_BYTES
from caiafs.core.errors import Corrupt, RevisionConflict
from caiafs.core.types import (
    EMPTY_TREE,
    ChangeSet,
    DocPath,
    ObjectId,
    Signature,
    blob_id,
)
from tests.support.git_objects import a_backend, a_blob, documents_of, fsck, git
from tests.support.govc_documents import Contents, a_change_set
from tests.support.requirements import require_tool
from tests.support.waiting import PATIENCE_S

_operations = itertools.count(1)
SOMEBODY = Signature("Some Body", "some@example.org", 10**18)


@pytest.fixture
def backend(tmp_path):
    backend, _ = a_backend(tmp_path / "r")
    yield backend
    backend.contents.close()
    assert fsck(tmp_path / "r") == ""


@pytest.fixture
def contents(backend) -> Contents:
    return backend._source


def a_save(changes) -> ChangeSet:
    return a_change_set(changes, operation=f"feedf00d-{next(_operations)}-1")


def head_documents(backend: GitBackend) -> dict[bytes, bytes]:
    repository = backend.repository
    return documents_of(repository, repository.tree_of(repository.head_commit()))


async def test_built_commit_is_whole_on_disk_before_the_branch_moves(backend, contents, tmp_path):
    built = await backend.build(a_save({b"a/b": contents.put(b"x")}), None)

    assert await backend.head() is None
    elsewhere = open_repository(tmp_path / "r")
    assert documents_of(elsewhere, elsewhere.tree_of(built.commit)) == {b"a/b": b"x"}


async def test_building_again_gives_the_same_commit(backend, contents):
    save = a_save({b"a": contents.put(b"x")})

    assert await backend.build(save, None) == await backend.build(save, None)


async def test_contents_that_git_has_are_not_asked_for(backend, contents):
    entry = contents.put(b"moves")
    await backend.commit(a_save({b"old": entry}))
    contents.held.clear()

    result = await backend.commit(a_save({b"old": None, b"new": entry}))

    assert result.refused == ()
    assert head_documents(backend) == {b"new": b"moves"}


async def test_branch_that_somebody_moved_is_a_conflict(backend, contents):
    built = await backend.build(a_save({b"a": contents.put(b"ours")}), None)
    await backend.commit(a_save({b"b": contents.put(b"theirs")}))

    with pytest.raises(RevisionConflict):
        await backend.advance(built, None)
    assert head_documents(backend) == {b"b": b"theirs"}


async def test_advancing_again_after_a_lost_reply_is_harmless(backend, contents):
    built = await backend.build(a_save({b"a": contents.put(b"x")}), None)
    await backend.advance(built, None)

    await backend.advance(built, None)

    assert await backend.head() == built.commit


async def test_merge_commit_has_both_parents_and_the_first_ones_tree_changed(backend, contents):
    one = await backend.build(a_save({b"one": contents.put(b"1")}), None)
    other = await backend.build(a_save({b"other": contents.put(b"2")}), None)

    merge = await backend.build_merge(
        a_save({b"other": contents.put(b"2")}), (one.commit, other.commit)
    )
    await backend.advance(merge, None)

    assert head_documents(backend) == {b"one": b"1", b"other": b"2"}
    assert backend.log_of.commit(merge.commit).parents == (one.commit, other.commit)
    assert backend.log_of.merge_base(one.commit, other.commit) is None
    assert backend.log_of.is_ancestor(other.commit, merge.commit)
    assert not backend.log_of.is_ancestor(merge.commit, other.commit)


async def test_history_between_two_commits(backend, contents):
    heads: list[ObjectId] = []
    for number in range(5):
        await backend.commit(a_save({b"a": contents.put(b"%d" % number)}))
        heads.append(ObjectId(str(await backend.head())))

    between = backend.log_of.between(heads[1], heads[4])
    along = backend.log_of.between(heads[1], heads[4], first_parent=True)

    assert [record.oid for record in between] == [heads[4], heads[3], heads[2]]
    assert along == between
    assert [r.oid for r in backend.log_of.newest(heads[4])] == heads[::-1]
    assert backend.log_of.between(heads[4], heads[4]) == []


async def test_path_that_git_cannot_hold_is_refused_and_the_rest_stored(backend, contents):
    result = await backend.commit(
        a_save(
            {
                b"a/../b": contents.put(b"1"),
                b"fine": contents.put(b"2"),
                b"fine/below": contents.put(b"3"),
            }
        )
    )

    assert {path for path, _ in result.refused} == {b"a/../b", b"fine/below"}
    assert head_documents(backend) == {b"fine": b"2"}


async def test_document_below_a_submodule_is_refused_and_the_rest_stored(backend, contents):
    tree = new_object(b"tree", b"160000 sub\0" + bytes(range(20)))
    commit = new_object(b"commit", format_commit(tree.oid, (), SOMEBODY, "A submodule\n"))
    await backend.write_objects([tree, commit])
    save = a_save(
        {b"sub/a/f": contents.put(b"1"), b"sub/g": contents.put(b"2"), b"h": contents.put(b"3")}
    )

    with trio.fail_after(PATIENCE_S):
        built = await backend.build(save, commit.oid)

    assert [path for path, _ in built.refused] == [b"sub/a/f", b"sub/g"]
    reader = backend.repository.new_reader()
    assert [entry.name for entry in reader.read_tree(built.tree)] == [b"h", b"sub"]


async def test_content_that_is_not_what_its_id_says_is_refused(backend, contents):
    entry = contents.put(b"good")
    contents.held[entry.oid] = b"evil"

    result = await backend.commit(a_save({b"a": entry, b"b": contents.put(b"fine")}))

    assert [path for path, _ in result.refused] == [b"a"]
    assert head_documents(backend) == {b"b": b"fine"}


async def test_damaged_loose_blob_is_written_again_by_the_next_save_of_it(backend, contents):
    entry = contents.put(b"precious")
    write_loose(backend.repository.write_dir, [a_blob(b"precious")[1]])
    path = backend.repository.write_dir / entry.oid[:2] / entry.oid[2:]
    path.chmod(0o600)
    path.write_bytes(b"")

    await backend.commit(a_save({b"a": entry}))

    assert head_documents(backend) == {b"a": b"precious"}


@pytest.mark.slow
async def test_large_content_is_streamed_and_comes_back(backend, contents, tmp_path):
    content = os.urandom(1 << 20) * ((STREAM_ABOVE_BYTES >> 20) + 2)
    entry = contents.put(content)
    asked: list[int] = []
    read_range = contents.read_range

    async def counted(oid, start, stop):
        asked.append(stop - start)
        return await read_range(oid, start, stop)

    contents.read_range = counted
    await backend.commit(a_save({b"big": entry}))

    assert max(asked) <= 4 << 20
    document = await backend.read(DocPath(b"big"))
    assert document is not None
    assert document.content == content
    assert (
        await backend.contents.read_range(entry.oid, 5 << 20, (5 << 20) + 7)
        == content[5 << 20 :][:7]
    )
    assert await backend.contents.export(entry.oid, tmp_path / "out") == len(content)
    assert blob_id((tmp_path / "out").read_bytes()) == entry.oid


async def test_large_content_that_is_damaged_leaves_nothing_behind(backend, contents):
    content = bytes(STREAM_ABOVE_BYTES + 1)
    entry = contents.put(content)
    contents.held[entry.oid] = b"\1" + content[1:]

    result = await backend.commit(a_save({b"big": entry}))

    assert [path for path, _ in result.refused] == [b"big"]
    pack_dir = backend.repository.write_dir / "pack"
    assert list(pack_dir.iterdir()) == []


async def test_push_into_the_repository_is_built_upon(backend, contents, tmp_path):
    await backend.commit(a_save({b"a": contents.put(b"1")}))
    git(tmp_path, "clone", "-q", str(tmp_path / "r"), "clone")
    (tmp_path / "clone" / "pushed").write_text("by a person")
    git(tmp_path / "clone", "add", ".")
    git(tmp_path / "clone", "-c", "user.name=P", "-c", "user.email=p@q", "commit", "-q", "-m", "P")
    git(tmp_path / "clone", "push", "-q", "origin", "HEAD")

    await backend.commit(a_save({b"b": contents.put(b"2")}))

    assert head_documents(backend) == {b"a": b"1", b"b": b"2", b"pushed": b"by a person"}


async def test_many_packs_become_few_and_nothing_is_lost(backend, contents):
    await backend.commit(a_save({b"a": contents.put(b"1")}))
    built = await backend.build(
        a_save({b"b": contents.put(b"2")}), ObjectId(str(await backend.head()))
    )
    packs = backend.repository.write_dir / "pack"
    unreferenced = [a_blob(b"blob %d" % number)[1] for number in range(MAX_PACKS + 1)]
    for item in unreferenced:
        write_pack(backend.repository.write_dir, [item])

    assert await backend.maintain()

    assert len(list(packs.glob("*.pack"))) < 5
    assert not await backend.maintain()
    assert all(backend.repository.reader.exists(item.oid) for item in unreferenced)
    await backend.advance(built, built.parent)
    assert head_documents(backend) == {b"a": b"1", b"b": b"2"}


@pytest.mark.slow
async def test_saves_without_a_pause_never_pile_up_packs(backend, contents):
    for number in range(150):
        await backend.commit(a_save({b"a/b/c/d": contents.put(b"%d" % number)}))

    packs = list((backend.repository.write_dir / "pack").glob("*.pack"))
    assert len(packs) < 40
    assert head_documents(backend) == {b"a/b/c/d": b"149"}


async def test_saves_go_on_while_the_user_collects_garbage(backend, contents, tmp_path):
    async def collect() -> None:
        for _ in range(4):
            await run_git(tmp_path / "r", "gc", "-q", "--prune=2.weeks.ago")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        for number in range(20):
            await backend.commit(a_save({b"d%d/a" % number: contents.put(b"%d" % number)}))

    assert head_documents(backend) == {b"d%d/a" % n: b"%d" % n for n in range(20)}


async def test_hooks_and_helpers_of_a_hostile_repository_never_run(tmp_path):
    repository = open_repository(tmp_path / "r")
    witness = tmp_path / "ran"
    hook = tmp_path / "r" / "hooks" / "pre-auto-gc"
    hook.write_text(f"#!/bin/sh\ntouch {witness}\n")
    hook.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "diff.external", "gpg.program"):
        git(repository.git_dir, "config", key, f"touch {witness}")

    await run_git(repository.git_dir, "gc", "--auto")
    await run_git(repository.git_dir, "log", "--all")

    assert not witness.exists()


async def test_failing_git_command_says_why_in_one_line(tmp_path):
    repository = open_repository(tmp_path / "r")

    with pytest.raises(Corrupt) as caught:
        await run_git(repository.git_dir, "cat-file", "blob", "ab" * 20)

    assert "\n" not in str(caught.value)
    assert "ab" * 20 in str(caught.value)


def test_pack_passes_verify_pack_and_reads_back(tmp_path):
    repository = open_repository(tmp_path / "r")
    items = [a_blob(os.urandom(size))[1] for size in (0, 1, 15, 16, 2047, 2048, 100_000)]

    pack = write_pack(repository.write_dir, items)

    git(repository.git_dir, "verify-pack", str(pack))
    assert [repository.reader.read_blob(item.oid) for item in items] == [i.data for i in items]
    assert pack.stat().st_mode & 0o777 == 0o444


def test_abandoned_pack_leaves_nothing(tmp_path):
    repository = open_repository(tmp_path / "r")
    writer = PackWriter(repository.write_dir, 1)
    writer.add(a_blob(b"x")[1])

    writer.abandon()

    assert list((repository.write_dir / "pack").iterdir()) == []


def test_loose_objects_pass_fsck_and_read_back(tmp_path):
    repository = open_repository(tmp_path / "r")
    items = [a_blob(b"%d" % number)[1] for number in range(20)]

    write_loose(repository.write_dir, items)
    write_loose(repository.write_dir, items)

    assert fsck(repository.git_dir) == ""
    assert [repository.reader.read_blob(item.oid) for item in items] == [i.data for i in items]
    assert [p for p in repository.write_dir.iterdir() if p.is_file()] == []


@pytest.mark.parametrize("write", ["write_loose", "write_pack"])
def test_objects_are_synced_before_they_get_their_names(tmp_path, write):
    repository = open_repository(tmp_path / "r")
    trace = tmp_path / "trace"
    program = (
        "from pathlib import Path\n"
        "from caiafs.backends.git.loose import write_loose\n"
        "from caiafs.backends.git.pack import new_object, write_pack\n"
        f"{write}(Path({str(repository.write_dir)!r}), [new_object(b'blob', b'x')])\n"
    )
    command = [require_tool("strace"), "-f", "-y", "-e", "trace=fsync,rename", "-o", str(trace)]
    subprocess.run([*command, sys.executable, "-c", program], check=True)

    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line]
    kinds = ["rename" if "rename(" in call else "fsync" for call in calls]
    files = kinds.index("rename")
    assert files > 0
    assert kinds[-1] == "fsync"
    assert kinds.count("fsync") == files + (2 if write == "write_loose" else 1)
    if write == "write_pack":
        assert ".idx" in [call for call in calls if "rename(" in call][-1]


# --- commits as text


def test_commit_of_any_author_and_message_passes_fsck(tmp_path):
    repository = open_repository(tmp_path / "r")
    tree = new_object(b"tree", b"")
    authors = [
        Signature("", "", 0),
        Signature("A <b> C\n", "x\0y>", 1_700_000_000_000_000_000, -570),
        Signature("Zoë \udcff", "z@ö", 10**18, 845),
        Signature("...", "<>", -5),
    ]
    commits = [
        new_object(b"commit", format_commit(EMPTY_TREE, (), author, "Title\0\n\n\udcff body"))
        for author in authors
    ]

    write_pack(repository.write_dir, [tree, *commits])

    assert fsck(repository.git_dir) == ""


def test_commit_is_parsed_as_it_was_written():
    author = Signature("Ada", "ada@example.org", 1_700_000_000_000_000_000, -90)
    raw = format_commit(
        EMPTY_TREE, (ObjectId("ab" * 20),), author, "Save\n\nCaiafs-Operation: x-1-2\n"
    )

    record = parse_commit(ObjectId("cd" * 20), raw)

    assert record.author == author
    assert record.committer.name == "caiafs"
    assert record.committer.time_ns == author.time_ns
    assert record.parents == ("ab" * 20,)
    assert record.tree == EMPTY_TREE
    assert record.operation_id == "x-1-2"


def test_trailers_are_the_last_paragraph_and_only_where_all_of_it_is():
    assert parse_trailers("Title\n\nBody\n\nA: 1\nB-c: two\n words\n") == (
        ("A", "1"),
        ("B-c", "two words"),
    )
    assert parse_trailers("Title\n\nSee: this\nand that\n") == ()
    assert parse_trailers("Caiafs-Operation: in-a-title") == ()
    assert parse_trailers("") == ()


def test_any_path_comes_back_from_a_trailer():
    for path in (b"a/b c.txt", b"\xff/%41\n:", "ä".encode(), b"plain"):
        escaped = escape_path(DocPath(path))
        assert escaped.isascii()
        assert escaped.isprintable()
        assert unescape_path(escaped) == path


def test_foreign_commits_are_read_whatever_they_say(tmp_path):
    raw = (
        f"tree {EMPTY_TREE}\nauthor N\xff <n@x> 12 +0000\ncommitter broken\nencoding latin-1\n"
        "gpgsig -----BEGIN\n more\n -----END\n\nmessage\xff\n"
    ).encode("latin-1")

    record = parse_commit(ObjectId("ab" * 20), raw)

    assert record.author.time_ns == 12_000_000_000
    assert record.committer.name == "broken"
    assert record.message == "message\udcff\n"
    with pytest.raises(Corrupt):
        parse_commit(ObjectId("ab" * 20), b"nothing")


def test_log_of_a_repository_without_commits_is_empty(tmp_path):
    log = CommitLog(open_repository(tmp_path / "r").reader)

    assert list(log.newest(None)) == []
    assert log.between(None, None) == []


async def test_lock_of_packed_references_that_a_killed_git_left_is_removed(
    backend, contents, tmp_path
):
    built = await backend.build(a_save({b"a": contents.put(b"1")}), None)
    await backend.move_ref("refs/caia/x", built.commit, None)
    git(tmp_path / "r", "pack-refs", "--all")
    lock = tmp_path / "r" / "packed-refs.lock"
    lock.touch()
    os.utime(lock, (0, 0))

    await backend.move_ref("refs/caia/x", None, built.commit)

    assert backend.repository.refs.read("refs/caia/x") is None


def test_pack_that_a_full_disk_ended_leaves_nothing(tmp_path):
    writer = PackWriter(tmp_path, 1)
    writer.begin(b"blob", 5)
    writer._file.close()
    writer._file = open("/dev/full", "wb", buffering=1 << 20)  # noqa: SIM115  # closed by abandon
    writer.feed(b"hello")

    writer.abandon()

    assert list((tmp_path / "pack").iterdir()) == []


def test_pack_whose_index_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    writer = PackWriter(tmp_path, 1)
    writer.add(a_blob(b"x")[1])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack, "sync_path", full)
    with pytest.raises(OSError, match="No space"):
        writer.finish()
    writer.abandon()

    assert list((tmp_path / "pack").iterdir()) == []


async def test_unpacked_blob_is_given_up_after_its_last_range(backend, contents):
    content = bytes(2 << 20)
    entry = contents.put(content)
    await backend.commit(a_save({b"large": entry}))

    first = await backend.contents.read_range(entry.oid, 0, 1 << 20)
    kept = backend.contents._unpacked
    last = await backend.contents.read_range(entry.oid, 1 << 20, 2 << 20)

    assert kept is not None
    assert backend.contents._unpacked is None
    assert first + last == content
