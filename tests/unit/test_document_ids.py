"""Which document is which: what a group tells of ids, what others make of it, and what is saved of it."""

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.document_ids import DocumentId, first_id
from caiafs.core.types import Change, DocPath, Entry, GitMode, ObjectId, blob_id
from caiafs.state.ops import Op, OpKind
from caiafs.state.saved_documents import format_documents, parse_documents
from caiafs.store.trailers import with_named_changes
from caiafs.sync.document_trailers import Origins, Told, joined, told_by
from caiafs.sync.documents import Documents

COMMIT = ObjectId("c" * 40)
OLD = blob_id(b"old")


def op(kind, path, target=None, *, directory=False, replaced=None, ino=0, aside=False):
    return Op(
        seq=1,
        kind=kind,
        path=DocPath(path),
        target=DocPath(target) if target else None,
        mode=GitMode.DIRECTORY if directory else GitMode.FILE,
        oid=None,
        size_bytes=0,
        content_id=None,
        replaced=replaced,
        ino=ino,
        uid=0,
        program="",
        time_ns=0,
        aside=aside,
    )


def put(path, ino=0):
    return op(OpKind.PUT, path, ino=ino)


def move(path, target, **more):
    return op(OpKind.MOVE, path, target, **more)


def entry(text):
    return Entry(int(GitMode.FILE), blob_id(text), len(text))


def added(path):
    return Change(DocPath(path), None, entry(b"1"))


def removed(path):
    return Change(DocPath(path), entry(b"1"), None)


def updated(path):
    return Change(DocPath(path), entry(b"1"), entry(b"2"))


class World:
    """A branch with documents that only their paths name, and the record of their ids."""

    def __init__(self, root):
        self.documents = Documents(root)
        self.documents.restore((), (), COMMIT)
        self.number = 0

    def commit(self, *changes, ops=()):
        self.number += 1
        told = self.documents.plan(ops, changes, f"0badcafe-{self.number}-{self.number}")
        commit = ObjectId(f"{self.number:040x}")
        self.documents.note_group(commit, ops, changes, told)
        return told

    def __getitem__(self, path):
        return self.documents.id_of(DocPath(path))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    with closing(made.documents):
        yield made


def test_first_document_at_a_path_has_the_path_s_id_and_needs_no_word(world):
    assert not world.commit(added(b"a"), ops=[put(b"a")])
    assert world[b"a"] == first_id(DocPath(b"a"))


def test_rename_keeps_the_id_and_says_so(world):
    told = world.commit(removed(b"a"), added(b"b"), ops=[move(b"a", b"b")])

    assert told.trailers() == (f"Caiafs-Document: {first_id(DocPath(b'a'))} b",)
    assert world[b"b"] == first_id(DocPath(b"a"))


def test_chain_of_renames_in_one_group_is_followed(world):
    ops = [move(b"a", b"t"), move(b"b", b"a"), move(b"t", b"c")]
    world.commit(removed(b"b"), updated(b"a"), added(b"c"), ops=ops)

    # What is at a path before and after is the same document.
    assert world[b"a"] == first_id(DocPath(b"a"))
    assert world[b"c"] == first_id(DocPath(b"c"))


def test_temporary_file_renamed_over_a_document_becomes_a_version_of_it(world):
    ops = [put(b"tmp"), move(b"tmp", b"a", replaced=OLD)]

    assert not world.commit(updated(b"a"), ops=ops)


def test_document_renamed_over_another_and_then_moved_is_that_other(world):
    ops = [move(b"a", b"b", replaced=OLD), move(b"b", b"c")]
    world.commit(removed(b"a"), removed(b"b"), added(b"c"), ops=ops)

    assert world[b"c"] == first_id(DocPath(b"b"))


def test_directory_is_one_line_however_much_is_in_it(world):
    changes = [removed(b"d/%d" % n) for n in range(9)] + [added(b"e/%d" % n) for n in range(9)]
    told = world.commit(*changes, ops=[move(b"d", b"e", directory=True)])

    assert told.trailers() == ("Caiafs-Moved: d e",)
    assert world[b"e/3"] == first_id(DocPath(b"d/3"))


def test_document_moved_out_of_a_moved_directory_is_told_apart(world):
    ops = [move(b"d", b"e", directory=True), move(b"e/x", b"y")]
    told = world.commit(removed(b"d/x"), removed(b"d/z"), added(b"e/z"), added(b"y"), ops=ops)

    assert world[b"y"] == first_id(DocPath(b"d/x"))
    assert world[b"e/z"] == first_id(DocPath(b"d/z"))
    assert "Caiafs-Moved: d e" in told.trailers()


def test_path_that_had_a_document_gives_the_next_one_an_id_of_its_own(world):
    world.commit(removed(b"a"), ops=[op(OpKind.REMOVE, b"a")])
    told = world.commit(added(b"a"), ops=[put(b"a")])

    assert world[b"a"] != first_id(DocPath(b"a"))
    assert told.ids == {b"a": world[b"a"]}


def test_backup_gives_its_id_back_to_what_comes_to_its_path(world):
    world.commit(removed(b"a"), ops=[op(OpKind.REMOVE, b"a", ino=5, aside=True)])

    assert not world.commit(added(b"a"), ops=[put(b"a", ino=6)])
    assert world[b"a"] == first_id(DocPath(b"a"))


