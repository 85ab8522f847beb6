"""What an outage of govc costs whoever works in the mount: hanging against healthy, in the same run.

For the target whose govc is behind a proxy that can be told to accept, read and never answer. Each figure is a ratio of medians, 1 being
"nobody notices"; what waits for govc would show as hundreds.
"""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.cases import Case, Dataset, write_file
from bench.targets import CaiafsOutage
from tests.support.waiting import wait_until

TIMES = 200
FILES = 100


class Availability:
    """The availability cases of one target; `target` is mounted."""

    def __init__(self, target: CaiafsOutage, data: Dataset) -> None:
        self._target = target
        self._data = data
        self._count = 0

    def cases(self) -> tuple[Case, ...]:
        """Return what can be measured."""
        acts: dict[str, Callable[[Path, int], object]] = {
            "ls": lambda folder, _: os.listdir(folder),
            "stat": lambda folder, n: os.stat(folder / f"{n % FILES:05d}"),
            "read": lambda folder, n: (folder / f"{n % FILES:05d}").read_bytes(),
            "health": lambda _, __: self._target.virtual("health.json"),
            "save": lambda folder, n: write_file(str(folder / f"new-{n}"), b"%d\n" % n),
        }
        return tuple(
            Case(f"hanging-{name}", "x", False, partial(self._ratio, act))
            for name, act in acts.items()
        )

    def _ratio(self, act: Callable[[Path, int], object], data: Dataset) -> float:
        """Return how many times longer `act` takes with a govc that hangs."""
        self._count += 1
        folder = data.root / f"outage-{self._count}"
        folder.mkdir()
        for number in range(FILES):
            write_file(str(folder / f"{number:05d}"), b"%d\n" % number)
        self._target.sync()
        healthy = _median(act, folder, 0)
        self._target.sync()
        self._target.proxy.be("hang")
        try:
            write_file(str(folder / "meanwhile"), b"something to publish\n")
            wait_until(lambda: self._target.proxy.requests, "caiafs waits for an answer")
            hanging = _median(act, folder, TIMES)
        finally:
            self._target.proxy.be("pass")
        self._target.sync()
        return hanging / healthy


def _median(act: Callable[[Path, int], object], folder: Path, start: int) -> float:
    took = []
    for number in range(start, start + TIMES):
        began = time.perf_counter()
        act(folder, number)
        took.append(time.perf_counter() - began)
    return statistics.median(took)
