"""What the commands that work on a repository have in common: its settings, and a mount that may be on it."""

import argparse
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from caiafs.cli.live import DeadMount, read_json
from caiafs.cli.mounts import Mount, find_mount, parse_mountinfo
from caiafs.core.config import Config
from caiafs.core.errors import StateBusy
from caiafs.core.locations import mount_source
from caiafs.core.settings import Given, load

_NOWHERE = Path("/nonexistent")
_PLACE = ("repository", "branch", "state_dir")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a repository's state and branch are, and --config."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML")
    parser.add_argument("--branch", metavar="NAME", help="branch of the documents, if not HEAD's")
    parser.add_argument("--state-dir", metavar="DIR", help="where state is kept, if not in REPO")


def read_config(
    repository: Path,
    parsed: argparse.Namespace,
    environ: Mapping[str, str],
    more: Mapping[str, str] | None = None,
) -> Config:
    """Return the settings for `repository`, as a mount of it would have them.

    Raises:
        ConfigError: one cannot be used.
    """
    cwd = Path.cwd()
    given = {"repository": str(repository), **(more or {})}
    for name in ("branch", "state_dir"):
        if getattr(parsed, name, None) is not None:
            given[name] = getattr(parsed, name)
    texts = [Given(name, text, "command line", cwd) for name, text in given.items()]
    config_file = getattr(parsed, "config", None)
    return load(_NOWHERE, texts, environ, cwd=cwd, config_file=config_file).config


def find_served(path: Path) -> tuple[dict[str, str], Mount | None]:
    """Return the settings of the repository that `path` is or is mounted from, and its mount where there is one.

    A mount says where its state is: there may be objects that the repository does not have itself.

    Raises:
        ConfigError: a mount that does not answer.
    """
    mount = find_mount(path)
    if mount is not None and mount.is_caiafs:
        return _settings_of(mount), mount
    mount = mount_of(path)
    if mount is not None:
        with contextlib.suppress(DeadMount):
            return _settings_of(mount), mount
    return {"repository": str(path)}, mount


def _settings_of(mount: Mount) -> dict[str, str]:
    told = read_json(mount, "config.json")
    found = {name: told.get(name, {}).get("value") for name in _PLACE}
    return {name: value for name, value in found.items() if value}


def mount_of(repository: Path) -> Mount | None:
    """Return where `repository` is mounted, as far as this process can see."""
    source = mount_source(Path(os.path.realpath(repository)))
    mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())
    return next((mount for mount in mounts if mount.is_caiafs and mount.source == source), None)


def name_mount(busy: StateBusy, repository: Path) -> StateBusy:
    """Return the error of a repository that is held, with where it is mounted, as far as that can be seen."""
    mount = mount_of(repository)
    if mount is None:
        return busy
    return StateBusy(f"{repository} is mounted on {mount.point}; caiafs umount {mount.point} first")
