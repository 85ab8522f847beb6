"""Where a repository keeps what belongs to caiafs: its git directory, state directory and log.

Used by the command line before anything is opened, and by app. Only looks; creates nothing.
"""

import os
from pathlib import Path

from caiafs.core.config import Config

STATE_NAME = "caiafs"
LOG_NAME = "log"
STORE_LOG_NAME = "log.store"
"""The store process's own: two processes must not rotate one file."""
LAST_UNMOUNT_NAME = "last_unmount.json"


def is_git_directory(path: Path) -> bool:
    """Whether `path` is a git directory, by the three things that git itself looks for."""
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


def is_repository(repository: Path) -> bool:
    """Whether there is a git repository at `repository`, bare or with a working tree."""
    return is_git_directory(git_directory(repository))


def git_directory(repository: Path) -> Path:
    """Return the git directory of `repository`: `.git` in it, what a `.git` file names, or itself.

    A linked working tree gives the directory that all of them share, so that there is one lock. Where nothing is
    yet, the answer is `repository`: a new one is bare.
    """
    dot_git = repository / ".git"
    if dot_git.is_file():
        text = dot_git.read_text("utf-8", "surrogateescape")
        if text.startswith("gitdir:"):
            named = (repository / text.removeprefix("gitdir:").strip()).resolve()
            return _common_directory(named)
    return dot_git if dot_git.is_dir() else repository


def _common_directory(git_dir: Path) -> Path:
    pointer = git_dir / "commondir"
    if not pointer.is_file():
        return git_dir
    return (git_dir / pointer.read_text("utf-8", "surrogateescape").strip()).resolve()


def state_directory(config: Config) -> Path:
    """Return the absolute state directory: `state_dir`, else `caiafs` in the git directory."""
    return config.state_dir or git_directory(config.repository) / STATE_NAME


def object_directory(config: Config) -> Path | None:
    """Return where new git objects go instead of the repository; None, as a rule, where that can be written.

    In the repository nobody needs the state directory to read what a reference names.
    """
    objects = git_directory(config.repository) / "objects"
    if config.state_dir is None or not objects.is_dir() or os.access(objects, os.W_OK):
        return None
    return config.state_dir / "objects"


def log_file(config: Config) -> Path:
    """Return where this mount logs to."""
    return state_directory(config) / LOG_NAME


def mount_source(repository: Path) -> str:
    """Return what mount(8) and df(1) show of a mount of `repository`."""
    return f"caiafs:{repository}"
