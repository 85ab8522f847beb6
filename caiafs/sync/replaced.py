"""Notices that the repository was moved away, replaced or emptied under the mount.

One task of the store process, which ends it: the next one opens what is there now, and compares it with what the mount shows.
"""

import trio

from caiafs.backends.git.repository import Repository
from caiafs.core.errors import Unreachable
from caiafs.sync.published import Published

LOOK_S = 1.0


async def watch_repository(repository: Repository, published: Published) -> None:
    """Look, for ever.

    Raises:
        Unreachable: it is not the repository that was opened, or has not got what was published.
    """
    while True:
        await trio.sleep(LOOK_S)
        repository.check_same()
        commit = published.commit
        if commit is not None and not repository.reader.exists(commit):
            raise Unreachable(f"{repository.git_dir} has lost commit {commit}, the newest one")
