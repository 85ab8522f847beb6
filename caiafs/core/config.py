"""Configuration as one frozen object, and nothing else in the program reads the environment.

Built once by `core.settings.load` in the process that the user starts, which passes the environment in; the
store process gets it over the link, as `config_to_json` writes it.
"""

import enum
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path


class CommitPolicy(enum.StrEnum):
    """When a saved document becomes due for publication."""

    IDLE = "idle"
    """At the release of its last writing handle; the publisher starts when saves pause briefly."""
    CLOSE = "close"
    """As idle, and close(2) returns when a store has acknowledged it."""
    FSYNC = "fsync"
    """Only at fsync(2), or when commit_max_age has passed."""
    INTERVAL = "interval"
    """Every commit_interval, all that was saved since in one commit."""


class BackendName(enum.StrEnum):
    """The two stores."""

    GOVC = "govc"
    GIT = "git"


DEFAULT_LOCAL_PATTERNS = (
    ".*.sw?",
    ".*.sw?x",
    "4913",
    "*~",
    ".#*",
    r"\#*#",  # in gitignore syntax a leading # begins a comment
    ".~lock.*#",
    ".goutputstream-*",
    "~$*",
    "._*",
    ".DS_Store",
    ".nfs*",
    ".fuse_hidden*",
)
"""Editors' and desktops' temporary files, in gitignore syntax: full files, never published."""

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting, with its unit in its name. `core.settings` describes and reads them."""

    repository: Path
    mountpoint: Path
    state_dir: Path | None = None
    branch: str | None = None
    trust_meta: bool = False
    git_remote: str | None = field(default=None, repr=False)
    git_remote_branch: str | None = None
    git_remote_interval_s: float = 30.0

    use_govc: bool = False
    govc_url: str = "http://localhost:8080"
    govc_auth_token: str = field(default="", repr=False)
    govc_auth_token_file: Path | None = None
    govc_repo_name: str = "caia-documents"
    govc_timeout_s: float = 30.0
    govc_ca_file: Path | None = None
    govc_allow_insecure_token: bool = False
    govc_max_document: int = 1 << 40

    primary_backend: BackendName = BackendName.GOVC
    enable_fallback: bool = True
    enable_sync: bool = True
    operation_timeout_s: float = 5.0
    sync_interval_s: float = 300.0
    health_interval_s: float = 10.0
    poll_interval_s: float = 1.0
    unmount_grace_s: float = 20.0
    retry_max: int = 5
    retry_backoff_s: float = 0.2
    retry_backoff_max_s: float = 5.0
    breaker_failures: int = 5
    breaker_reset_s: float = 5.0

    commit: CommitPolicy = CommitPolicy.IDLE
    commit_settle_s: float = 0.05
    commit_max_age_s: float = 30.0
    commit_interval_s: float = 60.0
    transaction_max_age_s: float = 600.0
    author_domain: str = ""
    group_max_documents: int = 5000
    group_max_bytes: int = 64 * MIB
    pending_max_versions: int = 100_000
    pending_max_per_document: int = 1000
    pending_max_bytes: int = 16384 * MIB
    pending_max_age_s: float = 3600.0

    cache_bytes: int = 256 * MIB
    cache_entries: int = 65_536
    disk_cache_bytes: int = 4096 * MIB
    inline_max_bytes: int = 64 * 1024
    small_object_bytes: int = 1 * MIB
    reserve_bytes: int = 64 * MIB
    max_file_bytes: int = 1 << 40
    local_patterns: tuple[str, ...] = DEFAULT_LOCAL_PATTERNS

    caia_dir: str = "hidden"
    read_only: bool = False
    allow_other: bool = False
    allow_root: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int | None = None
    fmask: int | None = None
    dmask: int | None = None
    suid: bool = False
    dev: bool = False
    noexec: bool = False
    nonempty: bool = False
    entry_timeout_s: float = 3600.0
    attr_timeout_s: float = 3600.0
    negative_timeout_s: float = 3600.0
    foreground: bool = False
    log_level: str = "INFO"


def _optional_path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


_REVIVE: dict[str, Callable[..., object]] = {
    "repository": Path,
    "mountpoint": Path,
    "state_dir": _optional_path,
    "govc_auth_token_file": _optional_path,
    "govc_ca_file": _optional_path,
    "primary_backend": BackendName,
    "commit": CommitPolicy,
    "local_patterns": tuple,
}
"""What JSON does not keep: how the text of a field becomes its value again."""


def config_to_json(config: Config) -> str:
    """Return `config` as it travels to the store process, secrets included: never log it."""
    return json.dumps(asdict(config), default=str)


def config_from_json(text: str) -> Config:
    """Return the Config that `config_to_json` was given.

    Raises:
        TypeError: the text names a setting that this version does not have.
    """
    fields = json.loads(text)
    for name, revive in _REVIVE.items():
        if name in fields:
            fields[name] = revive(fields[name])
    return Config(**fields)
