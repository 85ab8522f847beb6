"""What ops make of the published tree, where others have been there too."""

import pytest

from caiafs.core.types import Change, DocPath, Entry, GitMode, blob_id
from caiafs.state.ops import Op, OpKind
from caiafs.store.trailers import NamedConflict
from caiafs.sync.merge import merge_text
from caiafs.sync.replay import Merging, replay
from caiafs.sync.unseen import UnseenChanges


class Item:
    def __init__(self, name, mode, oid):
        self.name, self.mode, self.oid = name, mode, oid


class Trees:
    """Trees in memory, built from documents."""

    def __init__(self):
        self._trees = {}
        self.blobs = {}

    def add(self, documents):
        """Return the id of a tree with these documents (path to text)."""
        items, below = {}, {}
        for path, text in documents.items():
            head, _, rest = path.partition("/")
            if rest:
                below.setdefault(head, {})[rest] = text
                continue
            oid = blob_id(text.encode())
            self.blobs[oid] = text.encode()
            items[head] = Item(head.encode(), GitMode.FILE, oid)
        for name, inside in below.items():
            items[name] = Item(name.encode(), GitMode.DIRECTORY, self.add(inside))
        key = "".join(f"{n}:{i.oid};" for n, i in sorted(items.items()))
        oid = blob_id(b"tree" + key.encode())
        self._trees[oid] = list(items.values())
        return oid

    def read_tree(self, oid):
        return self._trees[oid]


@pytest.fixture
def trees():
    return Trees()


def oid_of(text):
    return None if text is None else blob_id(text.encode())


def op(kind, path, *, text=None, target=None, saw=None, moved=None):
    content = text if text is not None else moved
    return Op(
        seq=1,
        kind=kind,
        path=DocPath(path.encode()),
        target=DocPath(target.encode()) if target else None,
        mode=GitMode.FILE,
        oid=oid_of(content),
        size_bytes=len(content or ""),
        content_id=None,
        replaced=oid_of(saw),
        ino=1,
        uid=0,
        program="",
        time_ns=0,
    )


def put(path, text, saw=None):
    return op(OpKind.PUT, path, text=text, saw=saw)


def remove(path, saw=None):
    return op(OpKind.REMOVE, path, saw=saw)


def move(path, target, saw=None, moved=None):
    return op(OpKind.MOVE, path, target=target, saw=saw, moved=moved)


def exchange(path, target):
    return op(OpKind.EXCHANGE, path, target=target)


class Played:
    """The outcome of a replay, as texts."""

    def __init__(self, trees, documents, ops, unseen=None):
        self._trees = trees
        tree = trees.add(documents)
        merging = Merging(
            read=self._read,
            text=lambda path, base, ours, theirs: merge_text(base, ours, theirs, path=path),
            conflict_name=lambda path, time_ns, oid: DocPath(path + b".conflict"),
            foreign_time_ns=lambda path, oid: 0,
        )
        changes = UnseenChanges()
        seen_first = {p.encode(): Entry(GitMode.FILE, oid_of(t)) for p, t in documents.items()}
        changes.note(Change(p, shown, seen_first.get(p)) for p, shown in (unseen or {}).items())
        self.plan = replay(ops, trees, tree, merging, changes)
        self.documents = {p: oid_of(t) for p, t in documents.items()}
        for change in self.plan.changes:
            name = change.path.decode()
            assert self.documents.get(name) == (change.before and change.before.oid)
            self.documents.pop(name, None)
            if change.after is not None:
                self.documents[name] = change.after.oid

    def _read(self, oid):
        return self._trees.blobs.get(oid)

    def holds(self, **documents):
        return self.documents == {p.replace("__", "/"): oid_of(t) for p, t in documents.items()}

    def news(self):
        return {
            c.path.decode(): (c.before and c.before.oid, c.after and c.after.oid)
            for c in self.plan.news
        }


def play(trees, documents, *ops, known=(), unseen=None):
    for text in known:
        trees.blobs[oid_of(text)] = text.encode()
    return Played(trees, documents, ops, unseen)


def test_put_over_what_was_seen_replaces_it(trees):
    played = play(trees, {"f": "old"}, put("f", "new", saw="old"))

    assert played.holds(f="new")
    assert played.news() == {}


def test_what_changed_nothing_is_no_change(trees):
    played = play(trees, {"f": "1"}, put("g", "2"), remove("g", saw="2"))

    assert played.plan.changes == ()


def test_moving_a_directory_moves_all_below(trees):
    played = play(trees, {"a/x": "1", "a/b/y": "2"}, move("a", "c"))

    assert played.holds(c__x="1", c__b__y="2")


