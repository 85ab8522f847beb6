"""The figures of a run: medians, ratios, a table for a person, JSON for a program."""

import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.cases import Case

ORIENTATION = """\
Compare ratios within one run; the figures themselves are this machine's. For orientation,
4 KiB creates per second of others, once, on a machine of two cores: JuiceFS 400, gitfs 500, s3ql 600, rclone 800,
a tuned pyfuse3 passthrough 2,350, a throwaway spike of this design 3,200."""


@dataclass(slots=True)
class Results:
    """Figures by case and target, in the order they came."""

    cases: dict[str, Case] = field(default_factory=dict)
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    memory_mib: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, case: Case, target: str, figure: float) -> None:
        """Take one figure in."""
        self.cases[case.name] = case
        self.figures.setdefault(case.name, {}).setdefault(target, []).append(figure)

    def note_memory(self, target: str, memory_mib: dict[str, float]) -> None:
        """Keep the largest memory seen."""
        seen = self.memory_mib.setdefault(target, {})
        for role, mib in memory_mib.items():
            seen[role] = max(seen.get(role, 0.0), mib)

    def targets(self) -> list[str]:
        """Return the targets with a figure, in order of appearance."""
        return list(dict.fromkeys(t for row in self.figures.values() for t in row))

    def median(self, case: str, target: str) -> float | None:
        """Return the median figure, None without any."""
        figures = self.figures.get(case, {}).get(target)
        return statistics.median(figures) if figures else None

    def ratio(self, case: str, target: str, base: str) -> float | None:
        """Return how many times better `target` is than `base`: above 1 is better, whatever the unit."""
        mine, other = self.median(case, target), self.median(case, base)
        if not mine or not other:
            return None
        return mine / other if self.cases[case].higher_is_better else other / mine


def table(results: Results, base: str) -> str:
    """Return the table: medians, and in brackets the ratio to `base`."""
    targets = results.targets()
    width = max([len(t) for t in targets] + [16]) + 1
    lines = [f"{'case':<18}{'unit':<9}" + "".join(f"{t:>{width}}" for t in targets)]
    for name, case in results.cases.items():
        cells = (_cell(results, name, target, base) for target in targets)
        lines.append(f"{name:<18}{case.unit:<9}" + "".join(f"{c:>{width}}" for c in cells))
    lines += [
        f"memory of {target}: " + ", ".join(f"{role} {mib:.0f} MiB" for role, mib in seen.items())
        for target, seen in results.memory_mib.items()
        if seen
    ]
    lines += [f"not measured: {what}: {why}" for what, why in results.skipped.items()]
    lines.append(
        f"In brackets: times better than {base} (publishing: than caiafs-idle, which publishes nothing);"
        "\nabove 1 is faster. hanging-*: how many times longer it takes while govc accepts and never answers."
        f" {ORIENTATION}"
    )
    return "\n".join(lines)


def _cell(results: Results, case: str, target: str, base: str) -> str:
    median = results.median(case, target)
    base = results.cases[case].base or base
    if median is None:
        return "-"
    shown = f"{median:,.0f}" if median >= 100 else f"{median:.2f}"
    ratio = results.ratio(case, target, base)
    return shown if ratio is None or target == base else f"{shown} ({ratio:.2f})"


def write_json(results: Results, path: Path, base: str) -> None:
    """Write everything that was measured to `path`."""
    cases = {
        name: {
            "unit": case.unit,
            "higher_is_better": case.higher_is_better,
            "figures": results.figures[name],
            "median": {t: results.median(name, t) for t in results.figures[name]},
            "base": case.base or base,
            "times_better_than_base": {
                t: results.ratio(name, t, case.base or base) for t in results.figures[name]
            },
        }
        for name, case in results.cases.items()
    }
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": {"kernel": platform.release(), "python": sys.version.split()[0]},
        "cases": cases,
        "memory_mib": results.memory_mib,
        "not_measured": results.skipped,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
