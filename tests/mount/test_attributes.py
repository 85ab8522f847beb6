"""Modes, owners, times, extended attributes and statfs on a real mount."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.requirements import require_root
from tests.support.syscalls import kept_attributes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.mount


def test_mode_given_at_creation_obeys_the_umask(room: Path):
    before = os.umask(0o027)
    try:
        os.close(os.open(room / "a", os.O_CREAT | os.O_WRONLY, 0o666))
        (room / "d").mkdir(mode=0o777)
    finally:
        os.umask(before)

    assert stat.S_IMODE((room / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((room / "d").stat().st_mode) == 0o750


def test_chmod_changes_the_mode(room: Path):
    (room / "a").touch()

    (room / "a").chmod(0o4711)

    assert stat.S_IMODE((room / "a").stat().st_mode) == 0o4711


def test_times_are_kept_in_nanoseconds(room: Path):
    (room / "a").touch()

    os.utime(room / "a", ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))

    found = (room / "a").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (
        1_500_000_000_123_456_789,
        1_600_000_000_987_654_321,
    )


def test_set_mtime_survives_close(room: Path):
    with (room / "a").open("wb") as handle:
        handle.write(b"text")
        handle.flush()
        os.utime(handle.fileno(), ns=(1_000_000_000_000_000_000, 1_000_000_000_000_000_000))

    assert (room / "a").stat().st_mtime_ns == 1_000_000_000_000_000_000


def test_writing_moves_mtime_and_ctime(room: Path):
    (room / "a").write_text("one")
    os.utime(room / "a", (1, 1))
    before = (room / "a").stat()

    (room / "a").write_text("two")

    after = (room / "a").stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns >= before.st_ctime_ns


def test_adding_a_name_moves_the_directory_mtime(room: Path):
    os.utime(room, (1, 1))

    (room / "a").touch()

    assert room.stat().st_mtime > 1


def test_user_xattr_is_set_listed_read_and_removed(room: Path):
    path = room / "a"
    path.touch()

    os.setxattr(path, "user.note", b"value \xff\0")

    assert os.getxattr(path, "user.note") == b"value \xff\0"
    assert "user.note" in os.listxattr(path)
    os.removexattr(path, "user.note")
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "user.note")
    assert caught.value.errno == errno.ENODATA


def test_xattr_create_and_replace_flags(room: Path):
    path = room / "a"
    path.touch()
    os.setxattr(path, "user.note", b"one", os.XATTR_CREATE)

    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.note", b"two", os.XATTR_CREATE)
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "user.other", b"two", os.XATTR_REPLACE)

    assert caught.value.errno == errno.ENODATA
    assert os.getxattr(path, "user.note") == b"one"


def test_statfs_says_what_there_is(room: Path):
    found = os.statvfs(room)

    assert found.f_namemax == 255
    assert found.f_blocks >= found.f_bfree >= found.f_bavail > 0
    assert found.f_bsize >= 512


def test_du_sees_the_size_of_a_file(room: Path):
    (room / "a").write_bytes(bytes(range(256)) * 4096)

    shown = subprocess.run(["du", "-k", room / "a"], capture_output=True, text=True, check=True)

    assert int(shown.stdout.split()[0]) >= 1024


def test_owner_is_whoever_created_it(shared_caia: Mount):
    (shared_caia / "owned").touch()

    found = (shared_caia / "owned").stat()

    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())


def test_chown_by_root(room: Path):
    require_root()
    (room / "a").touch()

    os.chown(room / "a", 1234, 2345)

    found = (room / "a").stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


def test_mounted_nosuid_and_nodev_by_default(shared_caia: Mount):
    lines = Path("/proc/self/mounts").read_text().splitlines()
    options = next(
        line.split()[3].split(",") for line in lines if line.split()[1] == str(shared_caia.path)
    )

    assert {"nosuid", "nodev"} <= set(options)


def test_attributes_survive_remount(caia: Mount):
    folder = caia / "d"
    folder.mkdir()
    path = folder / "a"
    path.write_text("text")
    path.chmod(0o750)
    os.setxattr(path, "user.note", b"kept")
    os.mkfifo(folder / "fifo")
    (folder / "hard").hardlink_to(path)
    (folder / "empty").mkdir()
    os.utime(path, ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))
    before = kept_attributes(path)

    caia.remount()

    assert kept_attributes(path) == before
    assert path.stat().st_atime_ns == 1_500_000_000_123_456_789
    assert os.getxattr(path, "user.note") == b"kept"
    assert stat.S_ISFIFO((folder / "fifo").stat().st_mode)
    assert (folder / "hard").stat().st_ino == path.stat().st_ino
    assert (folder / "empty").is_dir()


def test_executable_bit_and_symlink_reach_git(caia: Mount):
    (caia / "run").write_text("#!/bin/sh\n")
    (caia / "run").chmod(0o755)
    (caia / "link").symlink_to("run")

    caia.sync()

    modes = {line.split("\t")[1]: line.split()[0] for line in tree(caia)}
    assert modes == {"run": "100755", "link": "120000"}


def test_chmod_alone_reaches_git(caia: Mount):
    (caia / "run").write_text("#!/bin/sh\n")
    caia.sync()

    (caia / "run").chmod(0o755)

    wait_until(lambda: tree(caia)[0].startswith("100755"), "git has the executable bit")


def tree(caia: Mount) -> list[str]:
    """Return the lines of `git ls-tree` for all documents."""
    return caia.git("ls-tree", "-r", "HEAD").splitlines()


def state_of(path: Path) -> str:
    return os.getxattr(path, "user.caia.state").decode()


def test_state_says_whether_a_document_is_local_pending_or_published(caia: Mount):
    (caia / "doc~").write_text("an editor's")
    with (caia / "doc").open("w") as handle:
        handle.write("text")
        handle.flush()
        assert state_of(caia / "doc") == "pending"
    caia.sync()

    wait_until(lambda: state_of(caia / "doc") == "published", "it is published")
    assert state_of(caia / "doc~") == "local"


def test_state_is_not_listed_so_that_no_copy_takes_it_along(room: Path):
    (room / "a").write_text("text")

    assert os.listxattr(room / "a") == []
    subprocess.run(["cp", "-a", room / "a", room / "b"], check=True)
    assert (room / "b").read_text() == "text"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("user.caia.state", errno.EPERM),
        ("user.caia.anything", errno.EPERM),
        ("user.caia.id", errno.EPERM),
    ],
)
def test_names_that_belong_to_caiafs_cannot_be_set(room: Path, name: str, code: int):
    (room / "a").touch()

    with pytest.raises(OSError) as caught:
        os.setxattr(room / "a", name, b"x")

    assert caught.value.errno == code
