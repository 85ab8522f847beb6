"""What commits say of conflicts, and what can be read from it again."""

import pytest

from caiafs.core.types import EMPTY_TREE, Change, DocPath, Entry, GitMode, ObjectId, blob_id
from caiafs.store.trailers import NamedConflict, conflict_trailers, named_conflicts
from caiafs.sync.conflict_notes import Resolution, find_resolutions, notes_of
from caiafs.sync.replay import Replay
from caiafs.sync.view import TreeView

COPY = DocPath(b"d/a.conflict-20261122T120000Z-1a2b3c4d.txt")
PATH = DocPath(b"d/a.txt")


class NoTrees:
    def read_tree(self, oid):
        return []


def entry(text: str) -> Entry:
    return Entry(GitMode.FILE, blob_id(text.encode()))


def before(**documents: str) -> TreeView:
    view = TreeView(NoTrees(), EMPTY_TREE)
    for path, text in documents.items():
        view.set(DocPath(path.encode()), entry(text))
    return view


def resolutions(*changes: Change, keeps: bool = True) -> list[Resolution]:
    view = before()
    if keeps:
        view.set(PATH, entry("ours"))
    return find_resolutions(changes, view)


gone = Change(COPY, entry("theirs"), None)


def test_a_copy_that_goes_ends_the_conflict_with_what_the_document_is():
    def changed(text):
        return Change(PATH, entry("ours"), entry(text))

    assert resolutions(gone) == [Resolution(PATH, "ours")]
    assert resolutions(gone, changed("theirs")) == [Resolution(PATH, "theirs")]
    assert resolutions(gone, changed("both")) == [Resolution(PATH, "other")]


def test_a_copy_beside_a_directory_that_goes_ends_the_conflict():
    view = before(**{"d/a.txt/below": "ours"})

    assert find_resolutions([gone], view) == [Resolution(PATH, "ours")]


def test_no_conflict_is_resolved_where_the_copy_moves_or_the_document_goes_too():
    moved = Change(DocPath(b"d/kept.txt"), None, entry("theirs"))

    assert resolutions(gone, moved) == []
    assert resolutions(gone, Change(PATH, entry("ours"), None)) == []
    assert resolutions(gone, keeps=False) == []


def test_a_commit_that_finds_a_conflict_says_so():
    named = NamedConflict(PATH, COPY, None, blob_id(b"ours"), blob_id(b"theirs"))
    changes = (
        Change(COPY, None, entry("theirs")),
        Change(PATH, entry("theirs"), entry("ours")),
    )

    notes = notes_of(Replay(changes, conflicts=(named,)), NoTrees(), EMPTY_TREE)

    assert notes.subject == "Update d/a.txt, keep a conflict copy"
    assert named_conflicts("\n".join(["Subject", "", *notes.trailers])) == [named]


@pytest.mark.parametrize("base", [None, ObjectId("1" * 40)])
def test_trailers_carry_any_path(base):
    named = NamedConflict(
        DocPath(b"d \xff\n%/a"), DocPath(b"d \xff\n%/a.c"), base, None, blob_id(b"x")
    )
    (line,) = conflict_trailers([named])

    assert line.isascii()
    assert line.isprintable()
    assert named_conflicts(f"Subject\n\n{line}\n") == [named]


def test_trailers_are_bounded():
    conflicts = [
        NamedConflict(DocPath(b"p%d" % i), DocPath(b"c%d" % i), None, None, blob_id(b"x"))
        for i in range(10_000)
    ]

    assert 50 < len(conflict_trailers(conflicts)) < 150
