"""`caiafs status MNT`: what a person wants to know of a mount, or all of it as JSON."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import find_caiafs, read_json
from caiafs.cli.mounts import Mount
from caiafs.cli.parser import Parser
from caiafs.cli.resolve import LIST_FILE, short_lines
from caiafs.cli.sync import count
from caiafs.core.durations import format_duration


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Print how the mount is; failed health is exit code 1, degraded is not.

    Raises:
        ConfigError: not a caiafs mount, or it does not answer.
    """
    parser = Parser(
        "status", usage="caiafs status MNT [--json]", description="Say how the mount on MNT is."
    )
    parser.add_argument("mountpoint", type=Path, metavar="MNT")
    parser.add_argument("--json", action="store_true", help="health.json and stats.json in one")
    parsed = parser.parse(argv)
    mount = find_caiafs(parsed.mountpoint)
    health, stats = read_json(mount, "health.json"), read_json(mount, "stats.json")
    if parsed.json:
        print(json.dumps({"health": health, "stats": stats}, indent=2))
    else:
        lines = describe(mount.point, health, stats)
        if health.get("conflicts"):
            lines += conflict_lines(mount)
        print("\n".join(lines))
    return ExitCode.FAILURE if health.get("status") == "failed" else ExitCode.OK


def conflict_lines(mount: Mount) -> list[str]:
    """Return the lines that name open conflicts, and what to do about them.

    Raises:
        ConfigError: the mount does not answer.
    """
    conflicts = read_json(mount, LIST_FILE)["conflicts"]
    if not conflicts:
        return []
    return [
        f"conflicts:  {len(conflicts)} open; `caiafs resolve {mount.point} --list` tells more",
        *short_lines(conflicts),
    ]


def describe(point: Path, health: dict[str, Any], stats: dict[str, Any]) -> list[str]:
    """Return the lines that `caiafs status` prints."""
    mount, state = stats.get("mount", {}), stats.get("state", {})
    uptime = format_duration(round(mount.get("uptime_s", 0)))
    lines = [
        f"{point}: {health.get('status', 'unknown')}, {health.get('mode', 'unknown')}, up {uptime}",
        *(f"  - {reason}" for reason in health.get("reasons", [])),
        f"repository: {mount.get('repository', '')}",
        f"process:    {mount.get('pid', '')}, log {mount.get('log', '')}",
    ]
    for name, backend in sorted(health.get("backends", {}).items()):
        lines.append(f"{name + ':':<12}{_backend(backend)}")
    remote = health.get("remote", {})
    if remote.get("configured"):
        lines.append(f"remote:     {_remote(remote)}")
    pending = state.get("pending_ops", 0)
    if pending:
        age = format_duration(round(state.get("oldest_pending_s", 0)))
        lines.append(f"pending:    {count(pending, 'change')}, the oldest for {age}")
    else:
        lines.append("pending:    nothing")
    return lines


def _backend(backend: dict[str, Any]) -> str:
    if not backend.get("configured"):
        return "not configured"
    parts = [str(backend.get("condition", "")), str(backend.get("implementation", ""))]
    parts.append(count(backend.get("documents", 0), "document"))
    if backend.get("behind"):
        parts.append(f"{backend['behind']} behind")
    if backend.get("breaker", "closed") != "closed":
        parts.append(f"breaker {backend['breaker']}")
    return ", ".join(part for part in parts if part)


def _remote(remote: dict[str, Any]) -> str:
    parts = [str(remote.get("condition", "")), f"{remote.get('branch')} of {remote.get('url')}"]
    parts += [f"{remote[key]} {key}" for key in ("ahead", "behind") if remote.get(key)]
    for key, word in (("last_fetch_s", "looked at"), ("last_push_s", "pushed to")):
        if remote.get(key):
            age = format_duration(round(max(0, time.time() - remote[key])))
            parts.append(f"{word} {age} ago")
    return ", ".join(parts)
