"""Builds what keeps the branch level with a git remote, where one is configured.

Used by `sync.assembly` only.
"""

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.remote import GitRemote
from caiafs.core.config import Config
from caiafs.core.locations import state_directory
from caiafs.sync.contents import Contents
from caiafs.sync.lasting import run_lasting
from caiafs.sync.published import Published
from caiafs.sync.pushes import Pushes
from caiafs.sync.remote import Remote
from caiafs.sync.remote_merge import RemoteMerge

_DIRECTORY = "remote.git"
FIRST_LOOK_S = 3.0


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


async def start_remote(remote: Remote, published: Published, nursery: trio.Nursery) -> None:
    """Start following the remote; wait a moment for what it has, so that nothing is saved into a folder that only seems empty.

    The round goes on after that: ended half-way, the mount might never hear of documents that the branch has already.
    """
    nursery.start_soon(run_lasting, remote.run, "following the git remote")
    if published.commit is None:
        with trio.move_on_after(FIRST_LOOK_S):
            await remote.wait_first_round()
