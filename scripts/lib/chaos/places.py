"""What several mounts have in common: a govc, or a git repository elsewhere; and what it has to hold in the end."""

import os
from collections import Counter
from pathlib import Path
from typing import Protocol

from chaos.oracle import Tree, tree_of
from chaos.report import Figures
from chaos.world import Lost
from tests.support.fresh_reader import read_govc
from tests.support.git_remote import SharedRepository
from tests.support.govc_server import GovcServer
from tests.support.mount import git


class Place(Protocol):
    """Where mounts meet.

    Attributes:
        env: the settings of a mount that goes there.
    """

    env: dict[str, str]

    def is_level(self, heads: list[str]) -> bool:
        """Return whether repositories at these commits can be at rest."""
        ...

    def supervise(self, figures: Figures) -> None:
        """Start it again where it died by itself."""
        ...

    def check(self, tree: Tree) -> None:
        """Raise Lost where it is not sound, or holds anything else."""
        ...

    def close(self) -> None: ...


class GovcPlace:
    """A govc server, started again when it dies, as a supervisor would; each repository has commits of its own."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._server = GovcServer(base / "govc").start()
        self.env = {"GOVC_SERVICE_URL": self._server.url}

    def is_level(self, heads: list[str]) -> bool:
        return bool(heads)

    def supervise(self, figures: Figures) -> None:
        if Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
            figures.add("govc died by itself")
            self._server.restart()

    def check(self, tree: Tree) -> None:
        read = read_govc(self._server.url, map(os.fsencode, tree), self._base / "read")
        if tree_of(read) != tree:
            raise Lost("govc differs in the end")

    def close(self) -> None:
        self._server.stop()


class RemotePlace:
    """A bare repository that all push to; in the end all are at its commit."""

    def __init__(self, base: Path) -> None:
        base.mkdir(parents=True, exist_ok=True)
        self._base = base
        self._shared = SharedRepository(base / "shared.git")
        self._moves = self._shared.path / "moves"
        self._shared.hook(
            "post-receive", f"while read old new ref; do echo $old $new; done >> {self._moves}"
        )
        self._shared.git("config", "receive.denyNonFastForwards", "false")
        self.env = {"CAIA_GIT_REMOTE": str(self._shared.path), "CAIA_GIT_REMOTE_INTERVAL": "200ms"}

    def is_level(self, heads: list[str]) -> bool:
        return {*heads} == {self._shared.head()}

    def supervise(self, figures: Figures) -> None:
        """A directory does not die."""

    def check(self, tree: Tree) -> None:
        clone = self._base / "clone"
        git("clone", "-q", "-b", "main", self._shared.path, clone, cwd=self._base)
        if tree_of(clone) != tree:
            raise Lost("the git remote differs in the end")
        self._shared.git("fsck", "--strict", "--no-dangling")
        said = self._shared.git(
            "log", "--format=%(trailers:key=Caiafs-Operation,valueonly)", "main"
        )
        if twice := [operation for operation, many in Counter(said.split()).items() if many > 1]:
            raise Lost(f"in the git remote twice: {twice[:5]}")
        for old, new in map(str.split, self._moves.read_text().splitlines()):
            if old.strip("0") and self._shared.git("rev-list", "-1", old, f"^{new}"):
                raise Lost(f"the git remote was forced from {old} to {new}")

    def close(self) -> None:
        """Nothing runs."""
