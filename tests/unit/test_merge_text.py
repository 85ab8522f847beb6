"""Merging texts by lines, against what both sides wrote."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from caiafs.sync.merge_text import TEXT_MAX_BYTES, match_lines, merge_text

lines = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n", b"\n", b"}\n"]), max_size=12)
BASE = b"one\ntwo\nthree\nfour\nfive\n"


def test_changes_far_apart_merge():
    ours = BASE.replace(b"one", b"ONE")
    theirs = BASE.replace(b"five", b"FIVE") + b"six\n"

    assert merge_text(BASE, ours, theirs) == b"ONE\ntwo\nthree\nfour\nFIVE\nsix\n"


def test_changes_of_the_same_or_of_touching_lines_conflict():
    assert merge_text(BASE, BASE.replace(b"two", b"2"), BASE.replace(b"two", b"II")) is None
    assert merge_text(BASE, BASE.replace(b"two", b"2"), BASE.replace(b"three", b"3")) is None


def test_insertions_at_the_same_place_conflict():
    assert merge_text(BASE, BASE + b"ours\n", BASE + b"theirs\n") is None


def test_deletion_here_and_edit_there_merge():
    assert merge_text(BASE, BASE.replace(b"one\n", b""), BASE.replace(b"five", b"5")) == (
        b"two\nthree\nfour\n5\n"
    )


def test_same_change_on_both_sides_is_one_change():
    both = BASE.replace(b"two", b"2")

    assert merge_text(BASE, both + b"x\n", b"y\n" + both) == b"y\n" + both + b"x\n"


def test_bytes_that_are_no_text_conflict():
    for bad in (b"\xff", b"\0"):
        assert merge_text(BASE, b"x\n" + BASE, BASE + bad) is None
    assert merge_text(b"", b"x", b"y" * (TEXT_MAX_BYTES + 1)) is None


def test_last_lines_without_newline_never_run_together():
    base = b"a\nb\nc"

    assert merge_text(base, b"x\n" + base, base + b"\nd") == b"x\na\nb\nc\nd"
    for ours in (b"a\nb\nc1", b"a\nb", b"a\nb\nc\n"):
        for theirs in (b"a\nb\nc2", b"0\na\nb\nc", b"a\nb\nc\nd"):
            merged = merge_text(base, ours, theirs)
            assert merged is None or set(merged.split(b"\n")) <= set(
                (ours + b"\n" + theirs).split(b"\n")
            )


def test_carriage_returns_stay():
    base = b"a\r\nb\r\nc\r\nd\r\n"

    assert merge_text(base, b"x\r\n" + base, base + b"y\r\n") == b"x\r\n" + base + b"y\r\n"


def test_json_that_would_say_a_key_twice_conflicts():
    base = b'{\n"a": 1,\n"b": 2,\n"c": 3,\n"d": 4\n}\n'
    ours = base.replace(b'"a": 1,\n', b'"a": 1,\n"new": 1,\n')
    theirs = base.replace(b'"c": 3,\n', b'"c": 3,\n"new": 2,\n')

    assert merge_text(base, ours, theirs) is None
    assert merge_text(base, ours, theirs.replace(b"new", b"other")) is not None


def test_json_document_that_is_broken_on_a_side_conflicts():
    base = b"[\n1,\n2,\n3\n]\n"
    broken = base.replace(b"]", b"")

    assert merge_text(base, base.replace(b"1,", b"0,"), broken, path=b"x.json") is None
    assert merge_text(base, base.replace(b"1,", b"0,"), broken, path=b"x.txt") is not None


@given(base=lines, ours=lines, theirs=lines)
@example(base=[], ours=[b"a\n"], theirs=[b"b\n"])
def test_clean_merge_keeps_every_line_that_a_side_added_and_none_that_both_dropped(
    base, ours, theirs
):
    merged = merge_text(b"".join(base), b"".join(ours), b"".join(theirs))

    if merged is not None:
        have = merged.splitlines(keepends=True)
        for side in (ours, theirs):
            for line in set(side) - set(base):
                assert line in have
        for line in set(have):
            assert line in ours or line in theirs


@given(base=lines, ours=lines, theirs=lines)
def test_merge_is_the_same_from_both_sides(base, ours, theirs):
    versions = [b"".join(version) for version in (base, ours, theirs)]

    assert merge_text(*versions) == merge_text(versions[0], versions[2], versions[1])


@given(base=lines, ours=lines)
def test_side_that_changed_nothing_takes_the_other(base, ours):
    base_text, ours_text = b"".join(base), b"".join(ours)

    assert merge_text(base_text, ours_text, base_text) == ours_text
    assert merge_text(base_text, base_text, ours_text) == ours_text
    assert merge_text(base_text, ours_text, ours_text) == ours_text


@given(one=lines, other=lines)
def test_matches_are_equal_lines_in_order(one, other):
    matches = match_lines(one, other)

    assert all(one[left] == other[right] for left, right in matches)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(matches))
    if one == other:
        assert len(matches) == len(one)


def test_merging_large_and_repetitive_texts_ends():
    base = b"same\n" * 20_000
    other = b"x\ny\n" * 20_000

    assert merge_text(base, b"first\n" + base, base + b"last\n") is not None
    assert merge_text(base, other, base + b"last\n") is None
