"""Contents of files on a real mount: open flags, holes, mappings, truncation, size."""

import errno
import hashlib
import mmap
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount


def test_written_bytes_are_read_back(room: Path):
    content = os.urandom(300_000)

    (room / "a").write_bytes(content)

    assert (room / "a").read_bytes() == content


def test_empty_file_is_empty(room: Path):
    (room / "a").touch()

    assert (room / "a").read_bytes() == b""
    assert (room / "a").stat().st_size == 0


def test_unlinked_file_stays_readable_and_writable_through_its_handle(room: Path):
    path = room / "a"
    path.write_bytes(b"before")
    with path.open("r+b", buffering=0) as handle:
        path.unlink()

        handle.seek(0, os.SEEK_END)
        handle.write(b" and after")

        assert not path.exists()
        assert os.fstat(handle.fileno()).st_nlink == 0
        assert os.pread(handle.fileno(), 100, 0) == b"before and after"


def test_new_file_of_an_unlinked_name_is_another_file(room: Path):
    path = room / "a"
    path.write_bytes(b"old")
    with path.open("rb") as handle:
        path.unlink()
        path.write_bytes(b"new and longer")

        assert handle.read() == b"old"
    assert path.read_bytes() == b"new and longer"


def test_appends_of_two_handles_follow_each_other(room: Path):
    path = room / "a"
    first = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    second = os.open(path, os.O_WRONLY | os.O_APPEND)
    for i in range(50):
        os.write(first, b"first %03d\n" % i)
        os.write(second, b"second %03d\n" % i)
    os.close(first)
    os.close(second)

    wanted = b"".join(b"first %03d\nsecond %03d\n" % (i, i) for i in range(50))
    assert path.read_bytes() == wanted


def test_append_ignores_the_handle_position(room: Path):
    path = room / "a"
    path.write_bytes(b"0123456789")
    handle = os.open(path, os.O_RDWR | os.O_APPEND)

    os.lseek(handle, 2, os.SEEK_SET)
    os.write(handle, b"end")

    assert os.pread(handle, 100, 0) == b"0123456789end"
    os.close(handle)


def test_open_with_o_trunc_empties_the_file(room: Path):
    path = room / "a"
    path.write_bytes(b"long content")

    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

    assert path.stat().st_size == 0
    assert path.read_bytes() == b""


def test_shorter_content_after_o_trunc_leaves_no_tail(room: Path):
    path = room / "a"
    path.write_bytes(b"x" * 100_000)

    path.write_bytes(b"short")

    assert path.read_bytes() == b"short"


