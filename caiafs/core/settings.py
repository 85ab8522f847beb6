"""From command line, -o, environment, TOML file and defaults to one frozen Config.

Used by the command line once, before anything starts. The environment is passed in; nothing here reads
the process's own. Each value keeps where it came from, for error messages and .caia/config.json.
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from caiafs.core.config import BackendName, Config
from caiafs.core.errors import ConfigError
from caiafs.core.kinds import PATH, REMOTE
from caiafs.core.remote_url import anchored, mask, secrets_of
from caiafs.core.settings_table import SETTINGS, Setting

DEFAULT_REPOSITORY = Path("data/repo")
CONFIG_ENV = "CAIAFS_CONFIG"
DEFAULT_ORIGIN = "default"
MASKED = "********"


@dataclass(frozen=True, slots=True)
class Given:
    """One value as somebody wrote it.

    Attributes:
        origin: where it was written: "--govc-url", "-o govc_url", "GOVC_SERVICE_URL in the environment".
        text: what was written; a TOML list of patterns comes as a tuple.
        base: directory that a relative path starts from.
        private: False where other users of the machine can read it.
    """

    name: str
    text: str | tuple[str, ...]
    origin: str
    base: Path
    private: bool = True


@dataclass(frozen=True, slots=True)
class Settings:
    """The Config, the origin of each setting in it, and what the user should be told."""

    config: Config
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known name most like `name`, or "" where none is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def from_environment(environ: Mapping[str, str], cwd: Path) -> list[Given]:
    """Return the settings in `environ`. An empty variable counts as unset."""
    return [
        Given(setting.name, environ[setting.env], f"{setting.env} in the environment", cwd)
        for setting in SETTINGS.values()
        if environ.get(setting.env)
    ]


def from_toml(path: Path) -> tuple[list[Given], tuple[str, ...]]:
    """Return the settings in the TOML file, and warnings about it.

    Raises:
        ConfigError: it cannot be read, is not TOML, or names an unknown setting.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
            mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as exc:
        raise ConfigError(f"cannot read configuration file {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    given = [_from_toml_value(path, name, value) for name, value in table.items()]
    warnings = [
        f"{path} holds {item.name} and others can read it; chmod 600 {path}"
        for item in given
        if _is_secret(item) and mode & 0o044
    ]
    return given, tuple(warnings)


def _from_toml_value(path: Path, name: str, value: object) -> Given:
    if name not in SETTINGS:
        raise ConfigError(f"unknown setting {name!r} in {path}{closest(name, SETTINGS)}")
    text: str | tuple[str, ...]
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str | int | float):
        text = str(value)
    elif name == "local_patterns" and isinstance(value, list):
        text = tuple(str(item) for item in value)
    else:
        raise ConfigError(f"{name} in {path} has the wrong type; allowed: {_allowed(name)}")
    return Given(name, text, f"{path}", path.absolute().parent)


def _is_secret(given: Given) -> bool:
    setting = SETTINGS[given.name]
    if setting.kind is REMOTE:
        return isinstance(given.text, str) and bool(secrets_of(given.text.strip()))
    return setting.secret


def _allowed(name: str) -> str:
    return SETTINGS[name].kind.allowed


def _value(given: Given) -> Any:
    setting = SETTINGS[given.name]
    if setting.secret and not given.private:
        raise ConfigError(
            f"{setting.name} must not be on a command line, where every user can read it; use"
            f" {setting.env} in the environment, govc_auth_token_file=, or a --config file"
        )
    if setting.kind is REMOTE and _is_secret(given) and not given.private:
        raise ConfigError(
            f"{setting.name} with a password must not be on a command line, where every user can read it;"
            f" use git's credentials (gitcredentials(7)), {setting.env} in the environment, or a --config file"
        )
    if isinstance(given.text, tuple):
        return given.text
    try:
        value = setting.kind.parse(given.text)
    except (ValueError, RuntimeError) as exc:  # RuntimeError: ~ of a user without a home
        shown = MASKED if setting.secret else repr(given.text)
        if setting.kind is REMOTE:
            shown = mask(shown)
        raise ConfigError(
            f"{setting.name} is {shown} (from {given.origin}); allowed: {setting.kind.allowed}"
        ) from exc
    if setting.kind is REMOTE:
        return anchored(value, given.base)
    return given.base / value if setting.kind is PATH else value


