"""The disk of the state directory is full: what is refused was not done, and what was done is not lost."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount
from tests.support.small_disk import FULL, fill
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]

ROUNDS = 400


def is_refused(call: Callable[[], object]) -> bool:
    """Whether a call fails for want of space; any other failure is the test's."""
    try:
        call()
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        return True
    return False


class Hand:
    """Changes names and attributes, and knows what it should see."""

    def __init__(self, caia: Mount) -> None:
        self.root = caia.path
        self.names = {"d0"}
        self.notes: dict[str, bytes] = {}
        self.refused: dict[str, int] = {}
        (self.root / "d0").mkdir()

    def work(self, number: int) -> None:
        """Do one round, each step of which may be refused."""
        old, new = f"d{number}", f"r{number}"
        self._try("mkdir", (self.root / old).mkdir, lambda: self.names.add(old))
        self._try(
            "symlink",
            lambda: (self.root / f"s{number}").symlink_to("x"),
            lambda: self.names.add(f"s{number}"),
        )
        if old in self.names:
            self._try(
                "rename",
                lambda: (self.root / old).rename(self.root / new),
                lambda: self._renamed(old, new),
            )
        note = os.urandom(500)
        self._try(
            "setxattr",
            lambda: os.setxattr(self.root / "d0", "user.note", note),
            lambda: self.notes.update(d0=note),
        )

    def _try(self, kind: str, call: Callable[[], object], done: Callable[[], object]) -> None:
        if is_refused(call):
            self.refused[kind] = self.refused.get(kind, 0) + 1
        else:
            done()

    def _renamed(self, old: str, new: str) -> None:
        self.names.remove(old)
        self.names.add(new)

    def check(self) -> None:
        """Assert that everything that was done is there, and nothing that was refused."""
        assert set(os.listdir(self.root)) == self.names
        if "d0" in self.notes:
            assert os.getxattr(self.root / "d0", "user.note") == self.notes["d0"]


def exhaust(directory: Path) -> None:
    """Change something until not even that fits; `mkdir` is refused long before."""
    while not is_refused(lambda: os.setxattr(directory, "user.filler", os.urandom(60_000))):
        pass


@pytest.mark.parametrize("end", ["unmount", "kill"])
def test_change_that_is_refused_on_a_full_disk_was_not_done(
    small_disk: Path, mount_caia: MountFactory, end: str
):
    caia = mount_caia(options=[f"state_dir={small_disk}/state", "reserve_bytes=0"])
    caia.expect_log(FULL)
    hand = Hand(caia)
    hand.work(1)
    filler = fill(small_disk, leave=0)

    for number in range(2, ROUNDS):
        hand.work(number)
        if min(hand.refused.get(kind, 0) for kind in ("mkdir", "symlink", "setxattr")) > 3:
            break
    assert set(hand.refused) >= {"mkdir", "symlink", "setxattr"}
    hand.check()
    filler.unlink()
    if end == "kill":
        caia.kill9()
        caia.start()
    hand.check()
    wait_until(lambda: not is_refused((caia / "after").mkdir), "there is room again")
    hand.names.add("after")
    caia.sync()

    caia.remount()
    hand.check()
    caia.wait_health("ok")


def test_store_process_outlives_a_full_disk_and_what_is_published_is_forgotten_later(
    small_disk: Path, mount_caia: MountFactory
):
    caia = mount_caia(options=[f"state_dir={small_disk}/state", "reserve_bytes=0"])
    caia.expect_log(FULL)
    store = caia.store_pid
    os.kill(store, signal.SIGSTOP)
    contents = {f"doc-{number}": os.urandom(60_000) for number in range(20)}
    for name, content in contents.items():
        (caia / name).write_bytes(content)
    filler = fill(small_disk, leave=0)
    exhaust(caia.path)

    os.kill(store, signal.SIGCONT)
    wait_until(lambda: len(caia.commits()) > 0, "the store process publishes")
    wait_until(
        lambda: "forgotten later" in caia.log() or caia.stats()["state"]["pending_ops"] == 0,
        "settled",
    )

    assert {name: (caia / name).read_bytes() for name in contents} == contents
    filler.unlink()
    caia.sync()
    wait_until(lambda: not is_refused((caia / "after").mkdir), "there is room again")
    assert caia.store_pid == store
    assert caia.stats()["store_process"]["restarts"] == 0
    assert {name: (caia / name).read_bytes() for name in contents} == contents
    caia.wait_health("ok")


def test_push_that_arrives_on_a_full_disk_is_seen_when_there_is_room(
    small_disk: Path, mount_caia: MountFactory, tmp_path: Path
):
    caia = mount_caia(options=[f"state_dir={small_disk}/state", "reserve_bytes=0"])
    caia.expect_log(FULL + "|changes of others wait")
    (caia / "doc").write_text("ours")
    caia.sync()
    clone = caia.clone(tmp_path / "clone")
    filler = fill(small_disk, leave=0)
    exhaust(caia.path)
    for index in range(50):
        (clone / f"theirs-{index}").write_text(f"theirs {index}")
    caia.git("add", "-A", cwd=clone)
    caia.git("commit", "-q", "-m", "Push", cwd=clone)
    caia.git("push", "-q", "origin", "HEAD", cwd=clone)
    wait_until(lambda: "changes of others wait" in caia.log(), "the push has arrived")

    filler.unlink()

    wait_until(lambda: (caia / "theirs-49").exists(), "the push is seen")
    assert {(caia / f"theirs-{index}").read_text() for index in range(50)} == {
        f"theirs {index}" for index in range(50)
    }
    assert caia.stats()["store_process"]["restarts"] == 0
    caia.sync()
    caia.remount()
    assert (caia / "theirs-0").read_text() == "theirs 0"
