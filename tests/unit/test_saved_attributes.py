"""Saved attributes: what is written is read again, whatever the bytes; and what is strange costs itself only."""

import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caiafs.backends.git.attribute_trees import (
    ATTRIBUTES,
    LINKS,
    SavedTrees,
    blob_entries,
    directory_tree,
    part_of,
)
from caiafs.backends.git.objects import parse_tree
from caiafs.backends.git.repository import open_repository
from caiafs.core import machine
from caiafs.core.errors import Corrupt
from caiafs.core.types import DocPath, InodeNo, ObjectId
from caiafs.state.saved import (
    SavedEntry,
    format_entries,
    format_links,
    parse_entries,
    parse_links,
)
from caiafs.sync.export_record import Exported, ExportRecord
from caiafs.vfs.restore import _file_mode
from tests.support.git_objects import fsck, git, write

NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in {b".", b".."}
)
TIMES = st.integers(-(1 << 63), (1 << 63) - 1)
IDS = st.integers(0, (1 << 32) - 2)
XATTRS = st.dictionaries(NAMES, st.binary(max_size=20), max_size=3)
ENTRIES = st.builds(
    SavedEntry,
    name=NAMES,
    mode=st.integers(0, 0o177777),
    uid=IDS,
    gid=IDS,
    mtime_ns=TIMES,
    atime_ns=TIMES,
    oid=st.none() | st.text("0123456789abcdef", min_size=40, max_size=40).map(ObjectId),
    explicit=st.booleans(),
    keep=st.booleans(),
    nlink=st.integers(0, 1 << 20),
    xattrs=XATTRS,
)


@given(st.lists(ENTRIES, unique_by=lambda entry: entry.name))
def test_entries_come_back_as_they_were(entries: list[SavedEntry]):
    found, bad = parse_entries(format_entries(entries))

    assert found == {entry.name: entry for entry in entries}
    assert bad == 0


@given(st.lists(ENTRIES, unique_by=lambda entry: entry.name), st.randoms())
def test_equal_entries_are_written_down_alike(entries: list[SavedEntry], random):
    shuffled = entries.copy()
    random.shuffle(shuffled)

    assert format_entries(shuffled) == format_entries(entries)


@given(st.lists(st.lists(NAMES.map(DocPath), min_size=2, unique=True)))
def test_links_come_back_as_they_were(groups: list[list[DocPath]]):
    found, bad = parse_links(format_links(groups))

    assert sorted(found) == sorted(sorted(group) for group in groups)
    assert bad == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_skipped(data: bytes):
    for parse in (parse_entries, parse_links):
        parse(b'{"version": 1}\n' + data)
        with pytest.raises(Corrupt):
            parse(b"x" + data)


GOOD = {"name": "a", "mode": "100644", "uid": 1, "gid": 2, "mtime_ns": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/b"},
        {"name": ".."},
        {"name": "nul\0"},
        {"name": "\ud800"},
        {"name": "a" * 5000},
        {"mode": "-1"},
        {"mode": "1000000"},
        {"mode": 33188},
        {"uid": -1},
        {"uid": 0xFFFFFFFF},
        {"uid": True},
        {"gid": 1.5},
        {"mtime_ns": 1 << 63},
        {"oid": "short"},
        {"oid": "x" * 40},
        {"nlink": -1},
        {"xattrs": ["user.a"]},
        {"xattrs": {"": "x"}},
        {"xattrs": {"user.a": 5}},
        {"xattrs": {"user.a": "x" * 100_000}},
    ],
    ids=str,
)
def test_strange_line_costs_itself_only(change: dict[str, object]):
    lines = [{"version": 1}, GOOD | change, GOOD | {"name": "good"}]

    found, bad = parse_entries("\n".join(map(json.dumps, lines)).encode())

    assert (list(found), bad) == ([b"good"], 1)


def test_names_and_values_can_be_read_by_a_person():
    entry = SavedEntry(b"doc", 0o104751, 1, 2, 3, 3, xattrs={b"user.note": b"kept"})

    shown = format_entries([entry]).decode().splitlines()[1]

    assert json.loads(shown) == {
        "name": "doc",
        "mode": "104751",
        "uid": 1,
        "gid": 2,
        "mtime_ns": 3,
        "xattrs": {"user.note": "kept"},
    }


