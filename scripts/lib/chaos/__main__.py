"""Runs the kinds of chaos that are asked for and prints their figures."""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from chaos import converge, kills, power, report, soak, steps
from chaos.report import Figures

KINDS = ("kills", "steps", "power", "converge", "remotes", "soak")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Kills, power cuts, concurrent mounts and bad weather on real mounts; ends with 1 on any loss.",
    )
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} or all (default: all)"
    )
    parser.add_argument("--count", type=int, help="kills, steps, power cuts or examples (50)")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the soak (2)")
    parser.add_argument("--seed", type=int, help="repeat a run (default: another each time)")
    parser.add_argument("--base", type=Path, help="directory to work in")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--quiet", action="store_true", help="print the table only")
    args = parser.parse_args()
    if unknown := {*args.kinds} - {*KINDS, "all"}:
        parser.error(f"unknown kind: {', '.join(sorted(unknown))}")
    if not args.kinds or "all" in args.kinds:
        args.kinds = list(KINDS)
    args.seed = random.randrange(10**6) if args.seed is None else args.seed
    return args


def runs(args: argparse.Namespace) -> dict[str, Callable[[Path, Figures], None]]:
    """Return how each kind is run."""
    count, seed = args.count or 50, args.seed
    return {
        "kills": lambda base, out: kills.run(base, out, count=count, seed=seed),
        "steps": lambda base, out: steps.run(base, out, count=count, seed=seed),
        "power": lambda base, out: power.run(base, out, count=count, seed=seed),
        "converge": lambda base, out: converge.run(base, out, count=count, seed=seed),
        "remotes": lambda base, out: converge.run_remotes(base, out, count=count, seed=seed),
        "soak": lambda base, out: soak.run(base, out, minutes=args.minutes, seed=seed),
    }


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # leaves no mount
    base = Path(tempfile.mkdtemp(prefix="caiafs-chaos-", dir=args.base))
    done, failed = [], []
    for kind in args.kinds:
        figures = Figures(kind, loud=not args.quiet)
        done.append(figures)
        try:
            runs(args)[kind](base, figures)
        except Exception as exc:  # noqa: BLE001 - the other kinds go on
            traceback.print_exc()
            failed.append(f"{kind}: {exc}")
        figures.end()
    print(report.table(done))
    if args.json:
        report.write_json(done, args.json)
    for text in failed:
        print(f"FAILED {text}\nrepeat: scripts/chaos {text.partition(':')[0]} --seed {args.seed}")
    if not failed:
        shutil.rmtree(base, ignore_errors=True)
    print(f"seed {args.seed}: {'something was lost' if failed else 'nothing lost'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
