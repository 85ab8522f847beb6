"""Proofs of caiafs-semantics(7): names and what is atomic."""

import itertools
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.promises import promise

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@promise(
    "N1",
    "A name is any string of 1 to 255 bytes without a slash; case, Unicode form and bytes that are"
    " not UTF-8 are kept and tell names apart.",
)
def test_names_are_bytes(room: Path):
    names = [bytes([byte]) * 3 for byte in range(1, 256) if byte != ord("/")]
    names += [b"x", b"x" * 255, b"Name", b"name", "\u00e9".encode(), "e\u0301".encode()]
    for name in names:
        with open(os.fsencode(room) + b"/" + name, "wb") as handle:
            handle.write(name)

    found = {}
    for name in os.listdir(os.fsencode(room)):
        with open(os.fsencode(room) + b"/" + name, "rb") as handle:
            found[name] = handle.read()
    assert found == {name: name for name in names}


@promise(
    "N2",
    "rename(2) over an existing document replaces it in one step: whoever opens the name finds the"
    " old document or the new one, never neither and never a part.",
)
def test_rename_over_a_document_is_one_step_for_every_reader(room: Path):
    whole = {bytes([letter]) * 50_000 for letter in b"abcdefgh"}
    (room / "doc").write_bytes(b"a" * 50_000)
    stop = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not stop.is_set():
            seen.append((room / "doc").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for letter in itertools.islice(itertools.cycle(b"bcdefgha"), 200):
        (room / "new").write_bytes(bytes([letter]) * 50_000)
        (room / "new").rename(room / "doc")
    stop.set()
    reader.join()

    assert len(seen) > 5
    assert set(seen) <= whole


@promise(
    "N3",
    "A document that was unlinked or replaced stays readable and writable through the handles that"
    " were open, until the last is closed.",
)
def test_unlinked_and_replaced_documents_live_on_through_handles(room: Path):
    for name in ("unlinked", "replaced"):
        (room / name).write_bytes(b"content")
    handles = [os.open(room / name, os.O_RDWR) for name in ("unlinked", "replaced")]
    (room / "unlinked").unlink()
    (room / "new").write_bytes(b"another")
    (room / "new").rename(room / "replaced")

    for handle in handles:
        os.pwrite(handle, b"C", 0)
        assert os.pread(handle, 100, 0) == b"Content"
        os.close(handle)
    assert (room / "replaced").read_bytes() == b"another"
    assert not (room / "unlinked").exists()


@promise(
    "N4",
    "When mkdir, rmdir, unlink, link, symlink, mknod, rename, chmod, chown or setxattr has returned,"
    " it has happened for good: it outlives the death of the mount process.",
)
def test_each_change_of_names_and_attributes_outlives_the_mount_process(caia: Mount):
    root = caia.path
    for name in ("unlinked", "linked", "moved", "changed"):
        (root / name).write_text(name)
    (root / "removed").mkdir()
    (root / "made").mkdir()
    (root / "removed").rmdir()
    (root / "unlinked").unlink()
    (root / "link").hardlink_to(root / "linked")
    (root / "symlink").symlink_to("linked")
    os.mkfifo(root / "fifo")
    (root / "moved").rename(root / "made" / "here")
    (root / "changed").chmod(0o640)
    os.chown(root / "changed", os.geteuid(), os.getegid())
    os.setxattr(root / "changed", "user.note", b"kept")

    caia.kill9()
    caia.start()

    wanted = ["changed", "fifo", "link", "linked", "made", "symlink"]
    assert sorted(os.listdir(root)) == wanted
    assert (root / "made" / "here").read_text() == "moved"
    assert (root / "link").stat().st_ino == (root / "linked").stat().st_ino
    assert (root / "symlink").readlink() == Path("linked")
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
    assert stat.S_IMODE((root / "changed").stat().st_mode) == 0o640
    assert os.getxattr(root / "changed", "user.note") == b"kept"


@promise(
    "N5",
    "O_EXCL creates a file for one of several that try at once, and fails with EEXIST for the"
    " others.",
)
def test_exclusive_creation_has_one_winner(room: Path):
    results: list[bool] = []
    together = threading.Barrier(8)

    def create() -> None:
        together.wait()
        try:
            os.close(os.open(room / "lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            results.append(False)
        else:
            results.append(True)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(results) == [False] * 7 + [True]


@promise(
    "N6",
    "An append goes to the end of the file as it is then; two handles of one mount that append do"
    " not overwrite each other.",
)
def test_appends_never_overwrite_each_other(room: Path):
    def append(letter: bytes) -> None:
        handle = os.open(room / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for i in range(200):
            os.write(handle, letter + b" %03d\n" % i)
        os.close(handle)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    lines = (room / "log").read_bytes().splitlines()
    for letter in (b"a", b"b", b"c"):
        mine = [line for line in lines if line.startswith(letter)]
        assert mine == [letter + b" %03d" % i for i in range(200)]
    assert len(lines) == 600
