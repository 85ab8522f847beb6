"""A save is one commit of the document alone, however the editor goes about it, and its history goes on."""

import os
import pty
import select
import subprocess
import termios
from pathlib import Path

import pytest

from tests.support.editors import FIRST, SAVED, SAVES
from tests.support.mount import Mount, clean_environment
from tests.support.requirements import require_tool
from tests.tools.shell import run, shell

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture
def caia(patient_caia: Mount) -> Mount:
    return patient_caia


@pytest.fixture
def doc(caia: Mount) -> Path:
    """Return a published document."""
    (caia / "doc.txt").write_text(FIRST)
    caia.sync()
    return caia / "doc.txt"


def documents(caia: Mount) -> list[list[str]]:
    """Return the names of each commit's documents, but for the first commit's."""
    caia.sync()
    return [
        caia.git("ls-tree", "-r", "--name-only", commit).splitlines()
        for commit in caia.commits()[1:]
    ]


@pytest.mark.parametrize("editor", SAVES)
def test_a_save_is_one_commit_of_the_document_alone(caia: Mount, doc: Path, editor: str):
    if editor.startswith("vim"):
        require_tool("vim")

    shell(SAVES[editor], cwd=caia.path)

    assert documents(caia) == [["doc.txt"]]
    assert caia.git("cat-file", "blob", "HEAD:doc.txt") == SAVED
    assert doc.read_text() == SAVED


@pytest.mark.parametrize("editor", SAVES)
def test_history_of_a_document_goes_on_through_a_save(caia: Mount, doc: Path, editor: str):
    if editor.startswith("vim"):
        require_tool("vim")

    shell(SAVES[editor], cwd=caia.path)

    caia.sync()
    changes = caia.git("log", "--format=", "--name-status", "--no-renames", "--", "doc.txt")
    assert changes.split() == ["M", "doc.txt", "A", "doc.txt"]


def test_nano_save_is_one_commit_of_the_document_alone(caia: Mount, doc: Path):
    nano = require_tool("nano")
    terminal, inside = pty.openpty()
    termios.tcsetwinsize(inside, (24, 80))
    editor = subprocess.Popen(
        [nano, "-I", "+3,1", "doc.txt"],
        cwd=caia.path,
        env=clean_environment({"TERM": "xterm"}),
        stdin=inside,
        stdout=inside,
        stderr=inside,
    )
    os.close(inside)

    type_after(terminal, b"Read 2 lines", b"third line\x13")  # ^S saves, ^X leaves
    type_after(terminal, b"Wrote 3 lines", b"\x18")

    assert editor.wait(30) == 0
    os.close(terminal)
    assert documents(caia) == [["doc.txt"]]
    assert doc.read_text() == SAVED


def type_after(terminal: int, shown: bytes, typed: bytes) -> None:
    """Type something as soon as the screen has shown something."""
    screen = b""
    while shown not in screen:
        readable, _, _ = select.select([terminal], [], [], 20.0)
        assert readable, f"{shown!r} was not shown: {screen!r}"
        screen += os.read(terminal, 65_536)
    os.write(terminal, typed)


def test_git_config_and_crontab_style_lock_files_are_one_commit(caia: Mount):
    (caia / "config").write_text("[a]\n\tb = c\n")
    caia.sync()

    run("git", "config", "--file", "config", "a.b", "d", cwd=caia.path)

    assert documents(caia) == [["config"]]
    assert caia.git("cat-file", "blob", "HEAD:config") == "[a]\n\tb = d\n"


def test_three_saves_by_rename_are_three_versions(caia: Mount, doc: Path):
    for text in ("one", "two", "three"):
        shell(f"echo {text} > .doc.txt.tmp; mv .doc.txt.tmp doc.txt", cwd=caia.path)

    assert documents(caia) == [["doc.txt"]] * 3
    texts = [caia.git("cat-file", "blob", f"{c}:doc.txt") for c in caia.commits()[1:]]
    assert texts == ["one\n", "two\n", "three\n"]
