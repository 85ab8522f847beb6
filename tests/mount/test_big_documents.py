"""Documents far larger than memory should be taken for: in parts to govc and back, in bounded memory, while others are answered."""

import hashlib
import os
import re
import time
from pathlib import Path

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

MIB = 1 << 20
SIZE_MIB = int(os.environ.get("CAIAFS_TEST_BIG_MIB", "96"))
MEMORY_MAX = 130 * MIB
TIMEOUT_S = 120 + SIZE_MIB


def write_large(path: Path) -> str:
    """Write a document of SIZE_MIB, no two MiB alike; return its hash."""
    piece = os.urandom(MIB)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(SIZE_MIB):
            part = number.to_bytes(8, "big") + piece[8:]
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[0]) * 1024


class Watch:
    """The most memory of the processes of some mounts, and how long a stat took at worst, while something goes on."""

    def __init__(self, *mounts: Mount) -> None:
        self._mounts = mounts
        self.memory = 0
        self.slowest_s: list[float] = []

    def look(self) -> bool:
        """Look once; return False, so that a condition can say `look() or ...`."""
        for mount in self._mounts:
            began = time.perf_counter()
            (mount.path / "absent").exists()
            os.stat(mount.path / ".caia" / "version")
            self.slowest_s.append(time.perf_counter() - began)
            for pid in (mount.pid, mount.store_pid):
                self.memory = max(self.memory, peak_bytes(pid))
        return False


@pytest.mark.timeout(900)
def test_large_document_travels_to_govc_and_to_another_mount_in_bounded_memory(
    mount_caia: MountFactory, govc: GovcServer
):
    environment = govc_environment(govc) | {"CAIAFS_OPERATION_TIMEOUT": "30s"}
    one = mount_caia("one", env=environment)
    one.wait_health("ok")
    two = mount_caia("two", env=environment)
    for mount in (one, two):
        mount.expect_log("govc|took more than|busy")
        mount.wait_health("ok")
    quiet = Watch(one, two)
    for _ in range(50):
        quiet.look()
    watch = Watch(one, two)

    digest = write_large(one / "large")
    watch.look()
    one.sync(timeout_s=TIMEOUT_S)
    wait_until(lambda: watch.look() or (two / "large").exists(), "it is seen", timeout_s=TIMEOUT_S)
    assert hash_of(two / "large") == digest
    watch.look()

    worst, usual = max(watch.slowest_s), max(quiet.slowest_s)
    print(  # noqa: T201  # the figures are the point
        f"\n{SIZE_MIB} MiB: highest memory of a process {watch.memory / MIB:.0f} MiB, slowest look"
        f" {worst * 1000:.0f} ms against {usual * 1000:.0f} ms at rest"
    )
    assert watch.memory < MEMORY_MAX
    blobs = {mount.git("rev-parse", "HEAD:large") for mount in (one, two)}
    assert len(blobs) == 1


@pytest.mark.timeout(900)
def test_large_push_is_seen_and_read_in_bounded_memory(caia: Mount, tmp_path: Path):
    (caia / "small").write_text("text")
    caia.sync()
    clone = caia.clone(tmp_path / "clone")
    digest = write_large(clone / "large")
    caia.git("add", "-A", cwd=clone)
    caia.git("commit", "-q", "-m", "Push", cwd=clone)
    caia.git("push", "-q", "origin", "HEAD", cwd=clone)
    watch = Watch(caia)

    wait_until(lambda: watch.look() or (caia / "large").exists(), "the push is seen")
    assert hash_of(caia / "large") == digest
    watch.look()

    assert watch.memory < MEMORY_MAX
