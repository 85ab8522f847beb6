"""`caiafs [mount] [REPO] MNT`: settings, checks, then the mount in the background or in front."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from caiafs.cli import daemon, preflight
from caiafs.cli.exits import ExitCode
from caiafs.cli.mounts import find_mount
from caiafs.cli.parser import mount_parser, settings_given
from caiafs.cli.upkeep import name_mount
from caiafs.core import locations
from caiafs.core import log as logs
from caiafs.core.config import Config
from caiafs.core.errors import ConfigError, StateBusy
from caiafs.core.remote_url import secrets_of
from caiafs.core.settings import Settings, load


def run(argv: list[str], environ: Mapping[str, str]) -> int:
    """Mount, and return the exit code.

    Raises:
        ConfigError: a setting, the mount point or the repository cannot be used.
        CaiaError: in the foreground, what stopped the mount before it answered.
    """
    parsed = mount_parser().parse(argv)
    cwd = Path.cwd()
    mountpoint, given = settings_given(parsed, cwd)
    settings = load(_real(mountpoint), given, environ, cwd=cwd, config_file=parsed.config)
    config = settings.config
    for line in (*settings.warnings, *preflight.check(config)):
        print(f"caiafs: {line}", file=sys.stderr)
    existing = locations.is_repository(config.repository)
    serve = _server(settings)

    if config.foreground:
        return serve(lambda stores: _announce(config, existing=existing, stores=stores))
    started = daemon.start(serve, locations.log_file(config))
    if started.code != ExitCode.OK:
        raise ConfigError(started.text, exit_code=started.code)
    _announce(config, existing=existing, stores=started.text)
    return ExitCode.OK


def _real(mountpoint: Path) -> Path:
    """Return the mount point without links; one that is mounted is looked up, not asked."""
    mount = find_mount(mountpoint)
    return mount.point if mount else Path(os.path.realpath(mountpoint))


def _server(settings: Settings) -> daemon.Serve:
    config = settings.config

    def serve(on_ready: Callable[[str], None]) -> int:
        logs.setup(
            locations.log_file(config),
            config.log_level,
            to_stderr=config.foreground,
            secrets=[config.govc_auth_token, *secrets_of(config.git_remote)],
        )
        # Imported here: pyfuse3, trio and pygit2 take longer to load than --help takes to print.
        from caiafs import app

        try:
            code = app.serve(config, settings.origins, on_ready=on_ready)
        except StateBusy as exc:
            raise name_mount(exc, config.repository) from exc
        logging.getLogger(__name__).info("mount on %s ended", config.mountpoint)
        return code

    return serve


def _announce(config: Config, *, existing: bool, stores: str) -> None:
    """Print what is mounted, what the stores are, and where the log is."""
    kind = "existing" if existing else "new"
    print(f"{config.mountpoint}: documents of {config.repository} ({kind})")
    print(f"stores: {stores or describe_stores(config)}")
    print(f"log: {locations.log_file(config)}", flush=True)


def describe_stores(config: Config) -> str:
    """Return in a few words where documents are stored."""
    if not config.use_govc:
        return "git only"
    other = "git" if config.primary_backend == "govc" else "govc"
    url = f"govc at {config.govc_url}, repository {config.govc_repo_name}"
    return f"{config.primary_backend} first, then {other}; {url}"
