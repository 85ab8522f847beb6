"""`caiafs migrate SOURCE TARGET`: documents from govc to git, from git to govc, or a repository with its history."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from caiafs.cli.exits import ExitCode
from caiafs.cli.fetch import read_list
from caiafs.cli.parser import Parser
from caiafs.cli.progress import progress
from caiafs.cli.upkeep import read_config
from caiafs.core import locations
from caiafs.core.config import Config
from caiafs.core.errors import ConfigError
from caiafs.core.types import DocPath

if TYPE_CHECKING:  # trio and pygit2 take longer to load than --help takes to print
    from caiafs.upkeep.migration import Migrated
    from caiafs.upkeep.place import Place

_SHOWN = 20
_GOVC = ("http://", "https://")
_FORM = "a govc is written http://host:port#repository-name"


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Migrate, and return 0, or 3 where the target does not have everything; what it lacks is named.

    Raises:
        ConfigError, StoreError: it could not go on; what was done stays, and running it again goes on from there.
    """
    parser = Parser(
        "migrate",
        usage="caiafs migrate SOURCE TARGET [--overwrite] [--from FILE]",
        description=(
            "Bring the documents of SOURCE to TARGET, each a git repository or http://host:port#repository-name of a\n"
            "govc. What is there with the right hash is left alone, so an interrupted migration goes on where it was;\n"
            "what differs is named and left alone too. A token comes from GOVC_AUTH_TOKEN, as in a mount."
        ),
    )
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("--overwrite", action="store_true", help="replace what differs in TARGET")
    parser.add_argument(
        "--from", dest="named", metavar="FILE", help="documents of a govc that cannot list them"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML")
    parsed = parser.parse(argv)
    with progress("migrate", unit=" documents" if _is_documents(parsed) else "B") as advance:
        done = _choose(parsed, environ)(advance)
    return _tell(done, parsed.target)


def _is_govc(place: str) -> bool:
    return place.startswith(_GOVC)


def _is_documents(parsed: argparse.Namespace) -> bool:
    return _is_govc(parsed.source) or _is_govc(parsed.target)


def _config(place: str, parsed: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    """Return the settings for a repository, or for a govc on its own."""
    if not _is_govc(place):
        return read_config(Path(place), parsed, {**environ, "CAIA_USE_GOVC": "false"})
    url, mark, name = place.partition("#")
    if not mark or not name:
        raise ConfigError(f"{place}: which repository there? {_FORM}")
    more = {"govc_url": url, "govc_repo_name": name, "use_govc": "true"}
    return read_config(Path(), parsed, environ, more)


def _choose(
    parsed: argparse.Namespace, environ: Mapping[str, str]
) -> "Callable[[Callable[[int], None]], Migrated]":
    """Return what does this migration."""
    source = _config(parsed.source, parsed, environ)
    target = _config(parsed.target, parsed, environ)
    if not _is_govc(
        parsed.source
    ):  # those are the source's: the target's objects must not go there
        target = replace(target, state_dir=None, branch=None)
    if _is_govc(parsed.source) and _is_govc(parsed.target):
        raise ConfigError("from govc to govc goes by way of a repository: two migrations")
    if parsed.named is not None and not _is_govc(parsed.source):
        raise ConfigError("--from names documents of a govc; a repository lists its own")
    from caiafs.upkeep.alone import run_alone

    def migrate(advance: Callable[[int], None]) -> "Migrated":
        return run_alone(partial(_migrate, parsed, source, target, advance))

    return migrate


async def _migrate(
    parsed: argparse.Namespace, source: Config, target: Config, advance: Callable[[int], None]
) -> "Migrated":
    # Imported here, as above.
    from caiafs.backends.govc import GovcSettings
    from caiafs.upkeep.migrate_repository import ToRepository
    from caiafs.upkeep.migrate_to_git import ToGit
    from caiafs.upkeep.migrate_to_govc import ToGovc
    from caiafs.upkeep.place import held

    if _is_govc(parsed.target):
        place = _source(source)
        settings = GovcSettings.from_config(target)
        return await ToGovc(place, settings, parsed.overwrite).run(advance)
    named = read_list(parsed.named) if parsed.named is not None else []
    origin = _source(source) if not _is_govc(parsed.source) else None
    place = _target(target, origin)
    async with held(place.state_dir):
        if origin is not None:
            return await ToRepository(origin, place, parsed.overwrite).run(advance)
        paths = tuple(DocPath(path) for path in named)
        settings = GovcSettings.from_config(source)
        return await ToGit(settings, place, parsed.overwrite, paths).run(advance)


def _source(config: Config) -> "Place":
    """Open a repository to read it; nothing of it may wait in a state directory."""
    from caiafs.upkeep.place import count_pending, open_place

    place = open_place(config)
    pending = count_pending(place)
    if pending:
        raise ConfigError(
            f"{config.repository}: {pending} not published yet, which would be left behind; mount it and"
            " `caiafs sync`",
            exit_code=ExitCode.INCOMPLETE,
        )
    return place


def _target(config: Config, origin: "Place | None") -> "Place":
    """Open a repository to write to it, made where there is none, with the branch of its source."""
    from caiafs.backends.git.repository import open_repository
    from caiafs.upkeep.place import open_place

    if not locations.is_repository(config.repository):
        ref = origin.repository.branch_ref if origin is not None else None
        branch = ref.removeprefix("refs/heads/") if ref else None
        open_repository(config.repository, branch=branch)
    return open_place(config)


def _tell(done: "Migrated", target: str) -> int:
    """Print what came of it, and return the exit code."""
    for what, lines in (
        ("differs in the target, left as it is", done.differing),
        ("not taken", [f"{path}: {reason}" for path, reason in done.refused]),
    ):
        for line in lines[:_SHOWN]:
            print(f"{what}: {line}")
        if len(lines) > _SHOWN:
            print(f"{what}: {len(lines) - _SHOWN} more")
    for note in done.notes:
        print(f"note: {note}")
    print(f"{target}: {done.copied} copied, {done.same} were there; verified")
    return ExitCode.OK if done.is_complete else ExitCode.INCOMPLETE
