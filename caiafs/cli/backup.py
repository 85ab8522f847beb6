"""`caiafs backup REPO|MNT FILE`: everything of a repository in one file, what a mount has not published yet included."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from caiafs.cli.exits import ExitCode
from caiafs.cli.live import DeadMount, find_living, write_control
from caiafs.cli.mounts import Mount
from caiafs.cli.parser import Parser, duration
from caiafs.cli.progress import progress
from caiafs.cli.upkeep import add_settings, find_served, read_config
from caiafs.core.config import Config
from caiafs.core.durations import format_duration
from caiafs.core.errors import ConfigError


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Write the bundle; 3 where something is in the state directory only, and then no file is written.

    Raises:
        ConfigError, StoreError: it could not be written; nothing is left of it.
    """
    parser = Parser(
        "backup",
        usage="caiafs backup REPO|MNT FILE [--force] [--allow-pending] [--timeout 60s]",
        description=(
            "Write the branch, its history and all that caiafs keeps in git (refs/caia/*) to FILE, a git bundle.\n"
            "A repository that is mounted is synced first."
        ),
    )
    parser.add_argument("source", type=Path, metavar="REPO|MNT")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--force", action="store_true", help="replace FILE")
    parser.add_argument(
        "--allow-pending",
        action="store_true",
        help="leave out what is in the state directory only",
    )
    parser.add_argument("--timeout", type=duration, default=60.0, metavar="DURATION")
    add_settings(parser)
    parsed = parser.parse(argv)
    place, mount = find_served(parsed.source)
    config = read_config(Path(place["repository"]), parsed, environ, place)
    if mount is not None:
        _sync(mount, parsed.timeout)
    return _write(config, parsed.file, force=parsed.force, allow_pending=parsed.allow_pending)


def _sync(mount: Mount, timeout_s: float) -> None:
    """Have the mount publish what it has; what is left is counted afterwards."""
    try:
        find_living(mount.point)
        write_control(mount, f"sync {format_duration(timeout_s)}\n".encode())
    except DeadMount:
        return  # what it left is in the state directory, as of one that is not mounted
    except OSError as exc:
        print(f"{mount.point}: not everything is synced: {exc.strerror}")


def _write(config: Config, target: Path, *, force: bool, allow_pending: bool) -> int:
    # Imported here: trio and pygit2 take longer to load than --help takes to print.
    from caiafs.upkeep.alone import run_alone
    from caiafs.upkeep.backup import back_up
    from caiafs.upkeep.place import count_pending, open_place

    place = open_place(config)
    pending = count_pending(place)
    if pending and not allow_pending:
        raise ConfigError(
            f"{config.repository}: {pending} not published yet, which a backup would leave out; mount it"
            " and `caiafs sync`, or --allow-pending",
            exit_code=ExitCode.INCOMPLETE,
        )
    with progress(f"backup of {config.repository.name}") as advance:
        done = run_alone(partial(back_up, place, target.absolute(), force=force, advance=advance))
    print(
        f"{target}: {done.refs} references, {done.objects} objects, {done.size_bytes} bytes; verified"
    )
    if pending:
        print(f"left out: {pending} not published yet")
    return ExitCode.OK
