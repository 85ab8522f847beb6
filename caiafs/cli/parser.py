"""Argument parsers of all commands, and the settings among the arguments.

A wrong argument becomes one ConfigError line, not a page of usage.
"""

import argparse
from pathlib import Path
from typing import NoReturn

from caiafs.cli.options import parse_options
from caiafs.core import kinds
from caiafs.core.errors import ConfigError
from caiafs.core.settings import Given, closest, defaults
from caiafs.core.settings_table import SECTIONS, SETTINGS, Setting

_GIVEN = "given:"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are ConfigErrors with the closest known option."""

    def __init__(self, command: str, *, description: str, usage: str) -> None:
        super().__init__(
            prog=f"caiafs {command}",
            usage=usage,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        raise ConfigError(f"{message} ({self.prog} --help)")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """Return the parsed arguments.

        Raises:
            ConfigError: an unknown option or a wrong value.
        """
        parsed, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            hint = closest(unknown[0].partition("=")[0], flags)
            raise ConfigError(f"unknown argument {unknown[0]}{hint} ({self.prog} --help)")
        return parsed


def duration(text: str) -> float:
    """Return the seconds of a duration on the command line."""
    try:
        return kinds.DURATION.parse(text)  # type: ignore[no-any-return]  # a Kind's value is Any
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: {kinds.DURATION.allowed}") from exc


def mount_parser() -> Parser:
    """Return the parser of `caiafs mount`: operands, -f, -o, --config and one option a setting."""
    parser = Parser(
        "mount",
        usage="caiafs [mount] [REPO] MNT [-f] [-o OPTION[,OPTION...]] [--config FILE] [options]",
        description=(
            "Mount the documents of the git repository REPO (default ./data/repo, made when missing)\n"
            "on the directory MNT. Settings: command line, then -o, environment, --config, defaults."
        ),
    )
    parser.add_argument("operands", nargs="*", metavar="[REPO] MNT", help=argparse.SUPPRESS)
    parser.add_argument("-f", action="store_true", help="stay in the foreground")
    parser.add_argument(
        "-o", action="append", default=[], metavar="OPTION[,...]", help="settings, as in fstab"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML")
    shown = defaults()
    for title, section in SECTIONS:
        group = parser.add_argument_group(title)
        for setting in section:
            _add_setting(group, setting, shown[setting.name])
    return parser


def _add_setting(group: argparse._ArgumentGroup, setting: Setting, default: str) -> None:
    if setting.secret:  # taken so that the error can say where it belongs
        group.add_argument(setting.flag, dest=_GIVEN + setting.name, help=argparse.SUPPRESS)
        return
    if setting.kind is kinds.BOOLEAN:
        group.add_argument(
            setting.flag,
            dest=_GIVEN + setting.name,
            action=argparse.BooleanOptionalAction,
            help=f"{setting.help} [{default or 'unset'}]",
        )
        return
    default = default if len(default) < 40 else "see caiafs.conf(5)"
    group.add_argument(
        setting.flag,
        dest=_GIVEN + setting.name,
        metavar=setting.kind.metavar,
        help=(setting.help + (f" [{default}]" if default else "")).replace("%", "%%"),
    )


def settings_given(parsed: argparse.Namespace, cwd: Path) -> tuple[Path, list[Given]]:
    """Return the mount point as given and the settings on the command line, weakest first.

    Raises:
        ConfigError: no mount point, too many operands, an unknown -o.
    """
    given = parse_options(parsed.o, cwd)
    for name in SETTINGS:
        value = getattr(parsed, _GIVEN + name)
        if value is not None:
            text = str(value).lower() if isinstance(value, bool) else value
            given.append(Given(name, text, SETTINGS[name].flag, cwd, private=False))
    if parsed.f:
        given.append(Given("foreground", "true", "-f", cwd))
    operands: list[str] = parsed.operands
    if not operands:
        raise ConfigError("which mount point? caiafs [REPO] MNT (caiafs --help)")
    if len(operands) > 2:
        raise ConfigError(f"too many operands: {' '.join(operands)}; caiafs [REPO] MNT")
    if len(operands) == 2:
        given.append(Given("repository", operands[0], "command line", cwd))
    return Path(operands[-1]), given