@given(st.sets(NAMES | st.sampled_from([b".git", ATTRIBUTES, LINKS, b".gitmodules", b"%caia-"])))
def test_no_directory_is_taken_for_attributes(names: set[bytes]):
    own, _ = blob_entries({ATTRIBUTES: b"attributes", LINKS: b"links"})
    subtree = ObjectId("1" * 40)

    entries = parse_tree(directory_tree(parse_tree(own), dict.fromkeys(names, subtree)).data)

    assert len({entry.name for entry in entries}) == len(entries) == len(names) + 2
    assert sorted(e.name for e in entries if not e.is_dir) == [ATTRIBUTES, LINKS]


def test_a_tree_of_attributes_is_read_as_it_was_written_and_pleases_fsck(tmp_path):
    repository = open_repository(tmp_path / "repo")
    names = [b".git", ATTRIBUTES, b".gitmodules", b"caf\xe9", b"a"]
    inner_own, inner_blobs = blob_entries({ATTRIBUTES: b"inner"})
    inner = directory_tree(parse_tree(inner_own), {})
    own, blobs = blob_entries({ATTRIBUTES: b"outer", LINKS: b"links"})
    outer = directory_tree(parse_tree(own), dict.fromkeys(names, inner.oid))
    write(repository, [*inner_blobs, inner, *blobs, outer])
    saved = SavedTrees(repository.reader)

    assert saved.read(outer.oid) == ([b"outer"], dict.fromkeys(names, inner.oid))
    assert saved.read_links(outer.oid) == b"links"
    assert saved.read_links(inner.oid) is None
    git(repository.git_dir, "update-ref", "refs/tags/tree", outer.oid)
    assert fsck(repository.git_dir) == ""


def test_absurdly_large_attributes_are_refused_without_being_read(tmp_path, monkeypatch):
    monkeypatch.setattr("caiafs.backends.git.attribute_trees._BLOB_MAX_BYTES", 100)
    repository = open_repository(tmp_path / "repo")
    own, blobs = blob_entries({ATTRIBUTES: b"x" * 101})
    tree = directory_tree(parse_tree(own), {})
    write(repository, [*blobs, tree])

    with pytest.raises(Corrupt, match="absurdly large"):
        SavedTrees(repository.reader).read(tree.oid)


def test_a_changed_file_in_a_large_directory_rewrites_one_part_of_many():
    parts = {part_of(b"file %d" % number, 10_000) for number in range(10_000)}

    assert len(parts) == 64
    assert all(part.startswith(ATTRIBUTES) for part in parts)
    assert {part_of(b"file %d" % number, 500) for number in range(500)} == {ATTRIBUTES}


@given(st.integers(0, 0o7777), st.sampled_from([0o100644, 0o100755]), st.booleans())
def test_git_has_the_last_word_on_the_executable_bit(saved: int, in_git: int, keep_special: bool):
    mode = _file_mode(saved | stat.S_IFREG, in_git, keep_special=keep_special)

    assert bool(mode & 0o100) == bool(in_git & 0o100)
    if bool(saved & 0o100) == bool(in_git & 0o100):
        assert stat.S_IMODE(mode) == (saved if keep_special else saved & ~0o6000)


def test_a_seal_is_of_one_text_one_user_and_one_machine(monkeypatch):
    given_seal = machine.seal("tree")

    assert machine.is_sealed("tree", given_seal)
    assert not machine.is_sealed("another", given_seal)
    assert not machine.is_sealed("tree", "")
    monkeypatch.setattr(machine, "machine_id", lambda: "another machine")
    assert not machine.is_sealed("tree", given_seal)
    monkeypatch.undo()
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    assert not machine.is_sealed("tree", given_seal)


COMMIT = ObjectId("1" * 40)
SAVED = Exported(b"own", ObjectId("2" * 40))


def test_record_of_what_was_saved_is_that_of_one_state_db_and_one_commit(tmp_path):
    record = ExportRecord(tmp_path)
    record.update({InodeNo(5): SAVED}, "ours", COMMIT, 7)
    record.close()

    record = ExportRecord(tmp_path)

    assert (record.get(InodeNo(5)), record.get(InodeNo(6)), record.round) == (SAVED, None, 7)
    assert record.is_of("ours", COMMIT)
    assert not record.is_of("another", COMMIT)
    assert not record.is_of("ours", ObjectId("3" * 40))
    assert not record.is_of("ours", None)
    record.forget()
    assert (record.get(InodeNo(5)), record.round) == (None, -1)
    record.close()


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_damaged_record_is_begun_anew(tmp_path, damage):
    (tmp_path / "saved.db").write_bytes(damage)

    record = ExportRecord(tmp_path)

    assert (record.commit, record.round) == (None, -1)
    record.update({InodeNo(5): SAVED}, "ours", COMMIT, 7)
    record.close()
