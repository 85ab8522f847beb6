"""The kinds of value that a setting can have: how each is read from text, and how it is shown.

Used by `core.settings` only. `parse` raises ValueError; the setting adds its name and where the text came from.
"""

import grp
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from caiafs.core.durations import (
    DURATION_FORM,
    SIZE_FORM,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from caiafs.core.remote_url import ALLOWED, mask, parse_remote

_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting's text becomes its value.

    Attributes:
        allowed: what may be given, as it ends the sentence "allowed: ...".
        parse: text to value.
        show: value to text; what `parse` reads back.
        metavar: what stands for the value in --help.
    """

    allowed: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    metavar: str = "TEXT"


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError(text)
    return lowered in _TRUE


def _number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError(text)
        return value

    return parse


def _octal(text: str) -> int:
    value = int(text, 8)
    if not 0 <= value <= 0o777:
        raise ValueError(text)
    return value


def _seconds_or_duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return parse_duration(text)
    if not 0 <= seconds < 1e9:  # NaN too
        raise ValueError(text)
    return seconds


def _user(text: str) -> int:
    try:
        return int(text) if text.isascii() and text.isdigit() else pwd.getpwnam(text).pw_uid
    except KeyError as exc:
        raise ValueError(text) from exc


def _group(text: str) -> int:
    try:
        return int(text) if text.isascii() and text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError as exc:
        raise ValueError(text) from exc


def _url(text: str) -> str:
    text = text.strip()
    parts = urlsplit(text)
    if not text.isprintable() or " " in text:
        raise ValueError(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(text)
    _ = parts.port  # raises ValueError where it is no port
    return text.rstrip("/")


def _secret(text: str) -> str:
    stripped = text.strip()
    if not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ValueError("(not shown)")
    return stripped


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError(text)
    return Path(text).expanduser()


def _component(text: str) -> str:
    if not text or "/" in text or "\0" in text or text in {".", ".."}:
        raise ValueError(text)
    return text


def _repository_name(text: str) -> str:
    if not text or len(text) > 64 or not text[0].isalnum() or not text.isascii():
        raise ValueError(text)
    if not all(char.isalnum() or char in "-_" for char in text):
        raise ValueError(text)
    return text


def _domain(text: str) -> str:
    labels = text.split(".") if text else []
    if len(text) > 253 or not text.isascii():
        raise ValueError(text)
    for label in labels:
        if not label or not all(char.isalnum() or char == "-" for char in label):
            raise ValueError(text)
    return text


def _branch(text: str) -> str:
    name = text.removeprefix("refs/heads/")
    bad = set(' ~^:?*[\\\x7f"') | {chr(i) for i in range(32)}
    if not name or bad & set(name) or ".." in name or "@{" in name or "//" in name:
        raise ValueError(text)
    for part in name.split("/"):
        if not part or part.startswith((".", "-")) or part.endswith((".lock", ".")):
            raise ValueError(text)
    return name


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(":") if part)


def choice(values: type[StrEnum]) -> Kind:
    """Return the kind of a setting with a few words to choose from."""
    words = " or ".join(value.value for value in values)
    return Kind(words, lambda text: values(text.strip().lower()), metavar="|".join(values))


def _log_level(text: str) -> str:
    upper = text.strip().upper()
    if upper not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError(text)
    return upper


BOOLEAN = Kind("true or false", _boolean, lambda value: "true" if value else "false", "BOOL")
COUNT = Kind("a whole number from 0", _number(0), metavar="N")
POSITIVE = Kind("a whole number from 1", _number(1), metavar="N")
SIZE = Kind(SIZE_FORM, parse_size, format_size, "SIZE")
DURATION = Kind(DURATION_FORM, parse_duration, format_duration, "DURATION")
TIMEOUT = Kind(
    f"seconds, or {DURATION_FORM}", _seconds_or_duration, format_duration, "SECONDS|DURATION"
)
MODE = Kind("an octal mask up to 777, such as 022", _octal, lambda value: f"{value:03o}", "OCTAL")
USER = Kind("a user's number or name", _user, metavar="USER")
GROUP = Kind("a group's number or name", _group, metavar="GROUP")
URL = Kind(
    "http:// or https:// with a host, no user, query or fragment (a token goes into govc_auth_token)",
    _url,
    metavar="URL",
)
REMOTE = Kind(ALLOWED, parse_remote, mask, "URL|NAME")
SECRET = Kind("printable ASCII without spaces", _secret, metavar="TOKEN")
PATH = Kind("a path", _path, metavar="PATH")
NAME = Kind("hidden, visible, or a file name", _component, metavar="hidden|visible|NAME")
REPOSITORY_NAME = Kind(
    "letters, digits, - and _, at most 64, the first a letter or digit",
    _repository_name,
    metavar="NAME",
)
DOMAIN = Kind("a domain such as example.org", _domain, metavar="DOMAIN")
BRANCH = Kind("a git branch name", _branch, metavar="BRANCH")
PATTERNS = Kind("patterns in gitignore syntax with : between them", _patterns, ":".join, "PATTERNS")
LOG_LEVEL = Kind("DEBUG, INFO, WARNING or ERROR", _log_level, metavar="LEVEL")
