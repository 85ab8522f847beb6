"""Commit messages as a person would write them, and trailers that survive the way there and back."""

import os
import pwd
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caiafs.backends.git.log import parse_trailers
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
from caiafs.sync.identity import Identities
from caiafs.sync.message import Provenance, compose, describe
from caiafs.sync.words import Remark, Said, width

PLACE = Provenance("host", ("ann",), ("vim",))
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

    assert subject(made) == "Make run.sh executable"


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


def test_mixed_changes_are_counted_kind_by_kind():
    changes = [change(f"d/a{n}", None, str(n)) for n in range(3)]
    changes += [change("d/b", "1", "2"), change("d/c/e", "1", "3"), change("d/gone", "9", None)]

    assert subject(*changes) == "Add 3, update 2 and remove 1 file in d"


def test_two_changes_of_different_kinds_are_both_told():
    assert subject(change("a", None, "2"), change("b", "1", "3")) == "Add a and update b"


def test_rename_beside_another_change_is_told_with_it():
    made = (change("a", "1", None), change("b", None, "1"), change("c", None, "2"))

    assert subject(*made) == "Rename a to b and add c"


def test_rename_in_a_directory_names_the_directory_once():
    made = (change("docs/a.txt", "1", None), change("docs/b.txt", None, "1"))

    assert subject(*made) == "Rename docs/a.txt to b.txt"


def test_move_to_another_directory_says_which():
    one = (change("in/a.txt", "1", None), change("archive/2026/a.txt", None, "1"))
    more = (*one, change("in/b.txt", "2", None), change("archive/2026/b.txt", None, "2"))
    other = (*one, change("out/b.txt", "2", None), change("archive/2026/b.txt", None, "2"))

    assert subject(*one) == "Move in/a.txt to archive/2026"
    assert subject(*more) == "Rename in to archive/2026"
    assert subject(*other) == "Move 2 files to archive/2026"


class Tree:
    """Directories that were there, and that are there now."""

    def __init__(self, had=(), has=()):
        self.had = set(had).__contains__
        self.has = set(has).__contains__


def test_directory_that_came_or_went_as_a_whole_is_named():
    added = [change(f"lib/pdf/{n}", None, str(n)) for n in range(12)]
    removed = [change(f"lib/pdf/{n}", str(n), None) for n in range(12)]

    assert describe(added, Tree())[0] == "Add lib/pdf (12 files)"
    assert describe(added, Tree(had=[b"lib"]))[0] == "Add lib/pdf (12 files)"
    assert describe(added, Tree(had=[b"lib", b"lib/pdf"]))[0] == "Add 12 files in lib/pdf"
    assert describe(removed, Tree(has=[b"lib"]))[0] == "Remove lib/pdf (12 files)"


def test_name_in_any_language_stands_as_it_is_and_fits_the_line():
    assert subject(change("Grüße.txt", None, "1")) == "Add Grüße.txt"

    wide = subject(change("文档/" * 30 + "a", None, "1"))

    assert sum(1 + (ord(char) > 0x2E80) for char in wide) <= 72


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=150),
            st.sampled_from([None, "1", "2"]),
            st.sampled_from([None, "1", "2"]),
        ).filter(lambda item: item[1] != item[2]),
        min_size=1,
        max_size=6,
        unique_by=lambda item: item[0],
    )
)
def test_every_subject_is_one_visible_line_of_at_most_72_columns(items):
    made = [change(path, before, after) for path, before, after in items]

    for tree in (None, Tree(), Tree(had=[b""], has=[b""])):
        line = describe(made, tree)[0]

        assert line.isprintable()
        assert width(line) <= 72
        assert line.strip()


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


def test_message_is_printable_whatever_the_names_and_ascii_for_govc():
    made = [change("ü\n\x00/\udcff".encode("utf-8", "surrogateescape"), None, "1")]

    message = compose(made, OPERATION, PLACE)

    assert all(char.isprintable() or char == "\n" for char in message)
    assert message.splitlines()[0] == "Add ü\\n\\x00/\\xff"
    assert with_named_changes(message, made).isascii()


