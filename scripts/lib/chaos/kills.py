"""kill -9 of the mount process, of the store process, of both and of govc, at random moments under load."""

import random
import time
from pathlib import Path

from chaos.report import Figures
from chaos.world import World, wait_store_process

TARGETS = ("mount", "mount", "mount", "store", "store", "store", "both", "govc")
KILLS_OF_A_REPOSITORY = 20


def run(base: Path, figures: Figures, *, count: int, seed: int) -> None:
    """Kill `count` times, in a new repository after every few; raise Lost where anything is missing."""
    done = 0
    while done < count:
        many = min(KILLS_OF_A_REPOSITORY, count - done)
        with figures.world(World(base / f"kills{done}")) as world:
            _kill_often(world, figures, many, random.Random(f"{seed} {done}"))
        done += many


def _kill_often(world: World, figures: Figures, count: int, chosen: random.Random) -> None:
    world.start_mount()
    world.start_loads(chosen.randrange(10**6))
    for number in range(count):
        time.sleep(chosen.choice((0.05, 0.3, 1.0)) * (0.2 + chosen.random()))
        target = chosen.choice(TARGETS)
        figures.note(f"kill {number}: {target}")
        _kill(world, target, chosen)
        figures.add(f"kills of {target}")
        figures.add("kills")
    world.stop_loads()
    world.check_loads()
    world.check_stores()
    figures.add("steps of the loads", sum(worker.steps for worker in world.workers))
    figures.add("versions checked in the history", sum(len(w.saved) for w in world.workers))
    figures.add("commits", world.commits())
    figures.add("checks of all stores")


def _kill(world: World, target: str, chosen: random.Random) -> None:
    mount = world.mount
    if target == "govc":
        assert world.govc is not None
        world.govc.stop()
        time.sleep(chosen.random())
        world.govc.start()
        return
    if target == "store":
        wait_store_process(mount, mount.kill9_store())
        return
    if target == "both":
        mount.kill9_store()
    mount.kill9()
    world.stop_loads(may_fail=True)
    world.start_mount()
    world.check_loads()
    world.start_loads(chosen.randrange(10**6))
