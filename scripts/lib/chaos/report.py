"""The figures of a run, and the worlds that it opens and closes."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class Closable(Protocol):
    def close(self, *, keep: bool = False) -> None: ...


class Figures:
    """Counts and measurements by name, in the order they came."""

    def __init__(self, kind: str, *, loud: bool) -> None:
        self.kind = kind
        self.values: dict[str, Any] = {}
        self._loud = loud
        self._began = time.monotonic()

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        self.values[name] = self.values.get(name, 0) + count

    def set(self, name: str, value: Any) -> None:
        """Keep a measurement."""
        self.values[name] = value

    def largest(self, name: str, value: float) -> None:
        """Keep the largest of several measurements."""
        self.values[name] = max(self.values.get(name, value), value)

    def note(self, text: str) -> None:
        """Say where we are, to whoever looks on."""
        if self._loud:
            passed = time.monotonic() - self._began
            print(f"{passed:7.1f} s  {self.kind}: {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def world(self, world: Any) -> Iterator[Any]:
        """Close `world` after the block; keep its files when the block fails."""
        try:
            yield world
        except BaseException:
            world.close(keep=True)
            print(f"its files are in {world.base}", file=sys.stderr)
            raise
        world.close()

    def end(self) -> None:
        """Take the time."""
        self.set("seconds", round(time.monotonic() - self._began, 1))


def table(runs: list[Figures]) -> str:
    """Return all figures as lines for a person."""
    lines = []
    for figures in runs:
        lines.append(figures.kind)
        lines += [f"  {name:<44}{_shown(value):>14}" for name, value in figures.values.items()]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def write_json(runs: list[Figures], path: Path) -> None:
    """Write all figures to `path`."""
    path.write_text(json.dumps({run.kind: run.values for run in runs}, indent=2) + "\n")
