"""Who may do what: the kernel enforces modes and owners, the mount options decide what is shown and who gets in."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.posix.users import (
    ANOTHER,
    SOMEBODY,
    a_users_mount,
    a_users_mount_where_others_are_allowed,
    attempt,
    let_through,
    may,
)
from tests.support.mount import Mount
from tests.support.requirements import require_root

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture
def mount_for_all(mount_caia: MountFactory) -> MountFactory:
    """Return a function that mounts with -o OPTIONS, where other users get as far as the mount."""
    require_root()

    def mount(*options: str) -> Mount:
        made = mount_caia(options=options)
        let_through(made.path)
        return made

    return mount


def kernel_options(caia: Mount) -> list[str]:
    """Return the mount's options as the kernel lists them."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    fields = next(line.split() for line in lines if line.split()[4] == str(caia.path))
    return fields[5].split(",") + fields[-1].split(",")


# --- default_permissions


def test_kernel_refuses_what_the_mode_refuses(mount_for_all: MountFactory):
    caia = mount_for_all("allow_other")
    (caia / "secret").write_text("secret")
    (caia / "secret").chmod(0o600)
    (caia / "public").write_text("public")
    (caia / "public").chmod(0o644)

    assert "default_permissions" in kernel_options(caia)
    assert may(SOMEBODY, "cat", caia / "public")
    assert not may(SOMEBODY, "cat", caia / "secret")
    assert not may(SOMEBODY, "touch", caia / "public")
    assert not may(SOMEBODY, "rm", "-f", caia / "public")
    assert not may(SOMEBODY, "chmod", "777", caia / "secret")


def test_file_belongs_to_the_user_who_makes_it(mount_for_all: MountFactory):
    caia = mount_for_all("allow_other")
    (caia / "shared").mkdir()
    (caia / "shared").chmod(0o1777)

    assert may(SOMEBODY, "touch", caia / "shared" / "mine")

    found = (caia / "shared" / "mine").stat()
    assert (found.st_uid, found.st_gid) == (SOMEBODY, SOMEBODY)
    assert not may(ANOTHER, "rm", "-f", caia / "shared" / "mine")  # the sticky bit
    assert may(SOMEBODY, "rm", "-f", caia / "shared" / "mine")


def test_write_by_another_user_clears_setuid(mount_for_all: MountFactory):
    caia = mount_for_all("allow_other,suid")
    (caia / "program").write_text("one")
    (caia / "program").chmod(0o6777)

    assert may(SOMEBODY, "sh", "-c", f"echo two >> '{caia / 'program'}'")

    assert stat.S_IMODE((caia / "program").stat().st_mode) == 0o777


# --- who gets in


def test_without_allow_other_nobody_else_gets_in(mount_for_all: MountFactory):
    caia = mount_for_all()
    (caia / "public").write_text("public")

    assert not may(SOMEBODY, "ls", caia.path)
    assert not may(SOMEBODY, "cat", caia / "public")


def test_allow_root_lets_no_third_user_in(mount_for_all: MountFactory):
    caia = mount_for_all("allow_root")
    (caia / "public").write_text("public")
    (caia / "public").chmod(0o666)
    caia.path.chmod(0o777)

    assert (caia / "public").read_text() == "public"  # and so the kernel knows the name
    for command in (
        ("ls",),
        ("cat", "public"),
        ("stat", "public"),
        ("touch", "new"),
        ("cat", ".caia/version"),
    ):
        target = caia / command[1] if len(command) > 1 else caia.path
        assert not may(SOMEBODY, command[0], target), command


# --- what is shown


def test_uid_and_gid_are_shown_for_everything(mount_for_all: MountFactory):
    caia = mount_for_all("allow_other", f"uid={SOMEBODY}", f"gid={ANOTHER}")
    (caia / "doc").write_text("text")
    (caia / "folder").mkdir()

    for path in (caia.path, caia / "doc", caia / "folder"):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (SOMEBODY, ANOTHER)
    assert may(SOMEBODY, "sh", "-c", f"echo more >> '{caia / 'doc'}'")
    assert (caia / "doc").read_text() == "textmore\n"


def test_umask_hides_bits_of_files_and_directories(mount_for_all: MountFactory):
    caia = mount_for_all("umask=027")
    (caia / "doc").write_text("text")
    (caia / "doc").chmod(0o666)
    (caia / "folder").mkdir(mode=0o777)
    (caia / "folder").chmod(0o777)

    assert stat.S_IMODE((caia / "doc").stat().st_mode) == 0o640
    assert stat.S_IMODE((caia / "folder").stat().st_mode) == 0o750


def test_fmask_and_dmask_take_the_place_of_umask(mount_for_all: MountFactory):
    caia = mount_for_all("umask=077", "fmask=0133", "dmask=022")
    (caia / "doc").write_text("text")
    (caia / "doc").chmod(0o777)
    (caia / "folder").mkdir()
    (caia / "folder").chmod(0o777)

    assert stat.S_IMODE((caia / "doc").stat().st_mode) == 0o644
    assert stat.S_IMODE((caia / "folder").stat().st_mode) == 0o755


