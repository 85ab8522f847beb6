"""Mixed load for a long time while govc restarts, always empty, and the network between misbehaves.

Beside what the other kinds check, both processes have to stay as they are after warming up: memory, descriptors, threads, tasks.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import trio

from chaos.report import Figures
from chaos.samples import Samples
from chaos.world import Lost, World
from tests.support.fault_proxy import FaultProxy

WORDS = (
    *("ok", "ok", "ok", "ok", "slow", "slow", "reset", "cut", "torn", "503", "500", "done503"),
    *("429", "twice", "garbled", "empty", "echo", "timeout", "lost"),
)
PAUSES_S = {"editor": 0.3, "files": 0.2, "folders": 0.5, "large": 6.0}
SETTINGS = {
    "CAIAFS_CACHE_BYTES": "16MiB",  # full early, so that memory can be seen to stay flat
    "CAIAFS_OPERATION_TIMEOUT": "2s",
}
RESTART_EVERY_S = 60.0


class Weather:
    """A fault proxy in a thread of its own, in front of a govc that restarts."""

    def __init__(self, port: int) -> None:
        self._proxy = FaultProxy(port)
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.CancelScope()
        self._up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._thread.start()
        if not self._up.wait(20):
            raise RuntimeError("the fault proxy does not start")

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._stop:
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: self._proxy.run(task_status=task_status))
                self._up.set()

    @property
    def url(self) -> str:
        return self._proxy.url

    def play(self, script: str) -> None:
        """Spoil the next requests."""
        self._in_loop(self._proxy.play, script)

    def _in_loop(self, function: Callable[..., None], *arguments: str) -> None:
        trio.from_thread.run_sync(function, *arguments, trio_token=self._token)

    def faults(self) -> int:
        """Return how many requests were spoiled so far."""
        return sum(1 for seen in self._proxy.seen if not seen.endswith(" ok"))

    def requests(self) -> int:
        """Return how many requests there were."""
        return len(self._proxy.seen)

    def end(self) -> None:
        """End the proxy."""
        with contextlib.suppress(trio.RunFinishedError):
            self._in_loop(self._stop.cancel)
        self._thread.join(20)


@contextlib.contextmanager
def _world(base: Path, figures: Figures) -> Iterator[tuple[World, Weather]]:
    with figures.world(World(base / "soak", env=SETTINGS, pauses_s=PAUSES_S)) as world:
        assert world.govc is not None
        weather = Weather(world.govc.port)
        world.mount.env["GOVC_SERVICE_URL"] = weather.url
        try:
            yield world, weather
        finally:
            weather.end()


def run(base: Path, figures: Figures, *, minutes: float, seed: int) -> None:
    """Work for that long; raise Lost where anything is missing or grows."""
    with _world(base, figures) as (world, weather):
        world.start_mount()
        world.start_loads(seed)
        samples = Samples(world.mount)
        try:
            _weather(world, weather, samples, figures, seconds=minutes * 60, seed=seed)
        finally:
            samples.show(figures)
        weather.play("")
        world.stop_loads()
        world.check_loads()
        figures.note("the loads have ended; comparing the stores")
        world.check_stores()
        figures.set("steps of the loads (saved)", sum(w.steps - w.reads for w in world.workers))
        figures.set("versions checked in the history", sum(len(w.saved) for w in world.workers))
        figures.set("commits", world.commits())
        figures.set("reads checked", sum(worker.reads for worker in world.workers))
        figures.set("lost", 0)
        figures.set("requests to govc", weather.requests())
        figures.set("faults injected", weather.faults())
        samples.check()


def _weather(
    world: World, weather: Weather, samples: Samples, figures: Figures, *, seconds: float, seed: int
) -> None:
    chosen = random.Random(seed)
    end = time.monotonic() + seconds
    every_s = min(RESTART_EVERY_S, seconds / 4)
    restart = time.monotonic() + every_s / 2
    assert world.govc is not None
    while time.monotonic() < end:
        weather.play(" ".join(chosen.choices(WORDS, k=chosen.randrange(1, 12))))
        time.sleep(min(2.0, seconds / 30) * (0.5 + chosen.random()))
        if time.monotonic() > restart:
            world.govc.stop()
            time.sleep(chosen.random() * 3)
            world.govc.start()
            restart = time.monotonic() + every_s
            figures.add("restarts of govc")
        elif world.supervise_govc():
            figures.add("govc died by itself")
        if ended := [worker.kind for worker in world.workers if worker.has_ended]:
            world.stop_loads()
            raise Lost(f"{ended} ended")
        figures.note(samples.take())