def test_backup_that_is_published_again_takes_its_id_along(world):
    world.commit(removed(b"a"), ops=[op(OpKind.REMOVE, b"a", ino=5, aside=True)])
    world.commit(added(b"b"), ops=[put(b"b", ino=5)])
    world.commit(added(b"a"), ops=[put(b"a", ino=6)])

    assert world[b"b"] == first_id(DocPath(b"a"))
    assert world[b"a"] not in {world[b"b"], first_id(DocPath(b"a"))}


def test_directory_set_aside_gives_all_ids_back(world):
    aside = op(OpKind.REMOVE, b"d", directory=True, ino=9, aside=True)
    world.commit(removed(b"d/x"), removed(b"d/y"), ops=[aside])

    assert not world.commit(added(b"d/x"), added(b"d/y"), ops=[put(b"d/x"), put(b"d/y")])


def test_ids_are_there_again_after_a_restart(world, tmp_path):
    world.commit(removed(b"a"), added(b"b"), ops=[move(b"a", b"b")])
    again = Documents(tmp_path)

    with closing(again):
        assert again.is_ready
        assert again.id_of(DocPath(b"b")) == first_id(DocPath(b"a"))


def test_damaged_record_is_made_anew(tmp_path):
    (tmp_path / "documents.db").write_bytes(b"no database" * 1000)
    with closing(Documents(tmp_path)) as documents:
        assert not documents.is_ready
        assert documents.commit is None


def test_what_a_group_tells_makes_another_mount_agree(world, tmp_path):
    other = World(tmp_path / "other" if (tmp_path / "other").mkdir() is None else tmp_path)
    steps = [
        ((added(b"d/x"), added(b"a")), [put(b"d/x"), put(b"a")]),
        ((removed(b"d/x"), added(b"e/x")), [move(b"d", b"e", directory=True)]),
        ((removed(b"a"), added(b"b")), [move(b"a", b"b")]),
        ((added(b"a"), added(b"d/x")), [put(b"a"), put(b"d/x")]),
        ((removed(b"e/x"), added(b"f/x")), [move(b"e", b"f", directory=True)]),
    ]
    messages = []
    with closing(other.documents):
        for changes, ops in steps:
            told = world.commit(*changes, ops=ops)
            text = "Subject\n\nCaiafs-Operation: 0badcafe-1-1\n" + "\n".join(told.trailers())
            messages.append(with_named_changes(text, changes))
            other.documents.note(COMMIT, changes, told_by(messages[-1]))
        paths = (b"a", b"b", b"d/x", b"f/x")
        assert [other[path] for path in paths] == [world[path] for path in paths]

    late = World(tmp_path / "late" if (tmp_path / "late").mkdir() is None else tmp_path)
    with closing(late.documents):
        late.documents.note(COMMIT, [added(path) for path in paths], joined(messages))
        assert [late[path] for path in paths] == [world[path] for path in paths]


def test_many_origins_through_exchanged_directories():
    origins = Origins([op(OpKind.EXCHANGE, b"a", b"b", directory=True)])

    assert origins.of(DocPath(b"a/x")) == b"b/x"
    assert origins.of(DocPath(b"b/x")) == b"a/x"


PATHS = st.binary(min_size=1, max_size=40).map(DocPath)
IDS = st.integers(0, 2**64 - 1).map(lambda n: DocumentId(f"{n:016x}"))


@given(st.dictionaries(PATHS, IDS, max_size=8), st.lists(st.tuples(PATHS, PATHS), max_size=3))
def test_what_is_told_survives_any_path(ids, moved):
    told = Told(ids, moved)

    found = told_by("Subject\n\n" + "\n".join(told.trailers()) + "\n")

    assert dict(found.ids) == ids
    assert list(found.moved) == moved


@given(st.dictionaries(PATHS, IDS, max_size=700), st.sets(IDS, max_size=20))
def test_what_is_saved_survives_any_path(ids, spent):
    blobs = format_documents(sorted(ids.items()), sorted(spent), COMMIT)

    found = parse_documents(blobs)

    assert found is not None
    assert dict(found.ids) == ids
    assert set(found.spent) == spent
    assert found.commit == COMMIT


@pytest.mark.parametrize(
    "blobs",
    [
        {},
        {b"": b""},
        {b"": b"nonsense"},
        {b"": b"[]\n"},
        {b"": b'{"version": 2, "commit": "' + b"c" * 40 + b'"}\n'},
        {b"": b'{"version": 1, "commit": "../x"}\n'},
        {b"": b'{"version": 1, "commit": 7}\n'},
    ],
)
def test_record_that_is_none_of_ours_is_left_out(blobs):
    assert parse_documents(blobs) is None


def test_lines_that_make_no_sense_cost_themselves():
    head = b'{"version": 1, "commit": "' + b"c" * 40 + b'"}\n'
    lines = b'{"path": "a", "id": "x"}\n{"path": 1}\n\xff\n' + b"[" * 9999 + b"\n"
    good = b'{"path": "b", "id": "0123456789abcdef"}\n'

    found = parse_documents({b"": head, b".00": lines + good})

    assert found is not None
    assert found.ids == [(b"b", "0123456789abcdef")]
