"""`caiafs restore FILE REPO`: a repository made anew from a backup."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from caiafs.cli.exits import ExitCode
from caiafs.cli.parser import Parser
from caiafs.cli.progress import progress


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Make the repository, every object checked.

    Raises:
        ConfigError, StoreError: the file or the place cannot be used; nothing was made.
    """
    parser = Parser(
        "restore",
        usage="caiafs restore FILE REPO",
        description="Make the repository REPO, which must not be there yet, from a backup.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("repository", type=Path, metavar="REPO")
    parsed = parser.parse(argv)
    # Imported here, as in `backup`.
    from caiafs.upkeep.alone import run_alone
    from caiafs.upkeep.restore import restore

    target = parsed.repository.absolute()
    with progress(f"restore of {target.name}") as advance:
        done = run_alone(partial(restore, parsed.file, target, advance=advance))
    print(
        f"{target}: branch {done.branch}, {done.refs} references, {done.objects} objects; verified"
    )
    return ExitCode.OK
