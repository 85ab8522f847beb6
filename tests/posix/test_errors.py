"""What goes wrong is said with its own errno, at the call that it belongs to, and the mount lives on."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount
from tests.support.small_disk import FULL, fill
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

MIB = 1 << 20


def outcome(call: Callable[[], object]) -> int:
    """Return the errno that a call fails with, 0 where it succeeds."""
    try:
        call()
    except OSError as exc:
        return exc.errno or -1
    return 0


# --- ENOSPC


def test_below_the_reserve_no_file_opens_for_writing_and_all_are_read(
    small_disk: Path, mount_caia: MountFactory
):
    caia = mount_caia(options=[f"state_dir={small_disk}/state", f"reserve_bytes={4 * MIB}"])
    caia.expect_log("nearly full")
    (caia / "doc").write_text("text")
    filler = fill(small_disk, leave=2 * MIB)

    wait_until(
        lambda: outcome(lambda: os.close(os.open(caia / "doc", os.O_WRONLY))) == errno.ENOSPC,
        "opening for writing is refused",
    )
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT):
        with pytest.raises(OSError) as caught:
            os.open(caia / ("new" if flags & os.O_CREAT else "doc"), flags)
        assert caught.value.errno == errno.ENOSPC
    assert (caia / "doc").read_text() == "text"
    assert os.listdir(caia.path) == ["doc"]
    (caia / "doc").rename(caia / "moved")
    (caia / "moved").unlink()  # making room is never refused

    filler.unlink()
    wait_until(lambda: outcome(lambda: (caia / "new").touch()) == 0, "files open again")


def test_what_does_not_fit_fails_with_enospc_and_other_documents_are_kept(
    small_disk: Path, mount_caia: MountFactory
):
    caia = mount_caia(options=[f"state_dir={small_disk}/state", "reserve_bytes=0"])
    caia.expect_log(FULL)
    room_to_start_in = small_disk / "room"
    room_to_start_in.write_bytes(bytes(2 * MIB))
    (caia / "small").write_text("kept")
    caia.sync()

    handle = os.open(caia / "doc", os.O_WRONLY | os.O_CREAT)
    written = [outcome(lambda: os.write(handle, os.urandom(MIB))) for _ in range(40)]
    ended = [outcome(lambda: os.fsync(handle)), outcome(lambda: os.close(handle))]

    assert errno.ENOSPC in written + ended
    assert set(written + ended) <= {0, errno.ENOSPC}
    assert (caia / "small").read_text() == "kept"
    caia.kill9()
    room_to_start_in.unlink()
    caia.start()
    assert (caia / "small").read_text() == "kept"


def test_what_close_accepted_on_a_full_disk_is_never_lost(
    small_disk: Path, mount_caia: MountFactory
):
    caia = mount_caia(options=[f"state_dir={small_disk}/state", "reserve_bytes=0"])
    caia.expect_log(FULL)
    room_to_start_in = small_disk / "room"
    room_to_start_in.write_bytes(bytes(4 * MIB))
    contents = {f"doc-{i}": os.urandom(300_000 if i % 2 else 3000) for i in range(200)}

    ends = {name: outcome(lambda: (caia / name).write_bytes(contents[name])) for name in contents}  # noqa: B023  # called at once
    caia.kill9()
    room_to_start_in.unlink()
    caia.start()

    assert set(ends.values()) == {0, errno.ENOSPC}
    accepted = [name for name, end in ends.items() if not end]
    assert len(accepted) > 10
    for name in accepted:
        assert (caia / name).read_bytes() == contents[name], name


# --- a damaged state DB


def damage(caia: Mount) -> None:
    """Overwrite all of the state database but its first page, as a failing disk does."""
    code = (
        "import os, sys; fd = os.open(sys.argv[1], os.O_WRONLY); n = os.fstat(fd).st_size;"
        "os.pwrite(fd, os.urandom(max(0, n - 4096)), 4096)"
    )
    for name in ("state.db", "state.db-wal"):
        subprocess.run([sys.executable, "-c", code, caia.repo / "caiafs" / name], check=True)


def test_a_state_database_that_is_damaged_under_the_mount_makes_it_read_only(
    mount_caia: MountFactory,
):
    caia = mount_caia()
    caia.expect_log("state database|Traceback|damaged")
    (caia / "doc").write_text("text")
    for i in range(100):  # more than SQLite keeps in memory
        (caia / f"folder-{i}").mkdir()
        os.setxattr(caia / f"folder-{i}", "user.note", os.urandom(60_000))
    caia.sync()
    caia.remount()
    assert (caia / "doc").read_text() == "text"

    damage(caia)
    for i in range(100):
        outcome(lambda: os.getxattr(caia / f"folder-{i}", "user.note"))  # noqa: B023  # called at once

    assert outcome((caia / "new").mkdir) == errno.EROFS
    assert outcome(lambda: (caia / "doc").write_text("changed")) == errno.EROFS
    assert (caia / "doc").read_text() == "text"
    health = caia.health()
    assert health["status"] == "failed"
    assert "state DB" in " ".join(health["reasons"])


# --- a bug of ours


BROKEN = """
import caiafs.vfs.namespace as namespace
real = namespace.Namespace.mkdir
def mkdir(self, parent, name, *rest):
    if name == b"unlucky":
        raise KeyError("a bug")
    return real(self, parent, name, *rest)
namespace.Namespace.mkdir = mkdir
"""


def test_a_bug_fails_one_request_is_counted_and_the_mount_lives(
    mount_caia: MountFactory, tmp_path: Path
):
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(
        "import sys\nif 'caiafs.cli.main' in ' '.join(sys.orig_argv):\n"
        + "".join(f"    {line}\n" for line in BROKEN.strip().splitlines())
    )
    caia = mount_caia(env={"PYTHONPATH": f"{patch}:{Path(__file__).parents[2]}"})
    caia.expect_log("mkdir broke|Traceback")

    with pytest.raises(OSError) as caught:
        (caia / "unlucky").mkdir()

    assert caught.value.errno == errno.EIO
    (caia / "lucky").mkdir()
    assert caia.stats()["kernel"]["broken_requests"] == 1
    health = caia.health()
    assert health["status"] == "degraded"
    assert "bug" in " ".join(health["reasons"])


# --- what is absent


@pytest.mark.parametrize(
    "call",
    [
        lambda path: path.read_bytes(),
        lambda path: path.stat(),
        lambda path: path.unlink(),
        lambda path: path.rmdir(),
        lambda path: path.rename(path.with_name("other")),
        lambda path: os.listdir(path),
        lambda path: os.getxattr(path, "user.note"),
        lambda path: os.readlink(path),
        lambda path: (path / "below").mkdir(),
        lambda path: os.link(path, path.with_name("other")),
        lambda path: os.truncate(path, 1),
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path),
    ],
)
def test_what_is_absent_is_enoent(room: Path, call):  # type: ignore[no-untyped-def]
    with pytest.raises(OSError) as caught:
        call(room / "absent")

    assert caught.value.errno == errno.ENOENT
