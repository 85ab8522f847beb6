"""`caiafs adopt MNT`: merges stores that both hold documents and never met: govc, git, a git remote."""

from collections.abc import Mapping
from pathlib import Path

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import find_caiafs, read_json, write_control
from caiafs.cli.parser import Parser
from caiafs.core.errors import ConfigError


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Have the mount merge both; documents of one name that differ are kept side by side.

    Raises:
        ConfigError: not a caiafs mount, or a store cannot be used now.
    """
    parser = Parser(
        "adopt",
        usage="caiafs adopt MNT",
        description="Merge govc, git and the git remote though they never met; see `caiafs status`.",
    )
    parser.add_argument("mountpoint", type=Path, metavar="MNT")
    mount = find_caiafs(parser.parse(argv).mountpoint)
    health = read_json(mount, "health.json")
    others = (health.get("backends", {}).get("govc", {}), health.get("remote", {}))
    if not any(other.get("configured") for other in others):
        raise ConfigError(
            f"{mount.point} has neither a govc nor a git remote: there is nothing to merge",
            exit_code=ExitCode.FAILURE,
        )
    try:
        write_control(mount, b"adopt\n")
    except OSError as exc:
        raise ConfigError(
            f"adopt: {exc.strerror}; `caiafs status {mount.point}` says why",
            exit_code=ExitCode.FAILURE,
        ) from exc
    print("merged; `caiafs sync` waits until every store holds everything")
    return ExitCode.OK
