"""One save is one version and one commit, never an empty one, whatever program saves."""

import subprocess
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.requirements import require_tool

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def shell(caia: Mount, line: str) -> None:
    """Run a shell line in the mount's root."""
    done = subprocess.run(
        ["bash", "-ec", line],
        cwd=caia.path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def saves(caia: Mount, since: int) -> list[dict[str, bytes]]:
    """Return, for each commit after the first `since`, its documents with their contents."""
    caia.sync()
    return [documents(caia, commit) for commit in caia.commits()[since:]]


def documents(caia: Mount, commit: str) -> dict[str, bytes]:
    names = caia.git("ls-tree", "-r", "--name-only", "-z", commit).split("\0")
    return {
        name: caia.git("cat-file", "blob", f"{commit}:{name}").encode("utf-8", "surrogateescape")
        for name in names
        if name
    }


@pytest.fixture
def caia(patient_caia: Mount) -> Mount:
    return patient_caia


@pytest.fixture
def doc(caia: Mount) -> Path:
    """Return a published document with two lines."""
    (caia / "doc.txt").write_text("first line\nsecond line\n")
    caia.sync()
    assert len(caia.commits()) == 1
    return caia / "doc.txt"


def test_echo_into_a_new_file_is_one_commit_with_the_text(caia: Mount):
    shell(caia, "echo x > f")

    assert saves(caia, 0) == [{"f": b"x\n"}]


def test_echo_over_a_file_is_one_commit_and_never_the_empty_file(caia: Mount, doc: Path):
    shell(caia, "echo x > doc.txt")

    assert saves(caia, 1) == [{"doc.txt": b"x\n"}]


def test_cat_into_a_file_is_one_commit(caia: Mount, doc: Path):
    shell(caia, "cat doc.txt > b")

    text = b"first line\nsecond line\n"
    assert saves(caia, 1) == [{"doc.txt": text, "b": text}]


def test_append_with_the_shell_is_one_commit(caia: Mount, doc: Path):
    shell(caia, "echo third line >> doc.txt")

    assert saves(caia, 1) == [{"doc.txt": b"first line\nsecond line\nthird line\n"}]


def test_slow_pipeline_into_a_file_is_one_commit(caia: Mount):
    shell(caia, "(echo one; sleep 0.3; echo two) > f")  # longer than the settling pause

    assert saves(caia, 0) == [{"f": b"one\ntwo\n"}]


def test_sed_in_place_is_one_commit_of_one_document(caia: Mount, doc: Path):
    shell(caia, "sed -i s/first/1st/ doc.txt")

    assert saves(caia, 1) == [{"doc.txt": b"1st line\nsecond line\n"}]


@pytest.mark.parametrize("backupcopy", ["no", "yes", "auto"])
def test_vim_save_is_one_commit_of_one_document(caia: Mount, doc: Path, backupcopy: str):
    require_tool("vim")

    shell(
        caia,
        f"vim -N -u NONE --cmd 'set backup backupcopy={backupcopy}' -es"
        " -c 'normal! Gothird line' -c wq doc.txt",
    )

    assert saves(caia, 1) == [{"doc.txt": b"first line\nsecond line\nthird line\n"}]


def test_two_saves_of_a_document_are_two_commits_even_in_a_burst(caia: Mount, doc: Path):
    shell(caia, "echo one > doc.txt; echo two > doc.txt; echo three > doc.txt")

    assert saves(caia, 1) == [{"doc.txt": b"one\n"}, {"doc.txt": b"two\n"}, {"doc.txt": b"three\n"}]


def test_touch_and_reading_make_no_commit(caia: Mount, doc: Path):
    shell(caia, "touch doc.txt; cat doc.txt; ls -lR; stat doc.txt; : >> doc.txt")

    assert saves(caia, 1) == []


def test_same_content_again_makes_no_commit(caia: Mount, doc: Path):
    doc.write_text("first line\nsecond line\n")

    assert saves(caia, 1) == []


def test_rename_is_one_commit(caia: Mount, doc: Path):
    shell(caia, "mv doc.txt moved.txt")

    assert saves(caia, 1) == [{"moved.txt": b"first line\nsecond line\n"}]


def test_deletion_is_one_commit(caia: Mount, doc: Path):
    shell(caia, "rm doc.txt")

    assert saves(caia, 1) == [{}]


def test_truncated_file_is_one_commit_of_the_empty_document(caia: Mount, doc: Path):
    shell(caia, ": > doc.txt")

    assert saves(caia, 1) == [{"doc.txt": b""}]


def test_untar_of_hundreds_is_a_few_commits(caia: Mount, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for i in range(500):
        (source / f"{i:03d}").write_text(f"document {i}\n")
    subprocess.run(["tar", "-cf", tmp_path / "t.tar", "-C", source, "."], check=True)

    shell(caia, f"tar -xf '{tmp_path}/t.tar'")

    caia.sync()
    assert len(caia.git("ls-tree", "-r", "--name-only", "HEAD").splitlines()) == 500
    assert len(caia.commits()) <= 100


def test_commit_says_who_what_and_which_operation(caia: Mount, doc: Path):
    message = caia.git("log", "-1", "--format=%B")
    trailers = caia.git("log", "-1", "--format=%(trailers:only,key=Caiafs-Operation)")

    assert "doc.txt" in message.splitlines()[0]
    assert trailers.startswith("Caiafs-Operation: ")
    assert caia.git("log", "-1", "--format=%an").strip()


def test_editors_temporary_files_are_never_committed(caia: Mount, doc: Path):
    shell(caia, "echo x > .doc.txt.swp; echo x > doc.txt~; echo x > 4913; echo x > '.#doc.txt'")

    assert (caia / "doc.txt~").read_text() == "x\n"
    assert saves(caia, 1) == []


def test_rename_from_a_temporary_name_publishes_once(caia: Mount, doc: Path):
    shell(caia, "echo new > .goutputstream-1; mv .goutputstream-1 doc.txt")

    assert saves(caia, 1) == [{"doc.txt": b"new\n"}]
