"""Power cuts: the repository and its state lie on a disk that forgets what was not synced (`chaos.forgetful`).

The cut comes before a sync or at any moment; then caiafs is mounted on what survived. What fsync(2) returned for, and what
`caiafs sync` confirmed, has to be there, and the stores have to agree again. A series goes on with what the cut left; on git alone
several outcomes of the same cut are looked at.
"""

import contextlib
import json
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos.report import Figures
from chaos.world import (
    FAST,
    START_TIMEOUT_S,
    SYNC_TIMEOUT_S,
    Lost,
    World,
    check_repository,
    load_environment,
)
from tests.support.mount import Mount, mounted_paths
from tests.support.waiting import wait_until

CUTS_OF_A_SERIES = 8
OUTCOMES = 3
LATEST_SYNC = 150
CUT_TIMEOUT_S = 120.0


class ForgetfulDisk:
    """The disk, mounted at `path`, with what lies in `source`."""

    def __init__(self, base: Path, source: Path, *, strict: bool) -> None:
        base.mkdir()
        self.path = base / "disk"
        self.path.mkdir()
        # Elsewhere: the path of a socket has 107 bytes at most.
        self._room = tempfile.TemporaryDirectory(prefix="caiafs-orders-")
        self._orders = Path(self._room.name) / "orders"
        self._said = (base / "said").open("wb")
        command = [sys.executable, "-m", "chaos.forgetful", source, self.path, self._orders]
        self._process = subprocess.Popen(
            [*map(str, command), *(["strict"] if strict else [])],
            env=load_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,
        )
        wait_until(self._is_up, f"{self.path} is mounted")

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the forgetful disk ended: {Path(self._said.name).read_text()}")
        return str(self.path) in mounted_paths() and self._orders.exists()

    def cut(self, seed: int, targets: list[Path], after: int) -> None:
        """Cut the power after so many syncs; return when it is off."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CUT_TIMEOUT_S)
            connection.connect(str(self._orders))
            order = {"seed": seed, "targets": list(map(str, targets)), "after": after}
            connection.sendall(json.dumps(order).encode())
            assert connection.recv(100) == b"done\n"

    def close(self) -> None:
        if str(self.path) in mounted_paths():
            subprocess.run(["fusermount3", "-uz", self.path], check=False, capture_output=True)
        self._process.kill()
        self._process.wait()
        self._said.close()
        self._room.cleanup()


class Series:
    """Power cuts one after the other, each on what the one before has left."""

    def __init__(self, base: Path, figures: Figures, *, govc: bool, chosen: random.Random) -> None:
        self._base, self._figures, self._chosen = base, figures, chosen
        self._image = base / "image0"
        self._number = 0
        self._has_govc = govc

    def run(self, count: int) -> None:
        """Cut `count` times at least."""
        world = World(self._base / "w", govc=self._has_govc, kinds=("synced", "files"), power=True)
        with self._figures.world(world):
            self._begin(world)
            left = count
            while left > 0:
                left -= self._cut_once(world, 1 if self._has_govc else min(OUTCOMES, left))
            self._figures.add("steps of the loads", sum(w.steps for w in world.workers))

    def _begin(self, world: World) -> None:
        """Make a repository that the disk does not forget."""
        self._image.mkdir()
        world.mount.repo = self._image / "repo"
        world.start_mount()
        for worker in world.workers:
            worker.folder.mkdir()
        (world.mount / "begun").write_text("The first document.\n")
        world.check_stores()
        world.mount.unmount()

    def _cut_once(self, world: World, outcomes: int) -> int:
        self._number += 1
        strict = self._chosen.random() < 0.5
        images = [self._base / f"image{self._number}.{number}" for number in range(outcomes)]
        base = self._base / f"disk{self._number}"
        disk = ForgetfulDisk(base, self._image, strict=strict)
        try:
            world.mount.repo = disk.path / "repo"
            world.start_mount()
            world.start_loads(self._chosen.randrange(10**6))
            self._cut_power(world, disk, images)
        finally:
            for worker in world.workers:
                worker.stop(may_fail=True)
            world.mount.close()
            disk.close()
        self._figures.add(f"cuts, {'strict' if strict else 'journaled'}", outcomes)
        self._look(world, images)
        return outcomes

    def _cut_power(self, world: World, disk: ForgetfulDisk, images: list[Path]) -> None:
        after = self._chosen.choice((0, self._chosen.randint(1, LATEST_SYNC)))
        if not after:
            time.sleep(self._chosen.random() * 3)
        self._figures.note(f"cut {self._number}, {f'after {after} syncs' if after else 'now'}")
        disk.cut(self._chosen.randrange(10**6), images, after)
        if world.mount.is_running():
            world.mount.kill9()
        for image in images:
            _boot_anew(image / "repo" / "caiafs" / "state.db")

    def _look(self, world: World, images: list[Path]) -> None:
        """Mount on each outcome and compare with what was promised."""
        for image in images[1:]:
            copy = Mount(self._base / f"{image.name}.mount", repo=image / "repo", env=FAST)
            try:
                copy.start(timeout_s=START_TIMEOUT_S)
                copy.sync(timeout_s=60)
                for worker in world.workers:
                    worker.check(copy.path / worker.kind)
                self._count_set_aside(world)
                check_repository(copy, set())
                _check_health(copy)
            finally:
                copy.close()
            shutil.rmtree(image)
            shutil.rmtree(copy.base)
            self._figures.add("cuts")
        world.mount.repo = images[0] / "repo"
        world.start_mount()
        # What was hashed before the cut is compared with its id when it is published.
        world.mount.sync(timeout_s=SYNC_TIMEOUT_S)
        world.check_loads()
        self._count_set_aside(world)
        world.check_stores()
        self._count_conflicts(world)
        _check_health(world.mount)
        world.mount.unmount()
        shutil.rmtree(self._image)
        self._image = images[0]
        self._figures.add("cuts")

    def _count_conflicts(self, world: World) -> None:
        """Count, and remove, copies of what a store had and the disk had lost."""
        for path in [*world.mount.path.rglob("*.conflict-*")]:
            path.unlink()
            self._figures.add("conflict copies: a store knew more than the disk")

    def _count_set_aside(self, world: World) -> None:
        many = sum(len(worker.set_aside) for worker in world.workers)
        self._figures.add("unsynced versions found damaged and set aside", many)


def _boot_anew(database: Path) -> None:
    """Let the state DB have been open in another life of the kernel: this one goes on."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("UPDATE meta SET value='the boot before' WHERE key='boot'")
        db.commit()


def _check_health(mount: Mount) -> None:
    health = mount.health()
    if health["status"] == "failed":
        raise Lost(f"after the power cut: {health['reasons']}")


def run(base: Path, figures: Figures, *, count: int, seed: int) -> None:
    """Cut `count` times, series by series, by turns on git alone and with govc; raise Lost where anything is missing."""
    done = 0
    while done < count:
        many = min(CUTS_OF_A_SERIES, count - done)
        place = base / f"power{done}"
        place.mkdir()
        has_govc = bool((done // CUTS_OF_A_SERIES) % 2)
        figures.note("with govc" if has_govc else "on git alone")
        Series(place, figures, govc=has_govc, chosen=random.Random(f"{seed} {done}")).run(many)
        done += many
        shutil.rmtree(place, ignore_errors=True)
