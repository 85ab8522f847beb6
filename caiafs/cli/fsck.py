"""`caiafs fsck REPO`: checks a repository and its state, says what each fault means, and repairs what can be repaired."""

import argparse
import json
import sys
import traceback
from collections.abc import Mapping
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING

from caiafs.cli.exits import os_error
from caiafs.cli.mounts import find_mount
from caiafs.cli.parser import Parser
from caiafs.cli.sync import count
from caiafs.cli.upkeep import add_settings, name_mount, read_config
from caiafs.core.errors import CaiaError, ConfigError, StateBusy

if TYPE_CHECKING:  # trio and pygit2 take longer to load than --help takes to print
    from caiafs.upkeep.fsck import Checked


class FsckCode(IntFlag):
    """Exit codes of fsck(8), which differ from those of the other commands."""

    CLEAN = 0
    CORRECTED = 1
    UNCORRECTED = 4
    OPERATIONAL = 8
    USAGE = 16
    CANCELLED = 32


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Check, print what was found, and return a code of fsck(8)."""
    try:
        parsed = _parser().parse(argv)
    except ConfigError as exc:
        print(f"caiafs: {exc}", file=sys.stderr)
        return FsckCode.USAGE
    try:
        checked = _check(parsed, environ)
    except CaiaError as exc:
        print(f"caiafs fsck: {exc}", file=sys.stderr)
        return FsckCode.OPERATIONAL
    except OSError as exc:
        print(f"caiafs fsck: {os_error(exc)}", file=sys.stderr)
        return FsckCode.OPERATIONAL
    except KeyboardInterrupt:
        print("caiafs fsck: cancelled", file=sys.stderr)
        return FsckCode.CANCELLED
    except Exception:  # noqa: BLE001  # a bug: Python would end with 1, which says that all is corrected
        traceback.print_exc()
        return FsckCode.OPERATIONAL
    code = exit_code(checked)
    if parsed.json:
        print(json.dumps(_as_json(checked, parsed.repository, code), indent=2))
    else:
        print("\n".join(describe(checked, parsed.repository)))
    return code


def _parser() -> Parser:
    parser = Parser(
        "fsck",
        usage="caiafs fsck [--repair] [--govc|--no-govc] [--json] REPO",
        description=(
            "Check the repository REPO, which is not mounted: git, the state database, what is not published yet,\n"
            "and govc where one is configured. --repair loses nothing: what it takes away is kept below\n"
            "lost/ in the state directory. Exit codes are those of fsck(8)."
        ),
    )
    parser.add_argument("repository", type=Path, metavar="REPO")
    parser.add_argument("--repair", action="store_true", help="put right what can be put right")
    parser.add_argument(
        "--govc",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compare every document with govc [where one is configured]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings(parser)
    return parser


def _check(parsed: argparse.Namespace, environ: Mapping[str, str]) -> "Checked":
    mount = find_mount(parsed.repository)
    if mount is not None and mount.is_caiafs:
        raise ConfigError(
            f"{mount.point} is a mount; caiafs umount it, and check its repository: {mount.source}"
        )
    config = read_config(parsed.repository, parsed, environ)
    from caiafs.upkeep.alone import run_alone
    from caiafs.upkeep.fsck import Fsck
    from caiafs.upkeep.place import open_place

    try:
        return run_alone(Fsck(open_place(config), parsed.repair, parsed.govc).run)
    except StateBusy as exc:  # a dead mount is no obstacle, so the lock decides
        raise name_mount(exc, config.repository) from exc


def exit_code(checked: "Checked") -> FsckCode:
    """Return what fsck ends with."""
    if checked.after.errors:
        return FsckCode.UNCORRECTED
    return FsckCode.CORRECTED if checked.before.errors else FsckCode.CLEAN


def describe(checked: "Checked", repository: Path) -> list[str]:
    """Return the lines that are printed: what was found, what was done, what is left."""
    lines = [str(finding) for finding in checked.before.findings]
    lines += [f"done: {line}" for line in checked.done]
    if checked.lost is not None:
        lines.append(f"kept below {checked.lost}")
    if checked.after is not checked.before:
        lines += [f"left: {finding}" for finding in checked.after.errors]
    looked_at = ", ".join(f"{count} {what}" for what, count in checked.after.looked_at.items())
    state = {
        FsckCode.CLEAN: "clean",
        FsckCode.CORRECTED: "corrected, and clean now",
        FsckCode.UNCORRECTED: f"{count(len(checked.after.errors), 'error')} left",
    }[exit_code(checked)]
    return [*lines, f"{repository}: {state}" + (f" ({looked_at})" if looked_at else "")]


def _as_json(checked: "Checked", repository: Path, code: FsckCode) -> dict[str, object]:
    return {
        "repository": str(repository),
        "exit_code": int(code),
        "findings": [finding.as_json() for finding in checked.before.findings],
        "done": list(checked.done),
        "left": [finding.as_json() for finding in checked.after.errors],
        "lost": str(checked.lost) if checked.lost is not None else None,
        "looked_at": checked.after.looked_at,
    }
