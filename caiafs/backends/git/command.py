"""Running the git command, in one place: hooks off, nothing that a repository's configuration could start.

Used for what would hold the GIL in this process (large blobs) and for what only git does (repacking). A hostile
repository may set `core.hooksPath`, `core.fsmonitor`, pagers, helpers and the like: each is overridden here.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import trio

from caiafs.core.errors import Corrupt, Unreachable

_OVERRIDES = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.pager=cat",
    "core.editor=false",
    "core.askPass=",
    "core.sshCommand=false",
    "core.gitProxy=",
    "core.alternateRefsCommand=",
    "core.attributesFile=/dev/null",
    "core.fsync=all",
    "core.fsyncMethod=fsync",
    "credential.helper=",
    "diff.external=",
    "gc.auto=0",
    "gpg.program=false",
    "maintenance.auto=false",
    "protocol.allow=never",
    "uploadpack.packObjectsHook=",
)
_KEPT_ENVIRONMENT = ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "SUDO_UID")


def git_argv(git_dir: Path, *arguments: str) -> list[str]:
    """Return the command line for `git ARGUMENTS` in a repository."""
    overrides = [part for setting in _OVERRIDES for part in ("-c", setting)]
    return [
        "git",
        "--no-pager",
        "--no-replace-objects",
        f"--git-dir={git_dir}",
        *overrides,
        *arguments,
    ]


def git_environment(
    object_dir: Path | None = None, git_dir: Path | None = None, *, protocols: str = ""
) -> dict[str, str]:
    """Return the environment for git: no GIT_* of the caller's, no secret, messages in English.

    `protocols` are those that it may speak, with colons between them. None by default, whatever a repository allows itself: a
    missing object of a partial clone would be fetched from `ext::sh -c ...` (git before 2.45 does not know GIT_NO_LAZY_FETCH).
    """
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    kept |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}
    kept["GIT_ALLOW_PROTOCOL"] = protocols
    if object_dir is not None and git_dir is not None:
        kept["GIT_OBJECT_DIRECTORY"] = str(object_dir)
        kept["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = str(git_dir / "objects")
    return kept


async def run_git(
    git_dir: Path,
    *arguments: str,
    stdout: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run git to its end and return what it printed, empty where `stdout` is a file.

    Cancelling ends git with SIGTERM, after which it removes its temporary files.

    Raises:
        Corrupt: git failed; its last line is in the message.
        Unreachable: there is no git command.
    """
    try:
        done = await trio.run_process(
            git_argv(git_dir, *arguments),
            stdin=subprocess.DEVNULL,
            **({"capture_stdout": True} if stdout is None else {"stdout": stdout}),
            capture_stderr=True,
            check=False,
            env=dict(environment) if environment is not None else git_environment(),
        )
    except OSError as exc:
        raise Unreachable(f"cannot run git: {exc}", backend="git", operation=arguments[0]) from exc
    if done.returncode:
        lines = bytes(done.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise Corrupt(f"git {arguments[0]}: {reason}", backend="git", operation=arguments[0])
    return bytes(done.stdout or b"")
