"""Names: whatever git refuses is escaped, and every name comes back."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from caiafs.backends.git import names
from caiafs.backends.git.objects import RawEntry, format_tree
from caiafs.backends.git.pack import new_object, write_pack
from caiafs.backends.git.repository import open_repository
from tests.support.git_objects import git

PIECES = [
    ".git",
    ".GIT",
    "g",
    "it",
    "git~1",
    "~1",
    ".",
    " ",
    ":",
    "\\",
    "\u200c",
    "\ufeff",
    "%",
    "5C",
]
tricky_names = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(
    lambda pieces: "".join(pieces).encode()
)
any_names = st.one_of(
    tricky_names,
    tricky_names.map(names.escape),
    tricky_names.map(lambda name: names.PREFIX + name),
    st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 0x2F} & set(name)),
).filter(lambda name: name not in (b".", b".."))


def refused_by_git(tmp_path, candidates: list[bytes]) -> set[bytes]:
    """Return those of `candidates` that fsck refuses as the name of a file in a tree."""
    repository = open_repository(tmp_path / "r")
    blob = new_object(b"blob", b"content\n")
    trees = {
        name: new_object(b"tree", format_tree([RawEntry(b"100644", name, bytes.fromhex(blob.oid))]))
        for name in candidates
    }
    write_pack(repository.write_dir, [blob, *trees.values()])
    said = git(repository.git_dir, "fsck", "--strict", "--no-dangling", check=False)
    return {name for name, tree in trees.items() if tree.oid in said}


@given(name=any_names)
@example(b"%caia-")
@example(b"%caia-%25caia-.git")
@example(b"a\\.git")
def test_every_name_comes_back_from_the_spelling_it_is_stored_under(name):
    stored = names.escape(name) if names.is_refused(name) else name

    assert names.unescape(stored) == name
    assert stored in names.spellings(name)


@given(one=any_names, other=any_names)
def test_two_names_are_never_stored_alike(one, other):
    if one != other:
        assert not set(names.spellings(one)) & set(names.spellings(other)) - {one, other}


@given(name=any_names)
def test_escaped_spelling_is_refused_plain_and_never_dangerous(name):
    assert names.is_refused(names.escape(name))
    assert b"\\" not in names.escape(name)


def test_whatever_fsck_refuses_is_escaped(tmp_path):
    candidates = {
        "".join(pieces).encode()
        for length in (1, 2, 3)
        for pieces in itertools.product(PIECES, repeat=length)
    } - {b".", b".."}
    candidates |= {b"GITMOD~1", b"gi7eba~1", b".gitmodules ", b"~1000000", b"gi7d29~1"}

    refused = refused_by_git(tmp_path, sorted(candidates))

    assert b".GIT" in refused
    assert {name for name in refused if not names.is_refused(name)} == set()


def test_escaped_spellings_pass_fsck(tmp_path):
    candidates = [
        names.escape("".join(pieces).encode()) for pieces in itertools.product(PIECES, repeat=2)
    ]

    assert refused_by_git(tmp_path, candidates) == set()


def test_ordinary_names_are_stored_as_they_are():
    for name in (
        b"git",
        b".gitignore",
        b"a%20b",
        b"report~1.txt",
        b"\xff",
        b".github",
        b"x.git",
        b"~",
    ):
        assert names.spellings(name) == (name,)


def test_gitmodules_that_a_person_would_write_keeps_its_name():
    content = (
        b'# ours\n[submodule "lib/x"]\n\tpath = lib/x\n\turl = https://example.org/x.git\n'
        b'\tbranch = main\n[submodule "y"]\n\tpath = y\n\turl = ../y.git\n'
    )

    assert names.is_plain_special(b".gitmodules", content)


def test_gitmodules_that_could_run_something_is_escaped():
    for line in (b"url = -u./x", b"update = !rm", b"path = -x", b"url = https://h/%0ax", b"\x00"):
        content = b'[submodule "x"]\n\t' + line + b"\n"
        assert not names.is_plain_special(b".gitmodules", content)
    assert not names.is_plain_special(b".gitmodules", b'[submodule "../../x"]\n')


def test_gitattributes_with_a_line_that_git_refuses_is_escaped():
    assert names.is_plain_special(b".gitattributes", b"*.txt text\n" * 100)
    assert not names.is_plain_special(b".gitattributes", b"x" * 3000)
