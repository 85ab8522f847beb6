"""What `.caia/conflicts` says of a conflict, whatever of it is known."""

import json
from types import SimpleNamespace

import pytest

from caiafs.core.conflicts import conflict_name, parse_copy_name
from caiafs.core.types import DocPath, InodeNo, ObjectId, blob_id
from caiafs.link.messages import Origin, Version
from caiafs.vfs.conflicts import Conflict, Place, conflict_key
from caiafs.virtual.conflicts import build_conflicts, describe
from caiafs.virtual.nodes import DocumentFile, LiveDirectory, VirtualFile

BASE, OURS, THEIRS = (blob_id(text) for text in (b"base", b"ours", b"theirs"))
PATH = DocPath(b"d/doc \xff.txt")
COPY = conflict_name(PATH, 1_700_000_000 * 10**9, THEIRS)


def an_inode(oid, *, dirty=False, directory=False):
    return SimpleNamespace(
        oid=oid, size=4, mtime_ns=7, dirty=dirty, unhashed=None, is_publishable=not directory
    )


class Shown:
    """A mount with one conflict."""

    def __init__(self, *, origin=None, ours=None, here=(BASE,)):
        self.inodes = {1: ours or an_inode(OURS), 2: an_inode(THEIRS)}
        self.here = here
        self.conflict = Conflict(
            key=conflict_key(b"doc \xff.txt", COPY),
            path=PATH,
            copy_path=COPY,
            document=Place(InodeNo(9), b"doc", InodeNo(1)),
            copy=Place(InodeNo(9), b"copy", InodeNo(2)),
            named=parse_copy_name(COPY.removeprefix(b"d/")),
            kind="content",
            origin=origin,
        )

    def open_conflicts(self):
        return [self.conflict]

    def inode(self, ino):
        return self.inodes.get(ino)

    def blob_size(self, oid):
        return 4 if oid in self.here else None

    def info(self):
        return describe(self, self.conflict)

    def files(self):
        directory = build_conflicts(self)[0]
        assert isinstance(directory, LiveDirectory)
        (inside,) = directory.children.values()
        return inside.children


def an_origin(base=BASE):
    ours = Version(OURS, ObjectId("1" * 40), "Ada <a@e.org>", 5 * 10**9)
    theirs = Version(THEIRS, ObjectId("2" * 40), "Bob <b@e.org>", 6 * 10**9)
    return Origin("copy", ObjectId("3" * 40), 7 * 10**9, base, ours, theirs)


def test_what_the_history_says_is_in_the_files():
    shown = Shown(origin=an_origin())

    info = shown.info()

    assert set(shown.files()) == {b"base", b"ours", b"theirs", b"info.json"}
    assert info["path"] == "d/doc \\xff.txt"
    assert info["path_quoted"] == "d/doc%20%FF.txt"
    assert info["ours"]["author"] == "Ada <a@e.org>"
    assert info["theirs"]["time"] == "1970-01-01T00:00:06Z"
    assert info["base"] == {"blob": BASE, "size": 4, "here": True}
    assert info["explained"] is True


def test_before_the_history_has_answered_there_are_both_versions():
    shown = Shown()

    info = shown.info()

    assert set(shown.files()) == {b"ours", b"theirs", b"info.json"}
    assert (info["explained"], info["base"], info["commit"]) == (False, None, None)
    assert info["time"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("ours", [an_inode(blob_id(b"new")), an_inode(OURS, dirty=True)])
def test_a_document_that_was_edited_since_is_nobody_s_known_version(ours):
    info = Shown(origin=an_origin(), ours=ours).info()

    assert info["ours"]["edited"] is True
    assert info["ours"]["author"] is None


def test_a_base_that_is_not_here_is_named_and_no_file():
    shown = Shown(origin=an_origin(), here=())

    assert b"base" not in shown.files()
    assert shown.info()["base"] == {"blob": BASE, "size": None, "here": False}


def test_a_directory_is_no_version():
    shown = Shown(ours=an_inode(None, directory=True))

    assert shown.info()["ours"] is None
    assert b"ours" not in shown.files()


def test_nothing_can_be_written():
    shown = Shown(origin=an_origin())

    assert not any(node.mode & 0o222 for node in shown.files().values())
    assert isinstance(shown.files()[b"ours"], DocumentFile)


def test_the_list_has_what_each_info_says():
    shown = Shown(origin=an_origin())
    _, listing = build_conflicts(shown)

    assert isinstance(listing, VirtualFile)
    assert json.loads(listing.render()) == {"conflicts": [shown.info()]}


@pytest.mark.parametrize("time_ns", [10**30, -(10**30)])
def test_time_that_no_calendar_has_keeps_nothing_from_being_told(time_ns):
    theirs = Version(THEIRS, ObjectId("2" * 40), "Bob <b@e.org>", time_ns)
    origin = Origin("copy", ObjectId("3" * 40), time_ns, BASE, None, theirs)

    info = Shown(origin=origin).info()

    assert info["theirs"]["author"] == "Bob <b@e.org>"
    assert info["time"][-1] == "Z"
