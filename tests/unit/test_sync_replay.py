"""What ops make of the published tree, where others have been there too."""

import dataclasses

import pytest

from caiafs.core.types import Change, DocPath, Entry, GitMode, blob_id
from caiafs.state.ops import Op, OpKind
from caiafs.store.trailers import NamedConflict
from caiafs.sync.merge import merge_text
from caiafs.sync.replay import Merging, replay
from caiafs.sync.unseen import UNSEEN_MAX, UnseenChanges


class Item:
    def __init__(self, name, mode, oid):
        self.name, self.mode, self.oid = name, mode, oid


class Trees:
    """Trees in memory, built from documents."""

    def __init__(self):
        self._trees = {}
        self.blobs = {}
        self.modes = {}

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
            items[head] = Item(head.encode(), self.modes.get(head, GitMode.FILE), oid)
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


def entry(text, mode=GitMode.FILE):
    return Entry(mode, oid_of(text))


def at(path, shown):
    return {DocPath(path.encode()): shown}


def news_items(played):
    return {
        (c.path.decode(), c.before and c.before.oid, c.after and c.after.oid)
        for c in played.plan.news
    }


def test_our_edit_follows_their_rename(trees):
    unseen = {**at("f", entry("base")), **at("g", None)}

    played = play(trees, {"g": "base"}, put("f", "ours", saw="base"), unseen=unseen)

    assert played.holds(g="ours")
    assert news_items(played) == {
        ("f", oid_of("ours"), None),
        ("g", oid_of("base"), oid_of("ours")),
    }


def test_our_edit_keeps_its_name_where_they_made_several_documents_of_it(trees):
    unseen = {**at("f", entry("base")), **at("g", None), **at("h", None)}

    played = play(trees, {"g": "base", "h": "base"}, put("f", "ours", saw="base"), unseen=unseen)

    assert played.holds(f="ours", g="base", h="base")


def test_what_the_mount_has_seen_is_no_rename_that_an_edit_follows(trees):
    changes = UnseenChanges()
    changes.note([Change(DocPath(b"f"), entry("base"), None)])
    changes.note([Change(DocPath(b"g"), None, entry("base"))])
    changes.acknowledge(2, last_seq=0, settled_seq=0)

    assert list(changes.arrivals(oid_of("base"), 1)) == []
    assert changes.shown(DocPath(b"f"), 1) == ()


def test_copy_in_a_directory_that_was_renamed_meanwhile_leaves_its_old_path(trees):
    unseen = at("d/copy", None)

    played = play(trees, {"d/f": "1", "d/copy": "2"}, move("d", "b"), unseen=unseen)

    assert played.holds(b__f="1", b__copy="2")
    assert news_items(played) == {
        ("b/copy", None, oid_of("2")),
        ("d/copy", oid_of("2"), None),
    }


def test_their_new_document_follows_an_exchange_and_leaves_its_old_path(trees):
    unseen = at("d/copy", None)

    played = play(trees, {"d/copy": "2", "e/x": "1"}, exchange("d", "e"), unseen=unseen)

    assert played.holds(e__copy="2", d__x="1")
    assert ("d/copy", oid_of("2"), None) in news_items(played)
    assert ("e/copy", None, oid_of("2")) in news_items(played)


def test_renamed_document_goes_beside_a_directory_that_they_made_at_its_new_name(trees):
    played = play(trees, {"f": "1", "g/x": "theirs"}, move("f", "g", moved="1"))

    assert played.holds(g__x="theirs", **{"g.conflict": "1"})
    assert ("g", oid_of("1"), None) in news_items(played)


def test_rename_of_a_document_moves_no_directory_that_has_its_name_by_now(trees):
    played = play(trees, {"d/x": "ours"}, move("d", "d.conflict", moved="theirs"))

    assert played.holds(d__x="ours", **{"d.conflict": "theirs"})


def test_renamed_to_two_names_it_has_both(trees):
    played = play(trees, {"theirs": "1"}, move("f", "ours", moved="1"))

    assert played.holds(ours="1", theirs="1")


def test_our_change_of_mode_and_their_edit_merge_whatever_the_size(trees):
    chmod = dataclasses.replace(put("f", "base", saw="base"), mode=GitMode.EXECUTABLE)

    played = play(trees, {"f": "theirs\0"}, chmod)

    (change,) = played.plan.changes
    assert change.after.same_content(entry("theirs\0", GitMode.EXECUTABLE))
    assert played.plan.conflicts == ()


def test_their_change_of_mode_and_our_edit_merge(trees):
    shown = at("f", entry("base"))
    tree = {"f": "base"}
    trees.modes["f"] = GitMode.EXECUTABLE

    played = play(trees, tree, put("f", "ours", saw="base"), unseen=shown)

    (change,) = played.plan.changes
    assert change.after.same_content(entry("ours", GitMode.EXECUTABLE))


def test_a_version_that_was_seen_is_removed_with_its_directory(trees):
    played = play(trees, {"d/f": "1"}, remove("d"), unseen=at("d/f", entry("1")))

    assert played.holds()


def test_unseen_changes_are_forgotten_when_every_older_op_is_settled():
    changes = UnseenChanges()
    changes.note([Change(DocPath(b"f"), None, entry("1"))])
    changes.note([Change(DocPath(b"f"), entry("1"), entry("2"))])

    assert changes.shown(DocPath(b"f"), 5) == (None, entry("1"))
    changes.acknowledge(1, last_seq=5, settled_seq=3)
    assert changes.shown(DocPath(b"f"), 5) == (None, entry("1"))
    assert changes.shown(DocPath(b"f"), 6) == (entry("1"),)
    changes.settled(5)
    assert changes.shown(DocPath(b"f"), 5) == (entry("1"),)
    changes.acknowledge(2, last_seq=7, settled_seq=7)
    assert len(changes) == 0


def test_unseen_changes_are_bounded():
    changes = UnseenChanges()
    for number in range(3):
        paths = [DocPath(b"%d/%d" % (number, i)) for i in range(UNSEEN_MAX // 2 + 1)]
        changes.note([Change(path, None, entry("1")) for path in paths])

    assert len(changes) <= UNSEEN_MAX
    assert changes.shown(DocPath(b"0/1"), 1) == ()
    assert changes.shown(DocPath(b"2/1"), 1) == (None,)
