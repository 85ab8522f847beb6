"""Names, paths, numbers and sizes at their limits."""

import errno
import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount, rss_bytes
from tests.support.requirements import require
from tests.support.waiting import wait_until
from tests.tools.shell import run, shell

pytestmark = [pytest.mark.mount, pytest.mark.slow]

MEMORY_MAX = 300 * 1024 * 1024


def published(caia: Mount) -> set[str]:
    """Return the paths that git has."""
    caia.sync()
    listed = caia.git("-c", "core.quotePath=false", "ls-tree", "-r", "-z", "--name-only", "HEAD")
    return {name for name in listed.split("\0") if name}


# --- names


def test_names_of_255_bytes_are_kept_and_longer_ones_refused(caia: Mount):
    longest = "n" * 255
    wide = "\u00e9" * 127 + "x"  # 255 bytes
    for name in (longest, wide):
        (caia / name).write_text(name)

    for name in ("n" * 256, "\u00e9" * 128):
        with pytest.raises(OSError) as caught:
            (caia / name).write_text("too long")
        assert caught.value.errno == errno.ENAMETOOLONG
    assert published(caia) == {longest, wide}
    caia.remount()
    assert (caia / wide).read_text() == wide


def test_every_call_with_a_name_refuses_one_that_is_too_long(room: Path):
    (room / "doc").write_text("text")
    too_long = room / ("n" * 256)
    calls = [
        lambda: too_long.mkdir(),
        lambda: too_long.symlink_to("doc"),
        lambda: too_long.hardlink_to(room / "doc"),
        lambda: (room / "doc").rename(too_long),
        lambda: os.mkfifo(too_long),
        lambda: too_long.unlink(),
        lambda: too_long.stat(),
    ]
    for call in calls:
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ENAMETOOLONG


def test_names_that_are_not_utf_8_are_kept_and_published(caia: Mount):
    names = [b"\xff\xfe", b"caf\xe9", b"\x80" * 255, b"\xed\xa0\x80", b"new\nline", b"tab\t\x01"]
    for name in names:
        with open(os.fsencode(caia.path) + b"/" + name, "wb") as handle:
            handle.write(name)

    caia.sync()
    caia.remount()

    assert sorted(os.listdir(os.fsencode(caia.path))) == sorted(names)
    listed = caia.git("ls-tree", "-r", "-z", "--name-only", "HEAD")
    assert {os.fsencode(name) for name in listed.split("\0") if name} == set(names)


def test_names_that_differ_in_case_or_unicode_form_only_are_different(caia: Mount):
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    names = ["doc", "Doc", "DOC", composed, decomposed, "stra\u00dfe", "strasse"]
    for name in names:
        (caia / name).write_text(name)

    assert published(caia) == set(names)
    caia.remount()
    assert {name: (caia / name).read_text() for name in os.listdir(caia.path)} == {
        name: name for name in names
    }


def test_renaming_to_another_case_or_form_is_a_rename(caia: Mount):
    (caia / "doc").write_text("text")
    (caia / "doc").rename(caia / "Doc")
    (caia / "Doc").rename(caia / "caf\u00e9")
    (caia / "caf\u00e9").rename(caia / "cafe\u0301")

    assert os.listdir(caia.path) == ["cafe\u0301"]
    assert published(caia) == {"cafe\u0301"}


# --- paths


