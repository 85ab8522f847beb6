"""Directories, names, links and renames on a real mount."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

pytestmark = pytest.mark.mount


def test_listing_shows_each_name_once(room: Path):
    names = {f"document-{i}" for i in range(500)}
    for name in names:
        (room / name).touch()

    assert sorted(os.listdir(room)) == sorted(names)


def test_directory_made_and_removed(room: Path):
    (room / "a" / "b").mkdir(parents=True)
    (room / "a" / "b").rmdir()

    assert os.listdir(room / "a") == []


def test_full_directory_is_not_removed(room: Path):
    (room / "a").mkdir()
    (room / "a" / "b").touch()

    with pytest.raises(OSError) as caught:
        (room / "a").rmdir()

    assert caught.value.errno == errno.ENOTEMPTY


def test_missing_name_is_enoent_until_it_exists(room: Path):
    with pytest.raises(FileNotFoundError):
        (room / "a").stat()

    (room / "a").touch()

    assert (room / "a").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"x" * 255,
        "ä".encode() * 127,
        b"not utf-8 \xff\xfe",
        b"\x01\x02\x7f",
        b"new\nline",
        b"back\\slash",
        b"-rf",
        b" ",
        b"%41",
        b".git",
        b".gitmodules",
        b"aux.txt",
        b".hidden",
        b"foo..",
        b"a:b",
    ],
)
def test_any_name_holds_a_document(room: Path, name: bytes):
    path = os.fsencode(room) + b"/" + name

    with open(path, "wb") as handle:
        handle.write(name)

    assert os.listdir(os.fsencode(room)) == [name]
    with open(path, "rb") as handle:
        assert handle.read() == name
    os.unlink(path)


def test_name_of_256_bytes_is_too_long(room: Path):
    with pytest.raises(OSError) as caught:
        (room / ("x" * 256)).touch()

    assert caught.value.errno == errno.ENAMETOOLONG


def test_names_that_differ_in_case_or_unicode_form_are_different(room: Path):
    names = ["Document", "document", "caf\u00e9", "cafe\u0301"]
    for name in names:
        (room / name).write_text(name)

    assert {name: (room / name).read_text() for name in names} == {name: name for name in names}


def test_rename_replaces_the_target(room: Path):
    (room / "a").write_text("new")
    (room / "b").write_text("old")

    (room / "a").rename(room / "b")

    assert os.listdir(room) == ["b"]
    assert (room / "b").read_text() == "new"


def test_replaced_target_stays_readable_through_its_handle(room: Path):
    (room / "a").write_text("new")
    (room / "b").write_text("old")
    with (room / "b").open() as handle:
        (room / "a").rename(room / "b")

        assert handle.read() == "old"


def test_renamed_open_file_is_written_under_its_new_name(room: Path):
    with (room / "a").open("w") as handle:
        (room / "a").rename(room / "b")
        handle.write("text")

    assert (room / "b").read_text() == "text"
    assert not (room / "a").exists()


def test_renamed_directory_takes_its_documents_along(room: Path):
    (room / "a" / "deep").mkdir(parents=True)
    (room / "a" / "deep" / "doc").write_text("text")

    (room / "a").rename(room / "b")

    assert (room / "b" / "deep" / "doc").read_text() == "text"
    assert not (room / "a").exists()


def test_directory_does_not_move_into_itself(room: Path):
    (room / "a" / "b").mkdir(parents=True)

    with pytest.raises(OSError) as caught:
        (room / "a").rename(room / "a" / "b" / "c")

    assert caught.value.errno == errno.EINVAL


def test_directory_does_not_replace_a_full_directory(room: Path):
    (room / "a").mkdir()
    (room / "b").mkdir()
    (room / "b" / "doc").touch()

    with pytest.raises(OSError) as caught:
        (room / "a").rename(room / "b")

    assert caught.value.errno in {errno.ENOTEMPTY, errno.EEXIST}


def test_rename_noreplace_refuses_a_taken_name(room: Path):
    (room / "a").write_text("a")
    (room / "b").write_text("b")

    with pytest.raises(FileExistsError):
        renameat2(room / "a", room / "b", RENAME_NOREPLACE)

    assert (room / "b").read_text() == "b"


def test_rename_noreplace_moves_to_a_free_name(room: Path):
    (room / "a").write_text("a")

    renameat2(room / "a", room / "b", RENAME_NOREPLACE)

    assert (room / "b").read_text() == "a"


def test_rename_exchange_swaps_a_file_and_a_directory(room: Path):
    (room / "a").write_text("a")
    (room / "b").mkdir()
    (room / "b" / "doc").write_text("doc")

    renameat2(room / "a", room / "b", RENAME_EXCHANGE)

    assert (room / "b").read_text() == "a"
    assert (room / "a" / "doc").read_text() == "doc"


def test_symlink_points_where_it_was_told(room: Path):
    (room / "doc").write_text("text")
    (room / "link").symlink_to("doc")

    assert (room / "link").readlink() == Path("doc")
    assert (room / "link").read_text() == "text"
    assert (room / "link").lstat().st_size == 3


def test_dangling_symlink_with_odd_bytes_is_kept(room: Path):
    target = b"no where \xff"

    os.symlink(target, os.fsencode(room / "link"))

    assert os.readlink(os.fsencode(room / "link")) == target


def test_hard_links_are_one_file(room: Path):
    (room / "a").write_text("one")
    (room / "b").hardlink_to(room / "a")

    (room / "b").write_text("changed")

    assert (room / "a").read_text() == "changed"
    assert (room / "a").stat().st_ino == (room / "b").stat().st_ino
    assert (room / "a").stat().st_nlink == 2


def test_removing_one_hard_link_leaves_the_other(room: Path):
    (room / "a").write_text("one")
    (room / "b").hardlink_to(room / "a")

    (room / "a").unlink()

    assert (room / "b").read_text() == "one"
    assert (room / "b").stat().st_nlink == 1


def test_fifo_and_socket_are_made(room: Path):
    os.mkfifo(room / "fifo", 0o600)
    os.mknod(room / "socket", 0o600 | stat.S_IFSOCK)

    assert stat.S_ISFIFO((room / "fifo").stat().st_mode)
    assert stat.S_ISSOCK((room / "socket").stat().st_mode)


def test_directory_link_count_counts_subdirectories(room: Path):
    before = room.stat().st_nlink
    (room / "sub").mkdir()

    assert room.stat().st_nlink == before + 1


def test_deep_path_works(room: Path):
    deep = room
    for i in range(40):
        deep /= f"level-{i:02d}-{'x' * 40}"
    deep.mkdir(parents=True)
    (deep / "doc").write_text("deep")

    assert (deep / "doc").read_text() == "deep"


def test_every_name_survives_remount_and_clone(caia: Mount, tmp_path: Path):
    names = [
        b"plain",
        b"x" * 255,
        b"not utf-8 \xff",
        "caf\u00e9".encode(),
        b"new\nline",
        b".hidden",
    ]
    for name in names:
        with open(os.fsencode(caia.path) + b"/" + name, "wb") as handle:
            handle.write(b"content of " + name)

    caia.sync()
    caia.remount()

    clone = os.fsencode(caia.clone(tmp_path / "clone"))
    for name in names:
        for folder in (os.fsencode(caia.path), clone):
            with open(folder + b"/" + name, "rb") as handle:
                assert handle.read() == b"content of " + name


def test_dot_git_in_a_document_tree_survives_remount_and_clones_cleanly(
    caia: Mount, tmp_path: Path
):
    (caia / "project").mkdir()
    (caia / "project" / ".git").write_text("gitdir: elsewhere")

    caia.sync()
    caia.remount()

    assert (caia / "project" / ".git").read_text() == "gitdir: elsewhere"
    clone = caia.clone(tmp_path / "clone")
    assert not (clone / "project" / ".git").exists()
    assert caia.git("fsck", "--strict", "--no-dangling") == ""
