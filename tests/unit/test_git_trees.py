"""Diff and edit of trees, against a plain dictionary."""

import stat
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caiafs.backends.git.objects import RawEntry, format_tree
from caiafs.backends.git.pack import new_object
from caiafs.backends.git.repository import open_repository
from caiafs.backends.git.trees import changed_tree_ids, diff_trees, edit_tree
from caiafs.core.errors import Corrupt, Refused
from caiafs.core.types import EMPTY_TREE, Change, DocPath, Entry, GitMode, ObjectId
from tests.support.git_objects import a_blob, a_tree, documents_of, fsck, write

components = st.sampled_from([b"a", b"b", b"c.txt", b"a.b", b"a0", b".git", b"%caia-x", b"\xff"])
paths = st.lists(components, min_size=1, max_size=4).map(b"/".join)
contents = st.sampled_from([b"one", b"two", b"three", b""])


def without_clashes(documents: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Drop documents that lie below another."""
    return {
        path: content
        for path, content in documents.items()
        if not any(path.startswith(other + b"/") for other in documents)
    }


trees = st.dictionaries(paths, contents, max_size=12).map(without_clashes)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return open_repository(tmp_path_factory.mktemp("trees") / "r")


def edit(repository, base: ObjectId, changes) -> ObjectId:
    tree, objects = edit_tree(repository.reader, base, changes)
    write(repository, objects)
    return tree


def put(path: bytes, content: bytes = b"x") -> Change:
    return Change(DocPath(path), None, a_blob(content)[0])


@given(old=trees, new=trees)
def test_diff_turns_the_old_tree_into_the_new_one_and_back(repository, old, new):
    old_tree, new_tree = a_tree(repository, old), a_tree(repository, new)

    changes = diff_trees(repository.reader, old_tree, new_tree)

    assert edit(repository, old_tree, changes) == new_tree
    back = [Change(change.path, change.after, change.before) for change in changes]
    assert edit(repository, new_tree, back) == old_tree


@given(old=trees, new=trees)
def test_diff_names_exactly_the_documents_that_differ_sorted(repository, old, new):
    old_tree, new_tree = a_tree(repository, old), a_tree(repository, new)

    changes = diff_trees(repository.reader, old_tree, new_tree)

    found = [change.path for change in changes]
    assert found == sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p))


@given(documents=trees)
def test_tree_holds_the_documents_put_into_it(repository, documents):
    tree = a_tree(repository, documents)

    assert documents_of(repository, tree) == documents


@given(old=trees, new=trees)
def test_changed_directories_are_those_whose_ids_differ(repository, old, new):
    old_tree, new_tree = a_tree(repository, old), a_tree(repository, new)
    reader = repository.reader

    found = changed_tree_ids(reader, old_tree, new_tree)

    for path, oid in found.items():
        entry = reader.entry_at(new_tree, path)
        assert entry is not None
        assert entry.oid == oid
        before = reader.entry_at(old_tree, path)
        assert before is None or before.oid != oid
    directories = {path[:i] for path in new for i, byte in enumerate(path) if byte == 0x2F}
    for path in directories:
        before, after = reader.entry_at(old_tree, path), reader.entry_at(new_tree, path)
        assert after is not None
        if (before is None or before.oid != after.oid) and path not in found:
            assert any(path.startswith(top + b"/") for top in found if top)


def test_trees_of_any_shape_pass_fsck(tmp_path):
    repository = open_repository(tmp_path / "r")
    a_tree(
        repository,
        {
            b"a": b"", b"a.b": b"1", b"a-": b"2", b"a0/b": b"3", b".git/config": b"4",
            b"d/.gitmodules": b"[bad", b"e/.gitmodules/x": b"5", b"d/.gitattributes": b"x" * 4000,
            b"x\\.git": b"6", b"g/.git/.git/.git": b"7", b"\xff\xfe/\x01": b"8",
        },
    )  # fmt: skip

    assert fsck(repository.git_dir) == ""


def test_gitmodules_changes_its_spelling_with_its_content_and_stays_one_document(repository):
    plain = a_tree(repository, {b".gitmodules": b""})
    bad = a_blob(b'[submodule "x"]\nurl = -evil\n')[1]
    write(repository, [bad])

    edited = edit(
        repository, plain, [Change(DocPath(b".gitmodules"), None, Entry(GitMode.FILE, bad.oid))]
    )

    assert documents_of(repository, edited) == {b".gitmodules": bad.data}
    assert [e.name for e in repository.reader.raw_tree(edited)] == [b"%caia-.gitmodules"]


def test_edit_rewrites_only_the_directories_it_touches(repository):
    base = a_tree(repository, {b"a/b/c": b"1", b"a/x/y": b"2", b"z/z": b"3"})

    _, objects = edit_tree(repository.reader, base, [put(b"a/b/c", b"new")])

    assert len(objects) == 3


def test_edit_that_changes_nothing_writes_nothing(repository):
    base = a_tree(repository, {b"a/b": b"1"})

    tree, objects = edit_tree(
        repository.reader, base, [put(b"a/b", b"1"), Change(DocPath(b"no/such"), None, None)]
    )

    assert (tree, objects) == (base, [])


def test_directory_vanishes_with_its_last_document(repository):
    base = a_tree(repository, {b"a/b/c/d": b"1", b"e": b"2"})

    tree = edit(repository, base, [Change(DocPath(b"a/b/c/d"), None, None)])

    assert [entry.name for entry in repository.reader.read_tree(tree)] == [b"e"]


def test_last_document_deleted_leaves_the_empty_tree(repository):
    base = a_tree(repository, {b"a/b": b"1"})

    tree, objects = edit_tree(repository.reader, base, [Change(DocPath(b"a/b"), None, None)])

    assert tree == EMPTY_TREE
    assert [item.oid for item in objects] == [EMPTY_TREE]


def test_document_put_over_a_directory_replaces_it_and_the_other_way_round(repository):
    base = a_tree(repository, {b"a/b": b"1", b"a/c": b"2", b"d": b"3"})

    tree = edit(repository, base, [put(b"a", b"1"), put(b"d/e", b"2")])

    assert documents_of(repository, tree) == {b"a": b"1", b"d/e": b"2"}


def test_deleting_a_document_leaves_a_directory_of_that_name(repository):
    base = a_tree(repository, {b"a/b": b"1"})

    assert edit(repository, base, [Change(DocPath(b"a"), None, None)]) == base


@pytest.mark.parametrize("path", [b"", b"/a", b"a//b", b"a/", b".", b"a/../b", b"a\0b"])
def test_path_that_no_tree_holds_is_refused(repository, path):
    with pytest.raises(Refused) as caught:
        edit_tree(repository.reader, EMPTY_TREE, [put(path)])

    assert caught.value.path == path


def test_document_below_another_of_the_same_edit_is_refused(repository):
    with pytest.raises(Refused) as caught:
        edit_tree(repository.reader, EMPTY_TREE, [put(b"a"), put(b"a/b/c")])

    assert caught.value.path == b"a/b/c"


def a_foreign_tree(repository, *entries: tuple[bytes, bytes, bytes]) -> ObjectId:
    tree = new_object(b"tree", format_tree([RawEntry(*entry) for entry in entries]))
    write(repository, [tree])
    return tree.oid


def test_submodule_is_no_document_and_survives_edits_beside_it(repository):
    commit = bytes.fromhex("ab" * 20)
    base = a_foreign_tree(repository, (b"160000", b"sub", commit))
    moved = a_foreign_tree(repository, (b"160000", b"sub", b"\x01" * 20))

    tree = edit(repository, base, [put(b"doc", b"one")])

    assert RawEntry(b"160000", b"sub", commit) in repository.reader.raw_tree(tree)
    assert [change.path for change in diff_trees(repository.reader, base, tree)] == [b"doc"]
    assert diff_trees(repository.reader, base, moved) == []


@pytest.mark.parametrize("path", [b"sub", b"sub/x"])
def test_document_in_the_place_of_a_submodule_is_refused(repository, path):
    base = a_foreign_tree(repository, (b"160000", b"sub", b"\1" * 20))

    with pytest.raises(Refused):
        edit_tree(repository.reader, base, [put(path)])


def test_bad_foreign_entries_are_not_shown_and_survive_edits(repository):
    blob = bytes.fromhex(a_blob(b"one")[0].oid)
    bad = [(b"100644", b"..", blob), (b"170000", b"device", blob), (b"40000", b".", blob)]
    base = a_foreign_tree(repository, (b"100664", b"old mode", blob), *bad)

    tree = edit(repository, base, [put(b"new", b"one")])

    shown = {entry.name: entry.mode for entry in repository.reader.read_tree(tree)}
    assert shown == {b"old mode": GitMode.FILE, b"new": GitMode.FILE}
    assert {RawEntry(*entry) for entry in bad} <= set(repository.reader.raw_tree(tree))


def test_damaged_tree_is_corrupt(repository):
    broken = new_object(b"tree", b"100644 name\0too short")
    write(repository, [broken])

    with pytest.raises(Corrupt):
        repository.reader.read_tree(broken.oid)


def test_path_of_2048_levels_is_edited_compared_and_read(repository):
    path = b"/".join([b"d"] * 2048)

    tree = a_tree(repository, {path: b"deep"})

    assert documents_of(repository, tree) == {path: b"deep"}
    assert [c.path for c in diff_trees(repository.reader, EMPTY_TREE, tree)] == [path]
    entry = repository.reader.entry_at(tree, DocPath(path))
    assert entry is not None
    assert stat.S_ISREG(entry.mode)


@pytest.mark.slow
def test_comparing_100000_documents_costs_what_differs(repository):
    documents = {
        b"documents/note/%d/%02d/%d/text.txt" % (n % 10, n % 12, n): b"one" for n in range(100_000)
    }
    old = a_tree(repository, documents)
    new = edit(repository, old, [put(b"documents/note/5/03/15/text.txt", b"two")])

    start = time.process_time()
    changes = diff_trees(repository.reader, old, new)
    elapsed_s = time.process_time() - start

    assert [change.path for change in changes] == [b"documents/note/5/03/15/text.txt"]
    assert elapsed_s < 1.0
