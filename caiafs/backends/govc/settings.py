"""What the govc backend is told, and what is wrong with it before anything is sent.

Pure. Built by whoever wires the store process from `core.config.Config`; the token never shows in a repr or in a message.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from caiafs.core.config import Config

_REPO_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}")
_RESERVED_REPO_NAMES = frozenset(
    {"api", "admin", "root", "system", "config", "health", "metrics", "swagger"}
)
_TOKEN = re.compile(r"[\x21-\x7e]*")


@dataclass(frozen=True, slots=True)
class GovcSettings:
    """Where the service is and how long it may take.

    Attributes:
        url: base address, "http://host:port" or "https://host/prefix".
        token: a JWT, or an API key ("govc_..."); "" for none.
        repo_name: repository id on the server.
        request_timeout_s: longest wait for any one request, a listing or a large body included.
        operation_timeout_s: longest wait for an ordinary request.
        ca_file: PEM file with the authorities to trust instead of the usual ones.
        allow_insecure_token: send the token over plain HTTP to another host.
        max_document_bytes: a larger document is refused before anything of it is sent.
    """

    url: str
    repo_name: str = "caia-documents"
    token: str = field(default="", repr=False)
    request_timeout_s: float = 30.0
    operation_timeout_s: float = 5.0
    ca_file: Path | None = None
    allow_insecure_token: bool = False
    max_document_bytes: int = 1 << 62

    @classmethod
    def from_config(cls, config: Config) -> "GovcSettings":
        """Return the part of `config` that concerns govc."""
        return cls(
            url=config.govc_url,
            repo_name=config.govc_repo_name,
            token=config.govc_auth_token,
            request_timeout_s=config.govc_timeout_s,
            operation_timeout_s=config.operation_timeout_s,
            ca_file=config.govc_ca_file,
            allow_insecure_token=config.govc_allow_insecure_token,
            max_document_bytes=config.govc_max_document,
        )


def find_fault(settings: GovcSettings) -> str | None:
    """Return one sentence on what makes `settings` unusable, None where nothing does."""
    try:
        parts = urlsplit(settings.url)
        port = parts.port
    except ValueError:
        return "the address of the govc service is not a URL"
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        return "the address of the govc service must look like http://host:port"
    if parts.username is not None or parts.password is not None:
        return "the address of the govc service must not contain a user or password; set the token"
    if parts.query or parts.fragment:
        return "the address of the govc service must not contain a query or fragment"
    return _find_repo_fault(settings.repo_name) or _find_token_fault(settings, parts)


def _find_repo_fault(name: str) -> str | None:
    if not _REPO_NAME.fullmatch(name):
        return (
            f"the govc repository name {name!r} must be 1 to 64 letters, digits, '-' or '_',"
            " starting with a letter or digit"
        )
    if name in _RESERVED_REPO_NAMES:
        return f"the govc repository name {name!r} is reserved by the server"
    if name.startswith("login"):
        # v2 counts every POST below "/login" as an attempt to log in: 429 for 15 minutes after five.
        return f"the govc repository name {name!r} must not begin with 'login'"
    return None


def _find_token_fault(settings: GovcSettings, parts: SplitResult) -> str | None:
    if not _TOKEN.fullmatch(settings.token):
        return "the govc token must be printable ASCII without blanks"
    plain = parts.scheme == "http" and not is_loopback(parts.hostname or "")
    if settings.token and plain and not settings.allow_insecure_token:
        return (
            f"the govc token is not sent to {parts.hostname} over plain HTTP;"
            " use https, or allow it explicitly"
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, so that nobody listens on the way.

    Names below localhost are not: some resolvers ask the network for them.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
