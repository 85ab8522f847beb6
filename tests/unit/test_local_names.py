import pytest

from caiafs.core.config import DEFAULT_LOCAL_PATTERNS
from caiafs.core.errors import ConfigError
from caiafs.vfs.local_names import LocalNames


@pytest.mark.parametrize(
    "path",
    [
        b".doc.txt.swp",
        b"d/doc.txt~",
        b".#lock",
        b"d/.~lock.a.odt#",
        b"~$a.docx",
        b".DS_Store",
        b"a~/f",
    ],
)
def test_temporary_files_of_editors_and_what_is_below_them_are_local(path):
    assert LocalNames(DEFAULT_LOCAL_PATTERNS).match(path)


@pytest.mark.parametrize(
    "path", [b"doc.txt", b"d/a~b", b"49130", b".gitignore", b"\xff\xfe", b"a\n~b"]
)
def test_documents_are_not_local(path):
    assert not LocalNames(DEFAULT_LOCAL_PATTERNS).match(path)


def test_name_that_is_no_text_can_be_local():
    assert LocalNames(["*~"]).match(b"\xff\xfe~")


def test_pattern_for_directories_takes_what_is_below_and_no_file_of_that_name():
    names = LocalNames(["build/"])

    assert names.match(b"d/build/x")
    assert not names.match(b"build")


def test_pattern_with_a_slash_looks_at_the_whole_path():
    names = LocalNames(["/tmp/*.txt", "*~"])

    assert names.match(b"tmp/a.txt")
    assert not names.match(b"d/tmp/a.txt")
    assert names.match(b"d/a~")


def test_later_pattern_takes_an_earlier_one_back():
    names = LocalNames(["*~", "!keep~"])

    assert names.match(b"a~")
    assert not names.match(b"keep~")


def test_pattern_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="local_patterns"):
        LocalNames(["!"])
