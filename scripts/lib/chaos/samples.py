"""What both processes of a mount use over time, and whether it stays as it is once they are warm."""

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from chaos.report import Figures
from chaos.world import Lost
from tests.support.mount import Mount

MIB = 1 << 20
WARM = 1 / 3
"""The part of the run that counts as warming up."""

GROWTH_MIB = 40.0
"""Memory may be that much more at the end than after warming up, by a line through the samples."""

SPREAD = {"descriptors": 72, "threads": 12, "tasks": 6}  # up to 64 packs are open
WAL_MAX_MIB = 72.0  # caiafs resets it at 64 MiB
PACKS_MAX = 200  # it repacks at 128 where saves never pause, and more come meanwhile


class Samples:
    """Figures of one mount, taken every now and then."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount
        self._pids = {"mount": mount.pid, "store": mount.store_pid}
        self._rows: list[dict[str, float]] = []
        self._began = time.monotonic()

    def take(self) -> str:
        """Take one sample and return it for a person."""
        row = {"minutes": (time.monotonic() - self._began) / 60, **dict(self._figures())}
        self._rows.append(row)
        return ", ".join(f"{name} {value:.4g}" for name, value in row.items())

    def _figures(self) -> Iterator[tuple[str, float]]:
        for name, pid in self._pids.items():
            if not Path(f"/proc/{pid}/task").exists():
                raise Lost(f"the {name} process died")
            yield f"{name} MiB", _own_memory(pid) / MIB
            yield f"{name} descriptors", float(len(os.listdir(f"/proc/{pid}/fd")))
            yield f"{name} threads", float(len(os.listdir(f"/proc/{pid}/task")))
        objects = self._mount.repo / "objects"
        yield "packs", float(sum(1 for _ in (objects / "pack").glob("*.pack")))
        yield "loose", float(sum(1 for _ in objects.glob("[0-9a-f][0-9a-f]/*")))
        state = self._mount.repo / "caiafs"
        sizes = {path.name: _size(path) / MIB for path in state.rglob("*")}
        yield "state MiB", sum(sizes.values())
        yield "wal MiB", sum(size for name, size in sizes.items() if name.endswith("-wal"))
        stats = self._mount.stats()
        for name, part in (("mount", "mount"), ("store", "store_process")):
            yield f"{name} tasks", float(stats[part]["tasks"])
        began = time.monotonic()
        health = self._mount.health()
        yield "health s", time.monotonic() - began
        yield "pending", float(health["pending_ops"])

    def show(self, figures: Figures) -> None:
        """Put the course of each figure into the report."""
        for name in self._rows[0] if self._rows else ():
            if name == "minutes":
                continue
            values = [row[name] for row in self._rows]
            figures.set(
                f"{name}: first, warm, last, most",
                " ".join(f"{v:.4g}" for v in (*self._course(name), max(values))),
            )

    def _warm(self) -> list[dict[str, float]]:
        return self._rows[int(len(self._rows) * WARM) :]

    def _course(self, name: str) -> tuple[float, float, float]:
        return self._rows[0][name], self._warm()[0][name], self._rows[-1][name]

    def check(self) -> None:
        """Raise Lost where something grew."""
        warm = self._warm()
        minutes = [row["minutes"] for row in warm]
        length = minutes[-1] - minutes[0]
        wrong = []
        for process in self._pids:
            line = statistics.linear_regression(minutes, [row[f"{process} MiB"] for row in warm])
            if line.slope * length > GROWTH_MIB:
                wrong.append(f"{process}: memory grows by {line.slope:.1f} MiB a minute")
            for what, most in SPREAD.items():
                values = [row[f"{process} {what}"] for row in warm]
                half = len(values) // 2
                if min(values[half:]) - max(values[:half]) > 0 and values[-1] - values[0] > most:
                    wrong.append(f"{process}: {what} grow from {values[0]:g} to {values[-1]:g}")
        if (most := max(row["wal MiB"] for row in warm)) > WAL_MAX_MIB:
            wrong.append(f"the WAL grew to {most:.0f} MiB")
        if (most := max(row["packs"] for row in warm)) > PACKS_MAX:
            wrong.append(f"there were {most:g} packs")
        if wrong:
            raise Lost("; ".join(wrong))


def _own_memory(pid: int) -> int:
    """Return the resident memory that is no file's: windows of mapped packs come and go, and are the kernel's to take back."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
