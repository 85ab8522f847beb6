"""A long outage: very many changes wait, and neither slow the mount down nor fill memory; then they are published in batches."""

import os
import time
from typing import NamedTuple

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount, cpu_seconds, rss_bytes

pytestmark = [pytest.mark.mount, pytest.mark.slow]

WAITING = int(os.environ.get("CAIAFS_TEST_BACKLOG", "8000"))
SAMPLE = 1000
MIB = 1 << 20


def begin_interval(caia: Mount) -> None:
    """Have the first commit behind it: what is saved from now on waits for an hour."""
    (caia / "begun").write_text("begun")
    caia.sync()


class Pace(NamedTuple):
    """What creating costs: how many a second, and the mount process's own time for one, which other work on the machine leaves alone."""

    per_s: float
    cpu_us: float


def create(caia: Mount, directory: str, count: int) -> Pace:
    """Create `count` documents in a new directory; return what that cost."""
    root = caia / directory
    root.mkdir()
    began, cpu_s = time.perf_counter(), cpu_seconds(caia.pid)
    for number in range(count):
        fd = os.open(root / f"doc-{number}", os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, b"%d in %s\n" % (number, directory.encode()))
        os.close(fd)
    took_s = time.perf_counter() - began
    return Pace(count / took_s, (cpu_seconds(caia.pid) - cpu_s) / count * 1e6)


def best(paces: list[Pace]) -> Pace:
    return Pace(max(pace.per_s for pace in paces), min(pace.cpu_us for pace in paces))


@pytest.mark.timeout(900)
def test_changes_that_wait_neither_slow_the_mount_nor_fill_memory(mount_caia: MountFactory):
    options = ("commit=interval", "commit_interval=1h")
    caia = mount_caia(options=options)
    begin_interval(caia)
    create(caia, "warm", SAMPLE)
    few = best([create(caia, f"few-{number}", SAMPLE) for number in range(2)])
    before = (rss_bytes(caia.pid), rss_bytes(caia.store_pid))

    for part in range(WAITING // SAMPLE):
        create(caia, f"part-{part}", SAMPLE)
    many = best([create(caia, f"many-{number}", SAMPLE) for number in range(2)])

    state = caia.stats()["state"]
    assert state["pending_ops"] > WAITING
    assert state["pending_bytes"] > WAITING * len("0 in x")
    assert state["oldest_pending_path"].startswith("warm/doc-")
    waiting = (rss_bytes(caia.pid), rss_bytes(caia.store_pid))
    began = time.perf_counter()
    caia.sync(timeout_s=600)
    took_s = time.perf_counter() - began
    after = (rss_bytes(caia.pid), rss_bytes(caia.store_pid))

    commits = len(caia.commits())
    print(  # noqa: T201  # the figures are the point
        f"\n{state['pending_ops']} changes waiting: creates {few.per_s:.0f}/s with few, {many.per_s:.0f}/s with many"
        f" ({few.cpu_us:.0f} and {many.cpu_us:.0f} µs of the mount process each); memory of mount and store process in MiB:"
        f" {_mib(before)} before, {_mib(waiting)} while they waited, {_mib(after)} after; published in {commits} commits in {took_s:.1f} s"
    )
    assert many.cpu_us < 3 * few.cpu_us
    assert many.per_s > few.per_s / 20, "it waits for something"
    assert waiting[0] - before[0] < 60 * MIB + WAITING * 2500
    assert after[1] - before[1] < 150 * MIB
    assert commits < 10 + state["pending_ops"] / 1000
    assert caia.stats()["state"]["pending_ops"] == 0


def _mib(pair: tuple[int, int]) -> str:
    return f"{pair[0] / MIB:.0f} and {pair[1] / MIB:.0f}"


def test_health_names_a_change_that_waits_for_too_long(mount_caia: MountFactory):
    caia = mount_caia(options=["commit=interval", "commit_interval=1h", "pending_max_age=100ms"])
    begin_interval(caia)
    (caia / "old").write_text("text")
    time.sleep(0.2)  # the age itself
    os.listdir(caia.path)

    health = caia.wait_health("degraded")

    assert health["oldest_pending_path"] == "old"
    assert any(reason.startswith("old waits to be published") for reason in health["reasons"])
    caia.sync()
    caia.wait_health("ok")
