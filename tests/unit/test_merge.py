"""Merging two sides' changes: rules one by one, then every case at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.types import Change, DocPath, Entry, GitMode, ObjectId, blob_id
from caiafs.sync.merge import (
    MergeResult,
    Side,
    conflict_name,
    finish_merge,
    merge_text,
    plan_merge,
)

OURS_NS = 1_700_000_000_000_000_000
THEIRS_NS = 1_700_000_060_000_000_000

Tree = dict[bytes, Entry]


def entry(content: bytes, mode: int = GitMode.FILE) -> Entry:
    return Entry(mode, blob_id(content), len(content))


def tree(**documents: bytes) -> Tree:
    return {name.encode(): entry(content) for name, content in documents.items()}


def diff(old: Tree, new: Tree) -> dict[DocPath, Change]:
    return {
        DocPath(path): Change(DocPath(path), old.get(path), new.get(path))
        for path in old.keys() | new.keys()
        if old.get(path) != new.get(path)
    }


def apply(base: Tree, changes: tuple[Change, ...]) -> Tree:
    """Apply changes, each of which must start from what is there."""
    result = dict(base)
    for change in changes:
        before = result.pop(change.path, None)
        assert before == change.before
        if change.after is not None:
            result[change.path] = change.after
    return result


def merge(
    base: Tree,
    ours: Tree,
    theirs: Tree,
    *,
    contents: dict[ObjectId, bytes] | None = None,
    later: Side = Side.OURS,
) -> tuple[Tree, MergeResult]:
    """Merge as `sync` does; both sides must end at the same tree."""
    plan = plan_merge(diff(base, ours), diff(base, theirs), later=later)
    merged = {}
    for item in plan.merges:
        if contents is None:
            continue
        text = merge_text(*(contents[e.oid] for e in (item.base, item.ours, item.theirs)))
        if text is not None:
            contents[blob_id(text)] = text
            merged[item.path] = Entry(item.mode, blob_id(text), len(text))
    result = finish_merge(plan, merged, ours_time_ns=OURS_NS, theirs_time_ns=THEIRS_NS)
    from_ours, from_theirs = apply(ours, result.onto_ours), apply(theirs, result.onto_theirs)
    assert from_ours == from_theirs
    return from_ours, result


def copy_name(path: bytes, time_ns: int, content: bytes) -> bytes:
    return conflict_name(DocPath(path), time_ns, blob_id(content))


def test_changes_of_different_documents_both_stay():
    base = tree(a=b"1", b=b"1", c=b"1")

    merged, result = merge(base, tree(a=b"2", b=b"1"), tree(a=b"1", b=b"2", c=b"1", d=b"new"))

    assert merged == tree(a=b"2", b=b"2", d=b"new")
    assert result.conflicts == ()


def test_same_change_on_both_sides_is_no_change_for_either():
    base = tree(a=b"1", b=b"1")

    _, result = merge(base, tree(a=b"2"), tree(a=b"2"))

    assert result == MergeResult((), (), ())


def test_edit_survives_a_deletion_on_either_side():
    base, edited, deleted = tree(a=b"1"), tree(a=b"2"), tree()

    assert merge(base, edited, deleted)[0] == edited
    assert merge(base, deleted, edited)[0] == edited


def test_texts_changed_apart_become_one():
    contents = {blob_id(c): c for c in (b"1\n2\n3\n", b"0\n1\n2\n3\n", b"1\n2\n3\n4\n")}

    merged, result = merge(
        tree(a=b"1\n2\n3\n"),
        tree(a=b"0\n1\n2\n3\n"),
        tree(a=b"1\n2\n3\n4\n"),
        contents=contents,
    )

    assert merged == tree(a=b"0\n1\n2\n3\n4\n")
    assert result.conflicts == ()


@pytest.mark.parametrize("later", Side)
def test_in_a_conflict_the_later_side_keeps_the_name_and_the_other_stays_beside_it(later):
    ours, theirs = tree(a=b"ours"), tree(a=b"theirs")

    merged, result = merge(tree(a=b"base"), ours, theirs, later=later)

    if later is Side.OURS:
        copy = copy_name(b"a", THEIRS_NS, b"theirs")
        assert merged == {b"a": entry(b"ours"), copy: entry(b"theirs")}
    else:
        copy = copy_name(b"a", OURS_NS, b"ours")
        assert merged == {b"a": entry(b"theirs"), copy: entry(b"ours")}
    assert [conflict.copy_path for conflict in result.conflicts] == [copy]


def test_two_mounts_that_find_the_same_conflict_decide_alike():
    base, one, other = tree(a=b"base"), tree(a=b"one"), tree(a=b"other")
    here = plan_merge(diff(base, one), diff(base, other), later=Side.OURS)
    there = plan_merge(diff(base, other), diff(base, one), later=Side.THEIRS)

    merged_here = finish_merge(here, {}, ours_time_ns=1, theirs_time_ns=2)
    merged_there = finish_merge(there, {}, ours_time_ns=2, theirs_time_ns=1)

    assert apply(one, merged_here.onto_ours) == apply(other, merged_there.onto_ours)


def test_document_added_on_both_sides_with_other_contents_is_a_conflict():
    merged, result = merge(tree(), tree(a=b"ours"), tree(a=b"theirs"))

    assert len(merged) == 2
    assert len(result.conflicts) == 1


def test_mode_of_one_side_and_content_of_the_other_merge():
    base = {b"a": entry(b"1")}
    executable = {b"a": entry(b"1", GitMode.EXECUTABLE)}

    merged, result = merge(base, executable, tree(a=b"2"))

    assert merged == {b"a": entry(b"2", GitMode.EXECUTABLE)}
    assert result.conflicts == ()


def test_link_against_edited_document_is_a_conflict_that_keeps_both():
    link = {b"a": entry(b"target", GitMode.SYMLINK)}

    merged, _ = merge(tree(a=b"1"), link, tree(a=b"2"))

    assert merged == {b"a": link[b"a"], copy_name(b"a", THEIRS_NS, b"2"): entry(b"2")}


def test_edit_follows_a_rename_by_the_other_side():
    base = tree(old=b"1", x=b"x")

    for ours, theirs in (
        (tree(new=b"1", x=b"x"), tree(old=b"2", x=b"x")),
        (tree(old=b"2", x=b"x"), tree(new=b"1", x=b"x")),
    ):
        merged, result = merge(base, ours, theirs)
        assert merged == tree(new=b"2", x=b"x")
        assert result.conflicts == ()


def test_edit_follows_a_rename_of_a_document_that_was_edited_too():
    contents = {blob_id(c): c for c in (b"1\n2\n3\n", b"1\n2\n3\n4\n")}
    base, ours = tree(old=b"1\n2\n3\n"), tree(new=b"1\n2\n3\n")

    merged, _ = merge(base, ours, tree(old=b"1\n2\n3\n4\n"), contents=contents)

    assert merged == tree(new=b"1\n2\n3\n4\n")


def test_document_against_directory_keeps_both_and_the_directory_its_name():
    below = {b"a/b": entry(b"below")}

    for ours, theirs, time_ns in (
        (tree(a=b"document"), below, OURS_NS),
        (below, tree(a=b"document"), THEIRS_NS),
    ):
        merged, result = merge(tree(), ours, theirs)
        copy = copy_name(b"a", time_ns, b"document")
        assert merged == {b"a/b": entry(b"below"), copy: entry(b"document")}
        assert [(c.path, c.kept) for c in result.conflicts] == [(b"a", None)]


def test_edited_document_that_the_other_side_made_a_directory_goes_beside_it():
    merged, _ = merge(tree(a=b"1"), tree(a=b"2"), {b"a/b": entry(b"below")})

    assert merged == {b"a/b": entry(b"below"), copy_name(b"a", OURS_NS, b"2"): entry(b"2")}


def test_conflict_name_tells_when_and_which_and_keeps_the_extension():
    oid = ObjectId("1a2b3c4d" + "0" * 32)

    assert conflict_name(DocPath(b"d/report.txt"), OURS_NS, oid) == (
        b"d/report.conflict-20231114T221320Z-1a2b3c4d.txt"
    )
    assert conflict_name(DocPath(b".bashrc"), OURS_NS, oid) == (
        b".bashrc.conflict-20231114T221320Z-1a2b3c4d"
    )
    assert conflict_name(DocPath(b"raw"), OURS_NS, oid) == (
        b"raw.conflict-20231114T221320Z-1a2b3c4d"
    )


@given(
    name=st.one_of(
        st.binary(min_size=1, max_size=255), st.text(min_size=1, max_size=80).map(str.encode)
    ).filter(lambda name: not {0, 0x2F} & set(name) and len(name) <= 255)
)
def test_conflict_name_is_a_name_and_cuts_no_character(name):
    copy = conflict_name(DocPath(b"d/" + name), OURS_NS, blob_id(name))

    assert copy.startswith(b"d/")
    assert len(copy) - 2 <= 255
    assert b"/" not in copy[2:]
    try:
        name.decode()
    except UnicodeDecodeError:
        return
    assert copy.decode()


CONTENTS = (b"1\n2\n3\n4\n", b"0\n2\n3\n4\n", b"1\n2\n3\n5\n", b"\xffbinary", b"")
PATHS = (b"a", b"a/b", b"a/b/c", b"b", b"c.txt")
entries = st.builds(
    entry,
    st.sampled_from(CONTENTS),
    st.sampled_from([GitMode.FILE, GitMode.EXECUTABLE, GitMode.SYMLINK]),
)
trees = st.dictionaries(st.sampled_from(PATHS), entries).map(
    lambda documents: {
        path: held
        for path, held in documents.items()
        if not any(path.startswith(other + b"/") for other in documents)
    }
)


@given(base=trees, ours=trees, theirs=trees, later=st.sampled_from(Side))
def test_no_content_is_ever_dropped(base, ours, theirs, later):
    contents = {blob_id(content): content for content in CONTENTS}

    merged, _ = merge(base, ours, theirs, contents=contents, later=later)

    kept = {held.oid for held in merged.values()}
    ancestors = {held.oid for held in base.values()}
    joined = {
        blob_id(side)
        for old in CONTENTS
        for one in CONTENTS
        for other in CONTENTS
        for text in [merge_text(old, one, other)]
        if text is not None and blob_id(text) in kept and text not in CONTENTS
        for side in (one, other)
    }
    for held in (*ours.values(), *theirs.values()):
        assert held.oid in kept | ancestors | joined


@given(base=trees, ours=trees, theirs=trees)
def test_merged_tree_has_no_document_below_another(base, ours, theirs):
    merged, _ = merge(base, ours, theirs)

    assert not [p for p in merged for other in merged if p.startswith(other + b"/")]


@given(base=trees, ours=trees)
def test_merge_with_a_side_that_did_nothing_is_the_other(base, ours):
    assert merge(base, ours, base)[0] == ours
    assert merge(base, base, ours)[0] == ours


def test_a_change_of_mode_alone_does_not_keep_a_deleted_document():
    executable = {b"a": entry(b"1", GitMode.EXECUTABLE)}

    assert merge(tree(a=b"1"), executable, tree())[0] == {}
    assert merge(tree(a=b"1"), tree(), executable)[0] == {}


def test_renamed_to_two_names_it_has_both():
    merged, result = merge(tree(a=b"1"), tree(b=b"1"), tree(c=b"1"))

    assert merged == tree(b=b"1", c=b"1")
    assert result.conflicts == ()


def test_two_documents_renamed_to_one_name_are_both_kept():
    merged, result = merge(tree(a=b"1", b=b"2"), tree(c=b"1", b=b"2"), tree(a=b"1", c=b"2"))

    assert merged == {b"c": entry(b"1"), copy_name(b"c", THEIRS_NS, b"2"): entry(b"2")}
    assert len(result.conflicts) == 1


def test_names_that_differ_in_case_are_two_documents():
    merged, result = merge(tree(), tree(Doc=b"1"), tree(doc=b"2"))

    assert merged == tree(Doc=b"1", doc=b"2")
    assert result.conflicts == ()