def test_o_excl_refuses_a_taken_name(room: Path):
    (room / "a").write_bytes(b"taken")

    with pytest.raises(FileExistsError):
        os.open(room / "a", os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    assert (room / "a").read_bytes() == b"taken"


def test_o_excl_has_one_winner_among_many(room: Path):
    def try_create() -> int:
        try:
            os.close(os.open(room / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return 0
        return 1

    assert sum(try_create() for _ in range(10)) == 1


def test_hole_reads_as_zeros(room: Path):
    path = room / "a"
    with path.open("wb") as handle:
        handle.seek(1_000_000)
        handle.write(b"end")

    assert path.stat().st_size == 1_000_003
    assert path.read_bytes() == bytes(1_000_000) + b"end"


def test_gigabyte_hole_costs_no_gigabyte(room: Path):
    path = room / "sparse"
    with path.open("wb") as handle:
        handle.truncate(1 << 30)
        handle.seek((1 << 30) - 4)
        handle.write(b"last")

    with path.open("rb") as handle:
        assert os.pread(handle.fileno(), 4, 1 << 29) == bytes(4)
        assert os.pread(handle.fileno(), 100, (1 << 30) - 4) == b"last"
    path.unlink()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 70_000, 200_000])
def test_truncate_cuts_and_extends(room: Path, size: int):
    path = room / f"a{size}"
    content = bytes(range(256)) * 400  # 102,400 bytes
    path.write_bytes(content)

    os.truncate(path, size)

    wanted = content[:size] + bytes(max(0, size - len(content)))
    assert path.read_bytes() == wanted


def test_extending_after_cutting_shows_zeros_not_old_bytes(room: Path):
    path = room / "a"
    path.write_bytes(b"x" * 10_000)

    os.truncate(path, 100)
    os.truncate(path, 10_000)

    assert path.read_bytes() == b"x" * 100 + bytes(9_900)


def test_truncate_through_a_handle_is_seen_by_another(room: Path):
    path = room / "a"
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as writer, path.open("rb", buffering=0) as reader:
        writer.truncate(4)

        assert os.fstat(reader.fileno()).st_size == 4
        assert reader.read() == b"0123"


def test_write_is_seen_at_once_through_another_handle(room: Path):
    path = room / "a"
    with path.open("wb", buffering=0) as writer, path.open("rb", buffering=0) as reader:
        writer.write(b"now")

        assert reader.read() == b"now"
        assert path.stat().st_size == 3


def test_shared_mapping_reads_and_writes_the_file(room: Path):
    path = room / "a"
    path.write_bytes(b"a" * 10_000)
    with path.open("r+b") as handle, mmap.mmap(handle.fileno(), 0) as mapping:
        mapping[5000:5003] = b"XYZ"
        mapping.flush()

        assert mapping[:3] == b"aaa"
        assert os.pread(handle.fileno(), 5, 4999) == b"aXYZa"
    assert path.read_bytes() == b"a" * 5000 + b"XYZ" + b"a" * 4997


def test_store_through_a_mapping_after_close_is_kept(room: Path):
    path = room / "a"
    path.write_bytes(b"a" * 4096)
    handle = os.open(path, os.O_RDWR)
    mapping = mmap.mmap(handle, 4096)
    os.close(handle)
    mapping[0:5] = b"later"
    mapping.close()

    assert path.read_bytes() == b"later" + b"a" * 4091


def test_private_mapping_leaves_the_file_alone(room: Path):
    path = room / "a"
    path.write_bytes(b"a" * 4096)
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, mmap.MAP_PRIVATE) as mapping:
        mapping[0:1] = b"b"

    assert path.read_bytes() == b"a" * 4096


def test_write_only_handle_can_not_read(room: Path):
    handle = os.open(room / "a", os.O_WRONLY | os.O_CREAT)

    with pytest.raises(OSError) as caught:
        os.read(handle, 1)

    os.close(handle)
    assert caught.value.errno == errno.EBADF


def test_partial_overwrite_of_an_unaligned_middle(room: Path):
    path = room / "a"
    content = bytearray(os.urandom(200_000))
    path.write_bytes(content)
    handle = os.open(path, os.O_WRONLY)  # the kernel has to read pages through this
    os.pwrite(handle, b"middle", 70_001)
    os.close(handle)

    content[70_001:70_007] = b"middle"
    assert path.read_bytes() == content


def test_fsync_and_fdatasync_return(room: Path):
    with (room / "a").open("wb") as handle:
        handle.write(b"durable")
        handle.flush()
        os.fsync(handle.fileno())
        os.fdatasync(handle.fileno())

    folder = os.open(room, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)
    assert (room / "a").read_bytes() == b"durable"


@pytest.mark.slow
def test_file_of_several_hundred_mebibytes_there_and_back(room: Path):
    path = room / "large"
    block = os.urandom(1 << 20)
    written = hashlib.sha256()
    with path.open("wb") as handle:
        for i in range(300):
            part = i.to_bytes(8, "big") + block[8:]
            written.update(part)
            handle.write(part)

    read = hashlib.sha256()
    with path.open("rb") as handle:
        while part := handle.read(1 << 20):
            read.update(part)

    assert path.stat().st_size == 300 << 20
    assert read.digest() == written.digest()
    path.unlink()
