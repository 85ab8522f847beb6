"""Addresses of git remotes: which forms are taken, and what of them may be shown.

Used by settings, by the logs and by `backends.git.remote`. Pure. As git has it, an address is a URL, `[user@]host:path`
(ssh), a path, or the name of a remote that the repository's configuration has. A path needs a slash here.
"""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

SCHEMES = ("https", "http", "ssh", "git", "file")
ALLOWED = (
    f"a URL ({', '.join(f'{scheme}://' for scheme in SCHEMES)}), HOST:PATH for ssh, a path with a slash,"
    " or the name of a remote of the repository"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/\s'\"]*)@")
_MASK = "***"


class Credentials(NamedTuple):
    """What a URL says of who we are; "" where it does not."""

    user: str
    password: str


def parse_remote(text: str) -> str:
    """Return an address as it is used, without blanks around it.

    Raises:
        ValueError: it has none of the forms.
    """
    text = text.strip()
    if not text.isprintable() or not text or text.startswith("-") or "::" in text.split("/")[0]:
        raise ValueError(mask(text))
    if _SCHEME.match(text):
        return _checked_url(text)
    if is_path(text):
        return str(Path(text).expanduser())
    if is_name(text):
        return text
    host, colon, path = text.partition(":")
    if not colon or not path or " " in host or host.startswith("-"):
        raise ValueError(text)
    return text


def _checked_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or " " in text or parts.query or parts.fragment:
        raise ValueError(mask(text))
    if parts.scheme != "file" and (parts.hostname or "-").startswith("-"):
        raise ValueError(mask(text))
    _ = parts.port  # raises ValueError where it is no port
    return text


def is_path(text: str) -> bool:
    """Whether an address is a path: its first slash comes before any colon."""
    return not _SCHEME.match(text) and "/" in text and ":" not in text.split("/")[0]


def is_name(text: str) -> bool:
    """Whether an address is the name of a remote."""
    return _NAME.fullmatch(text) is not None


def anchored(address: str, base: Path) -> str:
    """Return an address with a relative path starting from `base`."""
    return str(base / address) if is_path(address) else address


def mask(text: str) -> str:
    """Return `text` with what may be secret in the URLs in it masked.

    Of http that is all before the @, because hosts take tokens as user names; of others the password.
    """
    return _USER_INFO.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    user, colon, _ = match["user"].partition(":")
    if match["scheme"].lower() in {"http", "https"}:
        return f"{match['scheme']}://{_MASK}@"
    return f"{match['scheme']}://{user}:{_MASK}@" if colon else match[0]


def secrets_of(address: str | None) -> tuple[str, ...]:
    """Return what is secret in an address, as written and decoded; logs mask it."""
    match = _USER_INFO.match(address or "")
    if match is None or mask(match[0]) == match[0]:
        return ()
    user, colon, password = match["user"].partition(":")
    found = password if colon else user
    return tuple(dict.fromkeys(text for text in (found, unquote(found)) if text))


def split_credentials(url: str) -> tuple[str, Credentials]:
    """Return an http URL without what is before the @, and that; any other address as it is.

    The command lines of git and of what it starts show the URL to every user of the machine.
    """
    match = _USER_INFO.match(url)
    if match is None or match["scheme"].lower() not in {"http", "https"}:
        return url, Credentials("", "")
    user, _, password = match["user"].partition(":")
    bare = f"{match['scheme']}://{url[match.end() :]}"
    return bare, Credentials(unquote(user), unquote(password))