def load(
    mountpoint: Path,
    command_line: list[Given],
    environ: Mapping[str, str],
    *,
    cwd: Path,
    config_file: Path | None = None,
) -> Settings:
    """Return what all sources together say; an earlier one wins over a later one.

    Args:
        mountpoint: absolute.
        command_line: the weakest first: -o, then options, then operands.
        environ: the environment.
        cwd: directory that relative paths start from.
        config_file: --config; else CAIAFS_CONFIG in the environment names it.

    Raises:
        ConfigError: a value that cannot be used, with its name, its origin and what is allowed.
    """
    warnings: tuple[str, ...] = ()
    layers: list[Given] = []
    file = config_file or (Path(environ[CONFIG_ENV]) if environ.get(CONFIG_ENV) else None)
    if file is not None:
        layers, warnings = from_toml(cwd / file.expanduser())
    chosen = {item.name: item for item in layers}
    chosen |= {item.name: item for item in from_environment(environ, cwd)}
    chosen |= {item.name: item for item in command_line}

    values = {name: _value(item) for name, item in chosen.items()}
    origins = {name: chosen[name].origin if name in chosen else DEFAULT_ORIGIN for name in SETTINGS}
    warnings += _decide_stores(values, origins)
    _read_token_file(values, origins)
    values.setdefault("repository", cwd / DEFAULT_REPOSITORY)
    config = Config(
        mountpoint=mountpoint,
        **{SETTINGS[name].field: value for name, value in values.items()},
    )
    config = replace(
        config,
        repository=_real(config.repository),
        state_dir=_real(config.state_dir) if config.state_dir else None,
    )
    _check_together(config, origins)
    return Settings(config, origins, warnings)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # resolve() raises RuntimeError where links go round


def _decide_stores(values: dict[str, Any], origins: dict[str, str]) -> tuple[str, ...]:
    """Say whether govc is used and which store is primary.

    An address that nobody configured is never sent a document: only a URL or use_govc turns govc on. Without govc, git
    is the primary whatever was said.
    """
    if "use_govc" not in values:
        values["use_govc"] = "govc_url" in values
        origins["use_govc"] = origins["govc_url"]
    if values["use_govc"]:
        return ()
    wanted = values.get("primary_backend")
    values["primary_backend"] = BackendName.GIT
    asked_at = origins["primary_backend"]
    origins["primary_backend"] = "no govc is configured"
    if wanted is not BackendName.GOVC:
        return ()
    return (
        f"primary_backend=govc (from {asked_at}) has no effect: no govc is in use;"
        " set govc_url or use_govc=true",
    )


def _read_token_file(values: dict[str, Any], origins: dict[str, str]) -> None:
    path: Path | None = values.get("govc_auth_token_file")
    if path is None or "govc_auth_token" in values:
        return
    origin = origins["govc_auth_token_file"]
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"govc_auth_token_file {path} (from {origin}) cannot be read") from exc
    given = Given("govc_auth_token", text, f"{path}", path.parent)
    values["govc_auth_token"] = _value(given)
    origins["govc_auth_token"] = given.origin


def _check_together(config: Config, origins: dict[str, str]) -> None:
    """Refuse values that are fine alone and make no sense together, or that would never work."""
    if config.allow_other and config.allow_root:
        raise ConfigError("allow_other and allow_root exclude each other; allow_other lets root in")
    positive = ("operation_timeout", "govc_timeout", "poll_interval", "sync_interval")
    for name in (*positive, "git_remote_interval"):
        if getattr(config, f"{name}_s") <= 0:
            raise ConfigError(
                f"{name} is 0s (from {origins[name]}); allowed: more than 0, {_allowed(name)}"
            )
    ca_file = config.govc_ca_file
    if ca_file is not None and not ca_file.is_file():
        raise ConfigError(f"govc_ca_file {ca_file} (from {origins['govc_ca_file']}) is not a file")


def describe(config: Config, origins: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return every setting with its value as text and its origin, secrets masked: config.json."""
    described = {"mountpoint": {"value": str(config.mountpoint), "origin": "command line"}}
    for name, setting in SETTINGS.items():
        described[name] = {
            "value": _shown(setting, getattr(config, setting.field)),
            "origin": origins.get(name, DEFAULT_ORIGIN),
        }
    return described


def _shown(setting: Setting, value: object) -> str:
    if value is None:
        return ""
    if setting.secret:
        return MASKED if value else ""
    return setting.kind.show(value)


def defaults() -> dict[str, str]:
    """Return the default of each setting as text, "" where there is none."""
    by_field = {item.name: item.default for item in fields(Config)}
    shown = {}
    for name, setting in SETTINGS.items():
        default = by_field[setting.field]
        known = isinstance(default, str | int | float | tuple)
        shown[name] = _shown(setting, default) if known else ""
    return shown | {"repository": f"./{DEFAULT_REPOSITORY}"}
