"""What git says when another host does not do as asked, as one of our errors with what to do about it.

Used by `remote`. Pure. Git has exit code 128 for nearly everything, so its words decide; it is run with LC_ALL=C.
"""

import re
from typing import NamedTuple

from caiafs.core.errors import Misconfigured, Refused, RevisionConflict, StoreError, Unreachable
from caiafs.core.remote_url import mask

_REASON_MAX = 300
_NOISE = re.compile(
    r"^(?:hint:|To |Please make sure|and the repository exists|Cloning |From |POST |Everything up-to-date)"
)
_REMOTE_SAYS = re.compile(r"^remote: ?(.*?)\s*$", re.MULTILINE)
_LOCAL_DISK = re.compile(
    r"^(?:fatal|error): .*(?:No space left on device|Disk quota exceeded)", re.MULTILINE
)


class _Kind(NamedTuple):
    """What some words of git mean.

    Attributes:
        pattern: the words.
        error: what they become.
        advice: what to do; {url} stands for the remote's.
    """

    pattern: re.Pattern[str]
    error: type[StoreError]
    advice: str


def _kind(pattern: str, error: type[StoreError], advice: str) -> _Kind:
    return _Kind(re.compile(pattern, re.IGNORECASE), error, advice)


# The first that fits counts.
_KINDS = (
    _kind(
        r"dubious ownership",
        Misconfigured,
        "it belongs to another user; if you trust it: git config --global --add safe.directory with its path",
    ),
    _kind(
        r"host key verification failed|remote host identification has changed",
        Misconfigured,
        "ssh does not know its key: connect to the host by hand once, as the user who mounts, and compare it",
    ),
    _kind(
        r"authentication failed|could not read (?:username|password)|terminal prompts disabled"
        r"|permission denied \(|requested url returned error: 40[13]|invalid (?:username|credentials)"
        r"|too many authentication failures|access denied",
        Misconfigured,
        "it refuses our credentials: git ls-remote {url} has to work without asking for the user who mounts",
    ),
    _kind(
        r"ssl certificate|certificate verif|unable to get local issuer|self[- ]signed certificate",
        Misconfigured,
        "its certificate is not trusted: name the authority in http.sslCAInfo of git's configuration",
    ),
    _kind(
        r"transport '[^']*' not allowed",
        Misconfigured,
        "this kind of address is not used",
    ),
    _kind(
        r"does not appear to be a git repository|repository [^\n]*(?:not found|does not exist)"
        r"|requested url returned error: 404|not a git repository",
        Misconfigured,
        "there is no repository: make one (git init --bare), or correct git_remote",
    ),
    _kind(
        r"no space left on device|disk quota exceeded",
        Unreachable,
        "it has no space left",
    ),
)


def failure(operation: str, stderr: str, url: str) -> StoreError:
    """Return the error of a git command that failed; `url` as it may be shown."""
    text = mask(stderr)
    if _LOCAL_DISK.search(text) and operation == "fetch":
        return Unreachable(
            f"the disk of the repository is full; nothing of {url} is fetched until there is space",
            backend="remote",
            operation=operation,
        )
    for kind in _KINDS:
        if kind.pattern.search(text):
            advice = kind.advice.format(url=url)
            return kind.error(
                f"{url}: {advice} ({shorten(text)})", backend="remote", operation=operation
            )
    return Unreachable(f"{url}: {shorten(text)}", backend="remote", operation=operation)


def push_failure(stdout: str, stderr: str, url: str, branch: str) -> StoreError:
    """Return the error of a push that failed, from what `git push --porcelain` printed."""
    for line in stdout.splitlines():
        if line.startswith("!\t"):
            return _rejection(line.split("\t")[-1], stderr, url, branch)
    return failure("push", stderr, url)


def _rejection(summary: str, stderr: str, url: str, branch: str) -> StoreError:
    """Return the error of a reference that was not moved: `[rejected] (fetch first)` and the like."""
    raced = (
        *("[rejected]", "cannot lock ref", "failed to update ref", "incorrect old value"),
        *("reference already exists", "stale info", "failed to lock", "remote ref updated"),
    )
    if any(words in summary for words in raced):
        return RevisionConflict("somebody pushed meanwhile", backend="remote", operation="push")
    said = "; ".join(line for line in _REMOTE_SAYS.findall(mask(stderr)) if line)
    told = f", and says: {said}" if said else ""
    advice = "see the rules of that host for the branch, or name another git_remote_branch"
    if "currently checked out" in summary:
        advice = (
            "a work tree has it checked out: use a bare repository, or another git_remote_branch"
        )
    if "unpack" in summary or "No space" in stderr:
        advice = "see whether it has space left"
    return Refused(
        f"{url} takes no push to {branch}: {summary.strip()}{told[:_REASON_MAX]}; {advice}",
        reason=summary,
        backend="remote",
        operation="push",
    )


def shorten(stderr: str) -> str:
    """Return the one line that says most: the last fatal or error line, else the last of all."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.match(line)] or ["git failed"]
    telling = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    line = (telling or lines)[-1]
    if "Could not read from remote repository" in line and len(lines) > 1:
        line = next(other for other in reversed(lines) if other != line)
    return line.removeprefix("fatal: ").removeprefix("error: ")[:_REASON_MAX]
