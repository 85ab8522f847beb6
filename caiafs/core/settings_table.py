"""Every setting of caiafs in one table: name, field of Config, kind, environment variable, one line of help.

`core.settings` reads by it, the command line and the man pages are checked against it. A setting has one name in four spellings:
TOML `govc_url`, `--govc-url`, `-o govc_url=`, and its environment variable.
"""

from dataclasses import dataclass

from caiafs.core import kinds
from caiafs.core.config import BackendName, CommitPolicy
from caiafs.core.kinds import Kind


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: as in TOML and `-o`.
        kind: what values it takes.
        help: one line, without a full stop.
        field: field of Config that it sets.
        env: environment variable.
        secret: never shown, and not taken from where other users can read it.
    """

    name: str
    kind: Kind
    help: str
    field: str = ""
    env: str = ""
    secret: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", self.field or self.name)
        object.__setattr__(self, "env", self.env or f"CAIAFS_{self.name.upper()}")

    @property
    def flag(self) -> str:
        """The spelling on the command line."""
        return "--" + self.name.replace("_", "-")


def _duration(name: str, text: str, env: str = "") -> Setting:
    return Setting(name, kinds.DURATION, text, field=f"{name}_s", env=env)


def _kernel_timeout(name: str, text: str) -> Setting:
    return Setting(name, kinds.TIMEOUT, text, field=f"{name}_s")


REPOSITORY = (
    Setting(
        "repository", kinds.PATH, "git repository that holds the documents", env="CAIA_REPO_PATH"
    ),
    Setting("state_dir", kinds.PATH, "where state is kept, instead of in the repository"),
    Setting("branch", kinds.BRANCH, "branch to mount, instead of the one that HEAD names"),
    Setting("trust_meta", kinds.BOOLEAN, "take owners and setuid bits that another machine saved"),
    Setting(
        "git_remote",
        kinds.REMOTE,
        "git repository elsewhere to fetch from, merge with and push to",
        env="CAIA_GIT_REMOTE",
    ),
    Setting(
        "git_remote_branch",
        kinds.BRANCH,
        "its branch, instead of the one of the same name",
        env="CAIA_GIT_REMOTE_BRANCH",
    ),
    _duration(
        "git_remote_interval",
        "time between two looks at the git remote",
        "CAIA_GIT_REMOTE_INTERVAL",
    ),
)

GOVC = (
    Setting(
        "use_govc",
        kinds.BOOLEAN,
        "store in govc too; giving govc_url does it as well",
        env="CAIA_USE_GOVC",
    ),
    Setting("govc_url", kinds.URL, "address of the govc service", env="GOVC_SERVICE_URL"),
    Setting("govc_auth_token", kinds.SECRET, "JWT or API key", env="GOVC_AUTH_TOKEN", secret=True),
    Setting("govc_auth_token_file", kinds.PATH, "file with the JWT or API key"),
    Setting("govc_repo_name", kinds.REPOSITORY_NAME, "repository in govc", env="GOVC_REPO_NAME"),
    _duration("govc_timeout", "longest time to wait for one large transfer", "GOVC_TIMEOUT"),
    Setting("govc_ca_file", kinds.PATH, "certificates to trust, PEM, instead of the system's"),
    Setting(
        "govc_allow_insecure_token", kinds.BOOLEAN, "send the token over plain HTTP to another host"
    ),
    Setting("govc_max_document", kinds.SIZE, "larger documents go to git only"),
)

STORES = (
    Setting(
        "primary_backend",
        kinds.choice(BackendName),
        "store that acknowledges first",
        env="PRIMARY_BACKEND",
    ),
    Setting("enable_fallback", kinds.BOOLEAN, "store in the other when the primary is away"),
    Setting("enable_sync", kinds.BOOLEAN, "bring the other store up to date in the background"),
    _duration("operation_timeout", "longest time for one request to a store"),
    _duration("sync_interval", "time between two full comparisons of the stores"),
    _duration("health_interval", "time between two health checks of a store"),
    _duration("poll_interval", "time between two looks for others' changes"),
    _duration("unmount_grace", "time that an unmount gives to publish what is pending"),
    Setting("retry_max", kinds.COUNT, "tries after the first, inside the time-out"),
    _duration("retry_backoff", "pause before the first of them; it doubles"),
    _duration("retry_backoff_max", "longest such pause"),
    Setting("breaker_failures", kinds.POSITIVE, "failures in a row that take a store out of use"),
    _duration("breaker_reset", "time until it is tried again"),
)

COMMITS = (
    Setting("commit", kinds.choice(CommitPolicy), "when a saved document is published"),
    _duration("commit_settle", "pause in saves that starts publishing"),
    _duration("commit_max_age", "a document that stays open is published after"),
    _duration("commit_interval", "with commit=interval: time between two commits"),
    _duration("transaction_max_age", "a transaction that nobody commits is ended after"),
    Setting("author_domain", kinds.DOMAIN, "domain of authors' e-mail addresses"),
    Setting("group_max_documents", kinds.POSITIVE, "most documents in one commit"),
    Setting("group_max_bytes", kinds.SIZE, "most bytes in one commit"),
    Setting("pending_max_versions", kinds.POSITIVE, "versions waiting before older ones coalesce"),
    Setting(
        "pending_max_per_document", kinds.POSITIVE, "the same for the versions of one document"
    ),
    Setting("pending_max_bytes", kinds.SIZE, "bytes waiting before closing a file is slowed down"),
    _duration("pending_max_age", "a change that waits for longer is named by health"),
    Setting("local_patterns", kinds.PATTERNS, "names that are never published"),
)

SPACE = (
    Setting("cache_bytes", kinds.SIZE, "memory for clean contents"),
    Setting("cache_entries", kinds.POSITIVE, "most contents kept in memory"),
    Setting("disk_cache_bytes", kinds.SIZE, "disk for contents that git does not have"),
    Setting("inline_max_bytes", kinds.SIZE, "larger contents go to a spool file"),
    Setting("small_object_bytes", kinds.SIZE, "larger contents are read by the store process"),
    Setting("reserve_bytes", kinds.SIZE, "below this much free space, opening for writing fails"),
    Setting("max_file_bytes", kinds.SIZE, "largest file"),
)

MOUNT = (
    Setting("caia_dir", kinds.NAME, "the .caia directory: unlisted, listed, or by another name"),
    Setting("read_only", kinds.BOOLEAN, "take no changes (also -o ro)"),
    Setting("allow_other", kinds.BOOLEAN, "let every user in"),
    Setting("allow_root", kinds.BOOLEAN, "let root in"),
    Setting("uid", kinds.USER, "owner that every file shows"),
    Setting("gid", kinds.GROUP, "group that every file shows"),
    Setting("umask", kinds.MODE, "mode bits that no file shows"),
    Setting("fmask", kinds.MODE, "the same for files only"),
    Setting("dmask", kinds.MODE, "the same for directories only"),
    Setting("suid", kinds.BOOLEAN, "honour setuid and setgid bits"),
    Setting("dev", kinds.BOOLEAN, "honour device files"),
    Setting("noexec", kinds.BOOLEAN, "run no program from the mount"),
    Setting("nonempty", kinds.BOOLEAN, "mount over a directory that has files"),
    _kernel_timeout("entry_timeout", "how long the kernel may keep a name"),
    _kernel_timeout("attr_timeout", "how long the kernel may keep attributes"),
    _kernel_timeout("negative_timeout", "how long the kernel may keep that a name is absent"),
    Setting("foreground", kinds.BOOLEAN, "stay in the foreground (also -f)"),
    Setting("log_level", kinds.LOG_LEVEL, "least important messages that are logged"),
)

SECTIONS: tuple[tuple[str, tuple[Setting, ...]], ...] = (
    ("repository", REPOSITORY),
    ("govc", GOVC),
    ("stores", STORES),
    ("commits", COMMITS),
    ("space", SPACE),
    ("mount", MOUNT),
)

SETTINGS: dict[str, Setting] = {
    setting.name: setting for _, section in SECTIONS for setting in section
}
