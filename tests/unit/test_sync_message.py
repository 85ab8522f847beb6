"""Commit messages as a person would write them, and trailers that survive the way there and back."""

from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.types import Change, DocPath, Entry, GitMode, blob_id
from caiafs.store.trailers import (
    MAX_MESSAGE_BYTES,
    NamedChange,
    Operation,
    named_changes,
    operation_of,
    with_named_changes,
    with_operation,
    writer_of,
)
from caiafs.sync.message import Provenance, compose, describe

PLACE = Provenance("host", "ann", ("vim",))
OPERATION = Operation("0badcafe", 3, 7)


def entry(text, mode=GitMode.FILE):
    return Entry(int(mode), blob_id(text.encode()))


def change(path, before=None, after=None, **modes):
    return Change(
        DocPath(path if isinstance(path, bytes) else path.encode()),
        entry(before, modes.get("old", GitMode.FILE)) if before is not None else None,
        entry(after, modes.get("new", GitMode.FILE)) if after is not None else None,
    )


def subject(*changes):
    return describe(changes)[0]


def test_one_document_is_named():
    assert subject(change("notes/todo.txt", None, "1")) == "Add notes/todo.txt"
    assert subject(change("notes/todo.txt", "1", "2")) == "Update notes/todo.txt"
    assert subject(change("notes/todo.txt", "1", None)) == "Remove notes/todo.txt"


def test_mode_change_says_so():
    made = change("run.sh", "1", "1", new=GitMode.EXECUTABLE)

    assert subject(made) == "Make executable run.sh"


def test_rename_names_both():
    assert (
        subject(change("a.txt", "1", None), change("b.txt", None, "1")) == "Rename a.txt to b.txt"
    )


def test_directory_rename_names_the_directories():
    changes = [change(f"old/sub/{n}", str(n), None) for n in range(5)]
    changes += [change(f"new/sub/{n}", None, str(n)) for n in range(5)]

    assert subject(*changes) == "Rename old to new"


def test_many_of_a_kind_are_counted_where_they_are():
    changes = [change(f"reports/2026/{n}", None, str(n)) for n in range(12)]

    assert subject(*changes) == "Add 12 files in reports/2026"


def test_mixed_changes_are_counted():
    changes = [change("d/a", None, "1"), change("d/b", "1", "2"), change("d/c/e", "1", "3")]

    assert subject(*changes) == "Change 3 files in d"


def test_two_documents_are_both_named():
    assert subject(change("a", "1", "2"), change("b", "1", "3")) == "Update a and b"


def test_body_lists_paths_up_to_a_bound():
    _, body = describe([change(f"f{n:03}", None, str(n)) for n in range(100)])

    lines = body.splitlines()
    assert lines[0] == "A f000"
    assert lines[-1] == "... and 50 more"
    assert len(lines) == 51


def test_long_path_is_cut_at_its_front():
    line = subject(change("d/" * 50 + "text.txt", None, "1"))

    assert len(line) <= 72
    assert line.endswith("d/text.txt")


def test_message_is_printable_ascii_whatever_the_names():
    message = compose(
        [change("ü\n\x00/\udcff".encode("utf-8", "surrogateescape"), None, "1")], OPERATION, PLACE
    )

    assert message.isascii()
    assert all(char.isprintable() or char == "\n" for char in message)
    assert message.splitlines()[0] == "Add \\xfc\\n\\x00/\\xff"


def test_operation_survives():
    message = compose([change("f", None, "1")], OPERATION, PLACE)

    assert operation_of(message) == OPERATION
    assert writer_of(message) == "0badcafe"


def test_others_commits_have_no_operation():
    assert operation_of("Fix things\n\nSigned-off-by: me\n") is None
    assert writer_of("Fix things") is None


PATHS = st.binary(min_size=1, max_size=60).map(DocPath)


@given(
    st.lists(st.tuples(PATHS, st.booleans(), st.booleans()), min_size=1, unique_by=lambda t: t[0])
)
def test_named_changes_survive_any_path(items):
    changes = [change(p, "1" if a else None, "2" if b or not a else None) for p, a, b in items]

    text = with_named_changes(compose(changes, OPERATION, PLACE), changes)

    wanted = tuple(
        NamedChange(c.path, c.before and c.before.oid, c.after and c.after.oid) for c in changes
    )
    assert named_changes(text) == wanted
    assert operation_of(text) == OPERATION
    assert text.isascii()


def test_too_many_names_say_that_some_are_missing():
    changes = [change("x" * 200 + str(n), None, "1") for n in range(1000)]

    text = with_named_changes(compose(changes, OPERATION, PLACE), changes)

    assert len(text) < MAX_MESSAGE_BYTES + 100
    assert named_changes(text) is None
    assert operation_of(text) == OPERATION


def test_operation_joins_trailers_that_are_there():
    text = with_operation("Subject\n\nSigned-off-by: me\n", "0badcafe-git-1")

    assert text == "Subject\n\nSigned-off-by: me\nCaiafs-Operation: 0badcafe-git-1\n"
    assert with_operation(text, "0badcafe-git-1") == text


def test_operation_of_a_bare_subject_is_a_paragraph_of_its_own():
    assert with_operation("Key: value", "a-1-2") == "Key: value\n\nCaiafs-Operation: a-1-2\n"
