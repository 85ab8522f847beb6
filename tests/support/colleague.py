"""Somebody with a clone of a mount's repository, who pushes; and conflicts made on purpose."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mount import Mount, git
from tests.support.waiting import wait_until


class Colleague:
    """Somebody who pushes to the branch."""

    def __init__(self, caia: Mount, folder: Path) -> None:
        self._caia = caia
        self.work = caia.clone(folder)

    def push(self, **documents: str) -> str:
        """Commit these documents, push as often as it takes, and return the commit."""
        return self.push_files({name.encode(): text.encode() for name, text in documents.items()})

    def push_files(self, documents: dict[bytes, bytes]) -> str:
        """As `push`, for names and contents of any bytes."""
        git("pull", "-q", "--rebase", cwd=self.work)
        for name, content in documents.items():
            path = os.path.join(os.fsencode(self.work), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
        return self.commit()

    def commit(self) -> str:
        """Commit what was done in the work tree, push as often as it takes, and return the commit."""
        git("add", "-A", cwd=self.work)
        git("commit", "-qm", "By a colleague", cwd=self.work)
        wait_until(self._try_push, "the push is not overtaken by the mount")
        return git("rev-parse", "HEAD", cwd=self.work).strip()

    def _try_push(self) -> bool:
        git("pull", "-q", "--rebase", cwd=self.work)
        try:
            git("push", "-q", cwd=self.work)
        except AssertionError as exc:
            if "fetch first" in str(exc) or "cannot lock ref" in str(exc):
                return False
            raise
        return True


@contextmanager
def being_written(caia: Mount, documents: dict[bytes, bytes]) -> Iterator[None]:
    """Save documents in the mount when the body has ended, begun before it."""
    opened = []
    for name, content in documents.items():
        path = os.path.join(os.fsencode(caia.path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = open(path, "r+b" if os.path.exists(path) else "w+b")  # noqa: SIM115  # closed below
        file.truncate()
        file.write(content)
        file.flush()
        opened.append(file)
    yield
    for file in opened:
        file.close()


def collide(caia: Mount, colleague: Colleague, versions: dict[bytes, tuple[bytes, bytes]]) -> None:
    """Have the mount and a colleague save each document at the same time: name to ours and theirs."""
    with being_written(caia, {name: ours for name, (ours, _) in versions.items()}):
        colleague.push_files({name: theirs for name, (_, theirs) in versions.items()})
    caia.sync()
