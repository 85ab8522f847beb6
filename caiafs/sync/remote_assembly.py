"""Builds what keeps the branch level with a git remote, where one is configured.

Used by `sync.assembly` only.
"""

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.remote import GitRemote
from caiafs.core.config import Config
from caiafs.core.locations import state_directory
from caiafs.sync.contents import Contents
from caiafs.sync.published import Published
from caiafs.sync.pushes import Pushes
from caiafs.sync.remote import Remote
from caiafs.sync.remote_merge import RemoteMerge

_DIRECTORY = "remote.git"


def build_remote(
    config: Config, git: GitBackend, published: Published, others: tuple[Pushes, Contents]
) -> Remote | None:
    """Return the part that follows and feeds the remote; None where none is configured."""
    if not config.git_remote:
        return None
    pushes, contents = others
    remote = GitRemote(
        git.repository,
        state_directory(config) / _DIRECTORY,
        address=config.git_remote,
        branch=config.git_remote_branch,
    )
    merge = RemoteMerge(git, published, pushes, contents, read_only=config.read_only)
    return Remote(
        remote,
        git,
        published,
        merge,
        interval_s=config.git_remote_interval_s,
        read_only=config.read_only,
    )