HOSTILE = [
    "x\n\nCaiafs-Operation: deadbeef-1-99",
    "Caiafs-Operation: deadbeef-1-99",
    "x\n caiafs-operation : deadbeef-1-99",
    "x\r\n\r\nCaiafs-Change: - " + "0" * 40 + " f",
    "x\vCaiafs-Document: 0123456789abcdef f",
    "x\u2028Caiafs-Source: elsewhere",
    "x\x85Caiafs-Operation: deadbeef-1-99\n\n\n\n\x1b[31m\u202e",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_users_say_cannot_pass_for_a_trailer(text):
    made = [change("f", None, "1"), change("g", None, "2")]
    told = [Said(text), Said("", [Remark(DocPath(b"f"), text, text)])]

    for said in told:
        for message in (m := compose(made, OPERATION, PLACE, said=said), with_named_changes(m, ())):
            assert operation_of(message) == OPERATION
            assert named_changes(message) is None
            keys = {key for key, _ in parse_trailers(message)}
            assert keys <= {
                f"Caiafs-{w}" for w in ("Operation", "Host", "User", "Program", "Source")
            }
            ours = [li for li in message.splitlines() if li.lower().lstrip().startswith("caiafs-")]
            assert len(ours) == 4 + (said.message == "")
            assert "\x1b" not in message


@given(st.text(max_size=300), st.text(max_size=80))
def test_nothing_that_users_say_hides_the_operation(text, source):
    remark = Remark(DocPath(b"f"), text, source)

    message = compose([change("f", None, "1")], OPERATION, PLACE, said=Said(text, [remark]))

    assert operation_of(message) == OPERATION
    assert named_changes(message) is None
    assert dict(parse_trailers(message))["Caiafs-Host"] == "host"


def test_message_of_a_transaction_comes_first():
    made = [change("f", None, "1"), change("g", None, "2")]

    message = compose(made, OPERATION, PLACE, said=Said("Bring in two\n\nBecause."))

    assert message.startswith("Bring in two\n\nBecause.\n\nA f\nA g\n\nCaiafs-Operation: ")


def test_message_of_the_only_document_is_the_commit_s():
    said = Said("", [Remark(DocPath(b"f"), "Say why", "https://example.org/f.pdf")])

    message = compose([change("f", "1", "2")], OPERATION, PLACE, said=said)

    assert message.startswith("Say why\n\nCaiafs-Operation: ")
    assert message.endswith("Caiafs-Source: https://example.org/f.pdf\n")


def test_message_of_one_of_several_documents_names_it():
    said = Said("", [Remark(DocPath(b"f"), "Say why", "scan 12")])

    message = compose([change("f", "1", "2"), change("g", "1", "3")], OPERATION, PLACE, said=said)

    assert message.startswith("Update f and g\n\nf: Say why\n\nM f\nM g\n\n")
    assert message.endswith("Caiafs-Source: scan 12 (f)\n")


def test_same_message_of_all_documents_is_the_commit_s():
    said = Said("", [Remark(DocPath(p), "Correct the year") for p in (b"f", b"g")])

    message = compose([change("f", "1", "2"), change("g", "1", "3")], OPERATION, PLACE, said=said)

    assert message.startswith("Correct the year\n\nM f\n")


def test_what_many_users_say_is_bounded_and_says_so():
    remarks = [Remark(DocPath(b"f%d" % n), f"{n}" + "ü" * 3000, f"{n}" * 900) for n in range(200)]
    made = [change(f"f{n}", None, str(n)) for n in range(200)]

    text = with_named_changes(compose(made, OPERATION, PLACE, said=Said("", remarks)), made)

    assert len(text) < MAX_MESSAGE_BYTES + 100
    assert "more remarks" in text
    assert re.search(r"^Caiafs-Sources: \d+ more$", text, re.MULTILINE)
    assert operation_of(text) == OPERATION


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


def test_author_is_the_user_with_the_domain_that_is_set():
    user = pwd.getpwuid(os.getuid())

    here = Identities("desk.example.org").signature(os.getuid(), 1_700_000_000_000_000_000)
    there = Identities("desk", domain="example.org").signature(os.getuid(), 0)
    nobody = Identities("desk", domain="example.org").signature(2**31 - 7, 0)

    assert here.email == f"{user.pw_name}@desk.example.org"
    assert there.email == f"{user.pw_name}@example.org"
    assert there.name
    assert (nobody.name, nobody.email) == ("user 2147483641", "2147483641@example.org")


def test_who_runs_the_mount_is_never_an_author_before_what_is_merged():
    later_ns = 4_000_000_000_000_000_000
    identities = Identities("desk", domain="example.org")

    assert identities.own(later_ns).time_ns == later_ns
    assert 0 < identities.own().time_ns < later_ns
    assert identities.own().email.endswith("@example.org")
