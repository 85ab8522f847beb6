"""fio and stress-ng, which check what they read back, find nothing wrong on a real mount."""

import subprocess
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.requirements import require_tool

pytestmark = [pytest.mark.mount, pytest.mark.slow]

# fmt: off
STRESSORS = [
    "access", "aio", "chdir", "chmod", "chown", "copy-file", "dentry", "dir", "dirdeep", "dirmany",
    "dnotify", "fallocate", "fcntl", "fiemap", "file-ioctl", "filename", "flock", "fpunch", "fsize",
    "fstat", "getdent", "handle", "hdd", "inotify", "io", "iomix", "lease", "link", "locka", "lockf",
    "lockofd", "mknod", "open", "readahead", "rename", "revio", "seek", "sendfile", "splice",
    "symlink", "sync-file", "touch", "utime", "xattr",
]
# fmt: on


def fio(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run fio in `folder`: write 16 MiB with checksums, read them all back."""
    return subprocess.run(
        [
            require_tool("fio"),
            "--name=verify",
            f"--directory={folder}",
            "--size=16m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            *options,
        ],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--ioengine=psync", "--rw=randrw", "--bs=4k"),
        ("--ioengine=psync", "--rw=randwrite", "--bsrange=512-128k", "--fsync=32"),
        ("--ioengine=mmap", "--rw=randrw", "--bs=4k"),
        ("--ioengine=mmap", "--rw=randwrite", "--bsrange=512-64k"),
        ("--ioengine=libaio", "--rw=randwrite", "--bs=16k", "--iodepth=8"),
        ("--ioengine=psync", "--rw=write", "--bs=1m", "--size=64m"),
        ("--ioengine=psync", "--rw=randrw", "--bs=4k", "--numjobs=2", "--size=8m"),
    ],
    ids=lambda options: " ".join(option.partition("=")[2] for option in options),
)
def test_fio_reads_back_what_it_wrote(room: Path, options: tuple[str, ...]):
    done = fio(room, *options)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "err= 0" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stressor", STRESSORS)
def test_stress_ng_finds_nothing_wrong(shared_caia: Mount, room: Path, stressor: str):
    command = [require_tool("stress-ng"), f"--{stressor}", "1", "--temp-path", room, "--verify"]

    done = subprocess.run(
        [*command, "--timeout", "1", "--metrics-brief"],
        capture_output=True,
        text=True,
        check=False,
    )

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "skipped" not in said, said
    assert shared_caia.stats()["kernel"]["broken_requests"] == 0
    assert list(room.iterdir()) == []