def test_masks_change_what_is_shown_and_not_what_is_kept(mount_for_all: MountFactory):
    caia = mount_for_all("fmask=0077")
    (caia / "doc").write_text("text")
    (caia / "doc").chmod(0o664)
    caia.unmount()
    caia.options = ()

    caia.start()

    assert stat.S_IMODE((caia / "doc").stat().st_mode) == 0o664


# --- ro, atime, suid, dev, exec


def test_ro_mount_reads_and_refuses_every_change(mount_for_all: MountFactory):
    caia = mount_for_all()
    (caia / "doc").write_text("text")
    caia.unmount()
    caia.options = ("ro",)

    caia.start()

    assert (caia / "doc").read_text() == "text"
    changes = [
        lambda: (caia / "doc").write_text("other"),
        lambda: (caia / "new").touch(),
        lambda: (caia / "folder").mkdir(),
        lambda: (caia / "doc").unlink(),
        lambda: (caia / "doc").rename(caia / "moved"),
        lambda: (caia / "doc").chmod(0o600),
        lambda: os.setxattr(caia / "doc", "user.note", b"x"),
        lambda: os.utime(caia / "doc"),
        lambda: os.truncate(caia / "doc", 1),
    ]
    for change in changes:
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("option", ["noatime", "relatime", "strictatime", "nodiratime", "lazytime"])
def test_access_time_options_are_accepted(mount_for_all: MountFactory, option: str):
    caia = mount_for_all(option)

    (caia / "doc").write_text("text")

    assert (caia / "doc").read_text() == "text"


def test_setuid_and_devices_are_without_effect_by_default(mount_for_all: MountFactory):
    caia = mount_for_all("allow_other")
    (caia / "id").write_bytes(Path("/usr/bin/id").read_bytes())
    (caia / "id").chmod(0o4755)
    os.mknod(caia / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    assert {"nosuid", "nodev"} <= set(kernel_options(caia))
    assert attempt(SOMEBODY, caia / "id", "-u").stdout.strip() == str(SOMEBODY)
    with pytest.raises(PermissionError):
        (caia / "null").read_bytes()


def test_setuid_and_devices_work_where_they_are_asked_for(mount_for_all: MountFactory):
    caia = mount_for_all("allow_other,suid,dev")
    (caia / "id").write_bytes(Path("/usr/bin/id").read_bytes())
    (caia / "id").chmod(0o4755)
    os.mknod(caia / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    assert attempt(SOMEBODY, caia / "id", "-u").stdout.strip() == "0"
    assert (caia / "null").read_bytes() == b""


def test_noexec_runs_no_program(mount_for_all: MountFactory):
    caia = mount_for_all("noexec")
    (caia / "run").write_text("#!/bin/sh\n")
    (caia / "run").chmod(0o755)

    with pytest.raises(PermissionError):
        subprocess.run([caia / "run"], check=False)


# --- an ordinary user with fusermount3


def test_ordinary_user_mounts_writes_and_unmounts():
    with a_users_mount() as caia:
        assert may(SOMEBODY, "sh", "-c", f"echo text > '{caia / 'doc'}'")
        assert attempt(SOMEBODY, "cat", caia / "doc").stdout == "text\n"
        assert attempt(SOMEBODY, "stat", "-c", "%u:%g", caia / "doc").stdout == "65534:65534\n"
        with pytest.raises(PermissionError):  # not even root, without allow_root
            os.stat(caia / "doc")
        assert {"nosuid", "nodev", f"user_id={SOMEBODY}"} <= set(kernel_options(caia))
        assert may(SOMEBODY, "fusermount3", "-u", caia.path)
        assert caia.wait_ended() == 0
        assert attempt(SOMEBODY, "git", "-C", caia.repo, "show", "HEAD:doc").stdout == "text\n"


def test_ordinary_user_is_told_what_allow_other_needs():
    require_root()
    if "user_allow_other" in Path("/etc/fuse.conf").read_text().split("\n"):
        pytest.skip("user_allow_other is set here")

    with (
        pytest.raises(AssertionError, match=r"user_allow_other in /etc/fuse\.conf"),
        a_users_mount("allow_other"),
    ):
        pass


@pytest.mark.parametrize(
    ("option", "root_may", "another_may"),
    [("allow_root", True, False), ("allow_other", True, True)],
)
def test_ordinary_user_lets_in_whom_the_option_names(
    option: str, root_may: bool, another_may: bool
):
    with a_users_mount_where_others_are_allowed(option) as caia:
        assert caia.attempt(SOMEBODY, "sh", "-c", f"echo text > '{caia.path}/doc'").returncode == 0
        assert caia.attempt(SOMEBODY, "chmod", "644", f"{caia.path}/doc").returncode == 0

        assert caia.attempt(SOMEBODY, "cat", f"{caia.path}/doc").stdout == "text\n"
        assert (caia.attempt(0, "cat", f"{caia.path}/doc").returncode == 0) is root_may
        assert (caia.attempt(ANOTHER, "cat", f"{caia.path}/doc").returncode == 0) is another_may
