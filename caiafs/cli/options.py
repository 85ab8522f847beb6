"""The options after -o: caiafs' own settings, and those that mount(8) gives every file system."""

from pathlib import Path

from caiafs.core import kinds
from caiafs.core.errors import ConfigError
from caiafs.core.settings import Given, closest
from caiafs.core.settings_table import SETTINGS

_STANDARD = {
    "ro": ("read_only", "true"),
    "rw": ("read_only", "false"),
    "suid": ("suid", "true"),
    "nosuid": ("suid", "false"),
    "dev": ("dev", "true"),
    "nodev": ("dev", "false"),
    "exec": ("noexec", "false"),
    "noexec": ("noexec", "true"),
}
"""Option of mount(8) -> setting and its text."""

# fmt: off
_IGNORED = frozenset(
    {
        "defaults", "_netdev", "user", "users", "nouser", "owner", "group", "auto", "noauto",
        "nofail", "async", "atime", "noatime", "relatime", "norelatime", "strictatime",
        "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime", "default_permissions",
    }
)
# fmt: on
"""Options that fstab and mount(8) bring along, and that change nothing here."""

_REFUSED = {
    "fsname": "the name is always caiafs:<repository>",
    "subtype": "the type is always fuse.caiafs",
    "sync": "use commit=close to wait for a store at close",
    "dirsync": "names are always on disk when a call returns",
    "remount": "unmount and mount again",
    "bind": "use mount --bind",
}


def split_options(text: str) -> list[str]:
    r"""Return the comma-separated parts of `text`; `\,` is a comma and `\\` a backslash."""
    parts, current, escaped = [], "", False
    for char in text:
        if escaped:
            current += char if char in ",\\" else "\\" + char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            parts.append(current)
            current = ""
        else:
            current += char
    parts.append(current + ("\\" if escaped else ""))
    return [part for part in parts if part]


def parse_options(texts: list[str], cwd: Path) -> list[Given]:
    """Return the settings that all -o together name; the last of two wins.

    Raises:
        ConfigError: an unknown option, with the closest known one, or one without its value.
    """
    parsed = [_parse_option(option, cwd) for text in texts for option in split_options(text)]
    return [given for given in parsed if given is not None]


def _parse_option(option: str, cwd: Path) -> Given | None:
    name, equals, text = option.partition("=")
    if name in _STANDARD and not equals:
        setting, value = _STANDARD[name]
        return Given(setting, value, f"-o {name}", cwd)
    if name in SETTINGS:
        if not equals:
            text = _bare_value(name)
        return Given(name, text, f"-o {name}", cwd, private=False)
    if name in _IGNORED or name.startswith("x-") or name == "comment":
        return None
    if name in _REFUSED:
        raise ConfigError(f"-o {name} is not taken: {_REFUSED[name]}")
    known = [*SETTINGS, *_STANDARD, *_IGNORED]
    raise ConfigError(f"unknown option -o {name}{closest(name, known)} (caiafs mount --help)")


def _bare_value(name: str) -> str:
    kind = SETTINGS[name].kind
    if kind is not kinds.BOOLEAN:
        raise ConfigError(
            f"-o {name} needs a value: {name}={kind.metavar}; allowed: {kind.allowed}"
        )
    return "true"