def test_moving_a_directory_moves_what_the_group_put_there(trees):
    played = play(trees, {"a/x": "1"}, put("a/z", "3"), move("a", "c"), put("c/x", "4", saw="1"))

    assert played.holds(c__x="4", c__z="3")


def test_removing_a_directory_removes_all_below(trees):
    played = play(trees, {"a/x": "1", "a/b/y": "2", "z": "3"}, remove("a"))

    assert played.holds(z="3")


def test_exchange_swaps_documents_and_directories(trees):
    played = play(trees, {"a": "1", "d/x": "2"}, exchange("a", "d"))

    assert played.holds(a__x="2", d="1")


def test_edits_of_different_lines_merge_and_the_mount_is_told(trees):
    base, ours, theirs = "1\n2\n3\n", "1\n2\nC\n", "A\n2\n3\n"

    played = play(trees, {"f": theirs}, put("f", ours, saw=base), known=(base, ours))

    assert played.holds(f="A\n2\nC\n")
    assert played.news() == {"f": (oid_of(ours), oid_of("A\n2\nC\n"))}
    assert played.plan.contents == {oid_of("A\n2\nC\n"): b"A\n2\nC\n"}


def test_conflicting_edits_are_both_kept(trees):
    played = play(
        trees, {"f": "theirs\n"}, put("f", "ours\n", saw="base\n"), known=("base\n", "ours\n")
    )

    assert played.holds(f="ours\n", **{"f.conflict": "theirs\n"})
    assert played.news() == {"f.conflict": (None, oid_of("theirs\n"))}
    assert played.plan.conflicts == (
        NamedConflict(
            DocPath(b"f"),
            DocPath(b"f.conflict"),
            oid_of("base\n"),
            oid_of("ours\n"),
            oid_of("theirs\n"),
        ),
    )


def test_two_new_documents_of_one_name_are_both_kept(trees):
    played = play(trees, {"f": "theirs\n"}, put("f", "ours\n"))

    assert played.holds(f="ours\n", **{"f.conflict": "theirs\n"})


def test_the_same_new_document_on_both_sides_is_no_conflict(trees):
    assert play(trees, {"f": "same"}, put("f", "same")).plan.changes == ()


def test_our_edit_outlives_their_deletion(trees):
    played = play(trees, {"z": "1"}, put("f", "ours", saw="base"))

    assert played.holds(z="1", f="ours")


def test_their_edit_outlives_our_deletion(trees):
    played = play(trees, {"f": "theirs"}, remove("f", saw="base"))

    assert played.holds(f="theirs")
    assert played.news() == {"f": (None, oid_of("theirs"))}


def test_their_edit_follows_our_rename(trees):
    shown = {DocPath(b"f"): Entry(GitMode.FILE, blob_id(b"base"))}

    played = play(trees, {"f": "theirs"}, move("f", "g", moved="base"), unseen=shown)

    assert played.holds(g="theirs")
    assert played.news() == {"g": (oid_of("base"), oid_of("theirs"))}


def test_rename_over_what_was_not_seen_keeps_it_beside(trees):
    played = play(trees, {"f": "1", "g": "theirs"}, move("f", "g", saw="base"))

    assert played.holds(g="1", **{"g.conflict": "theirs"})


def test_what_they_deleted_and_we_renamed_stays(trees):
    played = play(trees, {"z": "1"}, move("f", "g", moved="kept"))

    assert played.holds(z="1", g="kept")


def test_their_new_document_outlives_our_removal_of_its_directory(trees):
    unseen = {DocPath(b"d/new"): None}

    played = play(trees, {"d/old": "1", "d/new": "2"}, remove("d"), unseen=unseen)

    assert played.holds(d__new="2")
    assert played.news() == {"d/new": (None, oid_of("2"))}


def test_document_where_they_made_a_directory_goes_beside_it(trees):
    played = play(trees, {"f/x": "theirs"}, put("f", "ours"))

    assert played.holds(f__x="theirs", **{"f.conflict": "ours"})
    assert played.news() == {
        "f": (oid_of("ours"), None),
        "f/x": (None, oid_of("theirs")),
        "f.conflict": (None, oid_of("ours")),
    }


def test_directory_where_they_made_a_document_keeps_both(trees):
    played = play(trees, {"d": "theirs"}, put("d/x", "ours"))

    assert played.holds(d__x="ours", **{"d.conflict": "theirs"})


def test_second_version_after_a_merge_merges_again(trees):
    base, theirs = "1\n2\n3\n4\n5\n", "A\n2\n3\n4\n5\n"
    first, second = "1\n2\n3\n4\nE\n", "1\n2\nC\n4\nE\n"

    played = play(
        trees,
        {"f": theirs},
        put("f", first, saw=base),
        put("f", second, saw=first),
        known=(base, first, second),
    )

    assert played.holds(f="A\n2\nC\n4\nE\n")
