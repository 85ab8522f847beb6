"""Runs the cases on the targets, interleaved, and prints the table."""

import argparse
import contextlib
import signal
import sys
from pathlib import Path

from bench import report
from bench.availability import Availability
from bench.cases import CASES, FULL, QUICK, Case, Dataset, Scale, TooBusy
from bench.publishing import Publishing
from bench.targets import ALL, Caiafs, CaiafsOutage, Target, Unavailable, scratch

PUBLISHING = ("create-publishing", "read-publishing", "publish-burst", "save-to-commit")
AVAILABILITY = ("hanging-ls", "hanging-stat", "hanging-read", "hanging-health", "hanging-save")
DEFAULT_TARGETS = (
    "plain", "bindfs", "passthrough", "caiafs-idle", "caiafs", "caiafs+govc", "caiafs+outage",
)  # fmt: skip


def arguments() -> argparse.Namespace:
    names = [c.name for c in CASES] + [*PUBLISHING, *AVAILABILITY]
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="What caiafs costs, beside the plain directory, bindfs and a pyfuse3 passthrough.",
        epilog=f"cases: {' '.join(names)}. targets: {' '.join(t.name for t in ALL)}.",
    )
    parser.add_argument("cases", nargs="*", help="cases to run (default: all)", metavar="CASE")
    parser.add_argument("--quick", action="store_true", help="less of everything, one round")
    parser.add_argument("--rounds", type=int, help="rounds of each case (default 3, quick 1)")
    parser.add_argument("--targets", help="targets to run, separated by commas")
    parser.add_argument("--base", default="passthrough", help="target that ratios refer to")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    args.targets = args.targets.split(",") if args.targets else list(DEFAULT_TARGETS)
    if unknown := sorted({*args.cases} - {*names}):
        parser.error(f"unknown case: {', '.join(unknown)}; there are {', '.join(names)}")
    if unknown := sorted({*args.targets} - {t.name for t in ALL}):
        parser.error(f"unknown target: {', '.join(unknown)}")
    return args


def enter_targets(
    stack: contextlib.ExitStack, names: list[str], base: Path, results: report.Results
) -> list[Target]:
    entered = []
    for kind in (t for t in ALL if t.name in names):
        try:
            entered.append(stack.enter_context(kind(base)))
        except Unavailable as exc:
            results.skipped[kind.name] = str(exc)
    return entered


def cases_of(target: Target, data: Dataset, wanted: list[str]) -> dict[str, Case]:
    found = {case.name: case for case in CASES}
    if isinstance(target, CaiafsOutage):
        found = {case.name: case for case in Availability(target, data).cases()}
    elif isinstance(target, Caiafs):
        found |= {case.name: case for case in Publishing(target, data).cases()}
    return {name: case for name, case in found.items() if not wanted or name in wanted}


def measure(
    targets: list[Target], scale: Scale, rounds: int, wanted: list[str], results: report.Results
) -> None:
    """Run every case on every target, `rounds` times; who goes first changes with each round."""
    runs = []
    for target in targets:
        root, beside = target.path / "bench", target.base / "beside"
        root.mkdir()
        beside.mkdir()
        data = Dataset(root, beside, scale)
        runs.append((target, data, cases_of(target, data, wanted)))
    names = list(dict.fromkeys(name for _, _, cases in runs for name in cases))
    for turn in range(rounds):
        for name in names:
            first = turn % len(runs)
            for target, data, cases in runs[first:] + runs[:first]:
                if name in cases:
                    run_case(target, data, cases[name], results)


def run_case(target: Target, data: Dataset, case: Case, results: report.Results) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{case.name} on {target.name}", end="", file=sys.stderr, flush=True)
    try:
        results.add(case, target.name, case.measure(data))
        results.note_memory(target.name, target.memory_mib())
        target.settle()
    except (TooBusy, Unavailable) as exc:
        results.skipped[case.name] = str(exc)
    except (OSError, RuntimeError, AssertionError) as exc:
        results.skipped[f"{case.name} on {target.name}"] = f"failed: {exc}"


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # leaves no mount
    results = report.Results()
    scale = QUICK if args.quick else FULL
    with scratch() as base, contextlib.ExitStack() as stack:
        targets = enter_targets(stack, args.targets, Path(base), results)
        measure(targets, scale, args.rounds or (1 if args.quick else 3), args.cases, results)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    print(report.table(results, args.base))
    if args.json:
        report.write_json(results, args.json, args.base)
    failed = [what for what, why in results.skipped.items() if why.startswith("failed")]
    return 1 if failed or not results.figures else 0


if __name__ == "__main__":
    sys.exit(main())