def test_paths_of_nearly_4096_bytes_work_and_longer_ones_are_refused(caia: Mount):
    base = os.fspath(caia.path)
    part = "/" + "d" * 100
    deep = base + part * ((4094 - len(base)) // len(part))
    os.makedirs(deep)
    longest = deep + "/" + "f" * (4095 - len(deep) - 1)
    if len(longest) - len(deep) - 1 > 0:
        Path(longest).write_text("deep")
        assert Path(longest).read_text() == "deep"

    with pytest.raises(OSError) as caught:
        os.stat(longest + "x")
    assert caught.value.errno == errno.ENAMETOOLONG
    assert [name[-1] for name in published(caia)] == ["f"]


def test_trees_deeper_than_any_path_are_made_published_and_removed(caia: Mount):
    shell(
        """
        for i in $(seq 60); do mkdir $(printf 'd%.0s' $(seq 100)); cd ddd*; done
        echo deep > doc
        """,
        cwd=caia.path,
    )

    [path] = published(caia)
    assert len(path) > 6000
    run("rm", "-r", caia / ("d" * 100), cwd=caia.path)
    assert published(caia) == set()
    caia.wait_health("ok")


# --- sizes


def test_file_past_the_largest_size_is_refused_with_efbig(mount_caia: MountFactory):
    caia = mount_caia(options=["max_file_bytes=1048576"])
    (caia / "doc").write_bytes(bytes(1_048_576))

    with pytest.raises(OSError) as caught:
        os.truncate(caia / "doc", 1_048_577)
    assert caught.value.errno == errno.EFBIG
    handle = os.open(caia / "doc", os.O_WRONLY | os.O_APPEND)
    os.write(handle, b"x")  # into the page cache; the kernel asks us at fsync
    with pytest.raises(OSError) as caught:
        os.fsync(handle)
    os.close(handle)
    assert caught.value.errno == errno.EFBIG
    caia.remount()
    assert (caia / "doc").stat().st_size == 1_048_576


def test_offset_past_what_a_file_may_have_is_refused(room: Path):
    handle = os.open(room / "doc", os.O_CREAT | os.O_RDWR)
    try:
        with pytest.raises(OSError) as caught:
            os.ftruncate(handle, (1 << 63) - 1)
        assert caught.value.errno in {errno.EFBIG, errno.EINVAL}
        assert os.fstat(handle).st_size == 0
    finally:
        os.close(handle)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_files_live_in_one_directory(caia: Mount):
    folder = caia / "many"
    folder.mkdir()
    for i in range(100_000):
        os.close(os.open(folder / f"{i:06d}", os.O_CREAT | os.O_WRONLY))

    assert len(os.listdir(folder)) == 100_000
    assert sum(1 for entry in os.scandir(folder) if entry.is_file()) == 100_000
    assert (folder / "054321").stat().st_size == 0
    assert not (folder / "100000").exists()
    caia.sync(timeout_s=300)
    assert caia.git("ls-tree", "--name-only", "HEAD:many").count("\n") == 100_000
    caia.remount()
    assert len(os.listdir(folder)) == 100_000
    for pid in (caia.pid, caia.store_pid):
        assert rss_bytes(pid) < MEMORY_MAX
    run("rm", "-r", folder, cwd=caia.path, timeout_s=300)
    assert os.listdir(caia.path) == []
    caia.sync(timeout_s=300)
    assert caia.git("ls-tree", "HEAD") == ""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_file_of_3_gib_is_stored_in_bounded_memory(caia: Mount, tmp_path: Path):
    size = 3 << 30
    free = os.statvfs(tmp_path)
    require(free.f_bavail * free.f_frsize > 5 * size, "15 GiB of disk are not free")
    piece = os.urandom(1 << 20)
    peak = Peak(caia)

    with (caia / "large").open("wb") as handle:
        for i in range(size // len(piece)):
            handle.write(i.to_bytes(8, "big") + piece[8:])
            if i % 64 == 0:
                peak.look()

    def is_stored() -> bool:
        # On a slow machine it is written for longer than commit_max_age: git has a part of it first.
        peak.look()
        return bool(caia.commits()) and caia.git("cat-file", "-s", "HEAD:large") == f"{size}\n"

    wait_until(is_stored, "git has the file", timeout_s=1000)
    caia.remount()
    with (caia / "large").open("rb") as handle:
        for i in (0, 1, 1500, 3071):
            handle.seek(i << 20)
            assert handle.read(1 << 20) == i.to_bytes(8, "big") + piece[8:]
            peak.look()
    run("cmp", "-n", str(1 << 30), caia / "large", caia / "large", cwd=tmp_path, timeout_s=300)
    peak.look()
    assert peak.highest < MEMORY_MAX, peak.highest


class Peak:
    """The most memory that either process of a mount was seen with, in bytes."""

    def __init__(self, caia: Mount) -> None:
        self._caia = caia
        self.highest = 0

    def look(self) -> None:
        """Look once more."""
        for pid in (self._caia.pid, self._caia.store_pid):
            self.highest = max(self.highest, rss_bytes(pid))


@pytest.mark.long
def test_sparse_file_of_4_gib_is_written_and_read_at_its_end(caia: Mount):
    handle = os.open(caia / "doc", os.O_CREAT | os.O_RDWR)
    try:
        os.ftruncate(handle, 1 << 32)
        os.pwrite(handle, b"end", (1 << 32) - 3)

        assert os.pread(handle, 3, (1 << 32) - 3) == b"end"
        assert os.pread(handle, 3, 1 << 31) == bytes(3)
        (caia / "doc").unlink()
    finally:
        os.close(handle)
    caia.wait_health("ok")
    assert subprocess.run(["ls", caia.path], capture_output=True, check=True).stdout == b""
