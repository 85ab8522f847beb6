"""Proofs of caiafs-semantics(7): what becomes of changes that meet, and of conflicts."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from caiafs.core.types import blob_id
from tests.conftest import MountFactory, govc_environment
from tests.mount.test_conflicts import collide_on_govc, explained, listed, versions
from tests.support.colleague import Colleague, collide
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount, git, run_caiafs
from tests.support.promises import promise
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

Act = Callable[[Path], object]
Shown = dict[str, str]


class Meeting:
    """A mount that hears of nothing by itself, and a colleague: what both do meets when the mount publishes."""

    def __init__(self, caia: Mount, colleague: Colleague) -> None:
        self.caia = caia
        self.colleague = colleague

    def between(self, ours: Act, theirs: Act) -> tuple[Shown, list[str]]:
        """Let both act on what `setup` left; return what the mount and git show, and the contents of the copies."""
        theirs(self.colleague.work)
        self.colleague.commit()
        ours(self.caia.path)
        self.caia.sync()
        wait_until(lambda: self.shown() == self.stored(), "the mount shows what git has")
        shown = self.shown()
        copies = sorted(text for name, text in shown.items() if ".conflict-" in name)
        return {name: text for name, text in shown.items() if ".conflict-" not in name}, copies

    def setup(self, **documents: str) -> None:
        """Let both begin with these documents."""
        for name, text in documents.items():
            (self.caia / name).write_text(text)
        self.caia.sync()

    def shown(self) -> Shown:
        found = {}
        for directory, _, names in os.walk(self.caia.path):
            for name in names:
                path = Path(directory, name)
                text = f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text()
                run = " (run)" if not path.is_symlink() and path.stat().st_mode & 0o100 else ""
                found[str(path.relative_to(self.caia.path))] = text + run
        return found

    def stored(self) -> Shown:
        found = {}
        for line in self.caia.git("ls-tree", "-rz", "HEAD").split("\0")[:-1]:
            mode, _, rest = line.partition(" ")
            oid, _, name = rest.removeprefix("blob ").partition("\t")
            text = self.caia.git("cat-file", "blob", oid)
            text = f"-> {text}" if mode == "120000" else text
            found[name] = text + (" (run)" if mode == "100755" else "")
        return found


@pytest.fixture
def meeting(mount_caia: MountFactory, tmp_path: Path) -> Meeting:
    caia = mount_caia(env={"CAIAFS_POLL_INTERVAL": "1h"})
    (caia / "doc").write_text("one\n")
    (caia / "other").write_text("other\n")
    caia.sync()
    return Meeting(caia, Colleague(caia, tmp_path / "colleague"))


def write(name: str, text: str) -> Act:
    def act(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)

    return act


def remove(name: str) -> Act:
    return lambda root: (root / name).unlink()


def rename(name: str, new: str) -> Act:
    return lambda root: (root / name).rename(root / new)


def link(name: str, target: str) -> Act:
    def act(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)

    return act


def chmod(name: str) -> Act:
    return lambda root: (root / name).chmod(0o755)


def both(*acts: Act) -> Act:
    def act(root: Path) -> None:
        for one in acts:
            one(root)

    return act


@promise(
    "O4",
    "Deleting a document against editing it keeps the edit; a change of mode alone does not keep it.",
)
def test_an_edit_outlives_a_deletion(meeting: Meeting):
    ours = both(remove("doc"), write("other", "ours\n"))
    theirs = both(write("doc", "theirs\n"), remove("other"))

    assert meeting.between(ours, theirs) == ({"doc": "theirs\n", "other": "ours\n"}, [])
    assert meeting.between(remove("doc"), chmod("doc")) == ({"other": "ours\n"}, [])


@promise("O5", "An edit follows a rename that somebody else made of the same document.")
@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_an_edit_follows_a_rename(meeting: Meeting, who: str):
    edits, renames = write("doc", "edited\n"), rename("doc", "moved")
    acts = (edits, renames) if who == "ours" else (renames, edits)

    assert meeting.between(*acts) == ({"moved": "edited\n", "other": "other\n"}, [])


@promise(
    "O6",
    "A change of the executable bit on one side and of the content on the other are both kept.",
)
def test_mode_and_content_are_merged_apart(meeting: Meeting):
    ours = both(chmod("doc"), write("other", "ours\n"))
    theirs = both(write("doc", "theirs\n"), chmod("other"))

    assert meeting.between(ours, theirs) == (
        {"doc": "theirs\n (run)", "other": "ours\n (run)"},
        [],
    )


@promise(
    "O7",
    "Two documents of one name that two add, and a file against a symbolic link, are both kept, as"
    " in O3; where both are the same it is one document.",
)
def test_what_both_add_and_types_that_differ_are_both_kept(meeting: Meeting):
    meeting.caia.expect_log("conflict")
    ours = both(write("new", "ours\n"), write("same", "same\n"), link("other", "doc"))
    theirs = both(write("new", "theirs\n"), write("same", "same\n"), write("other", "theirs\n"))

    assert meeting.between(ours, theirs) == (
        {"doc": "one\n", "new": "ours\n", "same": "same\n", "other": "-> doc"},
        ["theirs\n", "theirs\n"],
    )
    kinds = {c["path"]: c["kind"] for c in explained(meeting.caia, 2)}
    assert kinds == {"new": "added", "other": "type"}


@promise(
    "O8",
    "Where a document and a directory want one name, the directory keeps it and the document is"
    " beside it, as in O3, even where the directory is empty.",
)
def test_a_directory_keeps_its_name(meeting: Meeting):
    meeting.caia.expect_log("conflict")
    ours = both(
        write("mine/doc", "ours\n"),
        write("yours", "ours too\n"),
        lambda root: (root / "empty").mkdir(),
    )
    theirs = both(
        write("mine", "theirs\n"), write("yours/doc", "theirs\n"), write("empty", "a document\n")
    )

    shown, copies = meeting.between(ours, theirs)

    assert shown == {
        "doc": "one\n",
        "other": "other\n",
        "mine/doc": "ours\n",
        "yours/doc": "theirs\n",
    }
    assert copies == ["a document\n", "ours too\n", "theirs\n"]
    assert (meeting.caia / "empty").is_dir()
    assert {c["kind"] for c in listed(meeting.caia)} == {"directory"}


@promise(
    "O9",
    "A document that two rename differently has both names; two documents that are renamed to one"
    " name are both kept.",
)
def test_renames_that_differ_are_both_kept(meeting: Meeting):
    meeting.caia.expect_log("conflict")

    assert meeting.between(rename("doc", "ours"), rename("doc", "theirs")) == (
        {"ours": "one\n", "theirs": "one\n", "other": "other\n"},
        [],
    )
    assert meeting.between(rename("ours", "name"), rename("other", "name")) == (
        {"name": "one\n", "theirs": "one\n"},
        ["other\n"],
    )


@promise(
    "O10",
    "Names that differ only in case or in Unicode form are different documents and never in conflict.",
)
def test_names_that_look_alike_are_different_documents(meeting: Meeting):
    ours = both(write("Doc", "capital\n"), write("\u00e9", "composed\n"))
    theirs = both(write("DOC", "capitals\n"), write("e\u0301", "decomposed\n"))

    assert meeting.between(ours, theirs) == (
        {
            "doc": "one\n",
            "other": "other\n",
            "Doc": "capital\n",
            "DOC": "capitals\n",
            "\u00e9": "composed\n",
            "e\u0301": "decomposed\n",
        },
        [],
    )
    assert listed(meeting.caia) == []


@promise(
    "O11",
    "A conflict is open while the copy is beside its document; .caia/conflicts shows base, ours and"
    " theirs of each, the same after a remount and after the loss of the state directory.",
)
def test_open_conflicts_outlive_remount_and_loss_of_the_state(meeting: Meeting):
    caia = meeting.caia
    collide(caia, meeting.colleague, {b"doc": (b"ours\n", b"theirs\n")})
    (found,) = explained(caia)
    three = {"base": b"one\n", "ours": b"ours\n", "theirs": b"theirs\n"}
    assert versions(caia, found) == three

    caia.remount()
    assert explained(caia) == [found]
    caia.unmount()
    shutil.rmtree(caia.repo / "caiafs")
    caia.start()

    assert explained(caia) == [found]
    assert versions(caia, found) == three
    (caia / found["copy"]).unlink()
    assert listed(caia) == []


@promise(
    "O12",
    "caiafs resolve makes the chosen version the document and removes the copy in one commit that"
    " says so; deleting or renaming the copy ends the conflict too.",
)
def test_resolving_is_one_commit(meeting: Meeting):
    caia = meeting.caia
    meeting.setup(second="one\n", third="one\n")
    names = [b"doc", b"second", b"third"]
    collide(caia, meeting.colleague, dict.fromkeys(names, (b"ours\n", b"theirs\n")))
    copies = {c["path"]: c["copy"] for c in explained(caia, 3)}
    before = caia.commits()

    done = run_caiafs("resolve", caia.path, "doc", "--theirs")
    caia.sync()

    assert done.returncode == 0, done.stderr
    (made,) = [commit for commit in caia.commits() if commit not in before]
    changed = caia.git("show", "--format=", "--name-status", made).split()
    assert sorted(changed) == sorted(["D", copies["doc"], "M", "doc"])
    assert caia.git("show", "-s", "--format=%s", made) == "Resolve doc: take the other version\n"
    assert (caia / "doc").read_text() == "theirs\n"
    (caia / copies["second"]).unlink()
    (caia / copies["third"]).rename(caia / "kept")
    assert listed(caia) == []


@promise("O13", "Two mounts that resolve one conflict at once come to the same tree.")
@pytest.mark.govc
def test_two_mounts_that_resolve_at_once_agree(mount_caia: MountFactory, govc: GovcServer):
    env = {**govc_environment(govc), "CAIAFS_POLL_INTERVAL": "200ms"}
    one = mount_caia("one", env=env)
    (one / "doc.txt").write_text("base\nmore\n")
    one.sync()
    other = mount_caia("other", env=env)
    run_caiafs("fetch", other.path, "doc.txt")
    collide_on_govc(one, other)
    for caia in (one, other):
        explained(caia)

    control = [os.open(caia / ".caia" / "control", os.O_WRONLY) for caia in (one, other)]
    keys = [
        json.loads(caia.virtual("conflicts.json"))["conflicts"][0]["id"] for caia in (one, other)
    ]
    for fd, way, key in zip(control, ("ours", "theirs"), keys, strict=True):
        os.write(fd, f"resolve {way} {key}".encode())
        os.close(fd)
    one.sync()
    other.sync()

    def is_level() -> bool:
        trees = [caia.git("ls-tree", "-r", "HEAD") for caia in (one, other)]
        names = [os.listdir(caia.path) for caia in (one, other)]
        if trees[0] != trees[1] or names != [["doc.txt"]] * 2:
            return False
        return (one / "doc.txt").read_text() == (other / "doc.txt").read_text()

    wait_until(is_level, "both hold and show the same document and no copy")


@promise(
    "O20",
    "Changes of different lines of a text are merged, and the version that each side saved is in"
    " the history too.",
)
def test_merged_versions_are_in_the_history(meeting: Meeting):
    base = "1\n2\n3\n4\n5\n"
    meeting.setup(doc=base)
    ours, theirs = base.replace("5", "ours"), base.replace("1", "theirs")
    git("pull", "-q", "--rebase", cwd=meeting.colleague.work)

    shown, copies = meeting.between(write("doc", ours), write("doc", theirs))

    assert (shown["doc"], copies) == ("theirs\n2\n3\n4\nours\n", [])
    reached = meeting.caia.git("rev-list", "--objects", "--no-object-names", "HEAD").split()
    assert {blob_id(text.encode()) for text in (base, ours, theirs)} <= set(reached)
