"""One branch of a repository elsewhere: looked at, fetched, pushed to; through the git command.

Used by `sync.remote`. Nothing here moves a reference of the repository: what was fetched is in its objects, and the caller
writes down that it is (`ref`). Nothing is ever forced on the remote.
"""

import hashlib
import re
from pathlib import Path

from caiafs.backends.git.remote_failures import failure, push_failure
from caiafs.backends.git.repository import Repository
from caiafs.backends.git.transport import Transport, Transported
from caiafs.core.errors import DeadlineExceeded, Misconfigured
from caiafs.core.remote_url import is_name, is_path, mask, split_credentials
from caiafs.core.types import ObjectId

LOOK_SILENCE_S = 20.0
MOVE_SILENCE_S = 120.0
_HEADS = "refs/heads/"
_LISTED = re.compile(r"^([0-9a-f]{40})\t(\S+)$", re.MULTILINE)


class GitRemote:
    """One branch of one remote.

    Attributes:
        branch: its name there.
        shown: its address, as it may be shown; the setting until it was looked up.
    """

    def __init__(
        self, repository: Repository, directory: Path, *, address: str, branch: str | None
    ) -> None:
        self._repository = repository
        self._transport = Transport(repository, directory)
        self._address = address
        self.branch = branch or repository.branch_ref.removeprefix(_HEADS)
        self.shown = mask(address)
        self._digest = ""
        self._url = ""
        self._push_url = ""

    async def resolve(self) -> str:
        """Look the address up where it is a remote's name; return the reference that stands for this branch.

        Raises:
            Misconfigured: the repository has no such remote, or is that remote.
        """
        address = push_address = self._address
        if is_name(address):
            git_dir = self._repository.git_dir
            found = await self._transport.setting(f"remote.{address}.url", git_dir)
            if not found or found.startswith("-"):
                raise self._misconfigured(
                    f"the repository has no remote {address}; a path needs a slash: ./{address}"
                )
            push_address = await self._transport.setting(f"remote.{address}.pushurl", git_dir)
            push_address = self._absolute(push_address or found)
            address = self._absolute(found)
        self._url, self._push_url = address, push_address
        bare, _ = split_credentials(address)
        self.shown = mask(address)
        if is_path(bare) and _is_same(Path(bare), self._repository.git_dir):
            raise self._misconfigured("git_remote is the mounted repository itself")
        names = f"{bare}\n{self.branch}".encode("utf-8", "surrogateescape")
        self._digest = hashlib.sha1(names).hexdigest()
        return f"refs/caia/remote/{self._digest}"

    def _absolute(self, address: str) -> str:
        return str(self._repository.git_dir / address) if is_path(address) else address

    def _misconfigured(self, reason: str) -> Misconfigured:
        return Misconfigured(reason, backend="remote", operation="look")

    @property
    def began_empty(self) -> bool:
        """Whether both the repository and this branch were empty once: then they belong together."""
        return self._transport.has_mark(self._digest)

    def note_empty(self) -> None:
        """Note that both are empty."""
        self._transport.mark(self._digest)

    async def look(self) -> ObjectId | None:
        """Return where the branch is, None where there is none yet.

        Raises:
            Unreachable, Misconfigured: the remote cannot be asked.
        """
        name = _HEADS + self.branch
        arguments = ("ls-remote", "--refs", "--", split_credentials(self._url)[0], name)
        done = await self._run("look", *arguments, tips=(), silence_s=LOOK_SILENCE_S)
        if done.code:
            raise failure("look", done.stderr, self.shown)
        listed = {ref: ObjectId(oid) for oid, ref in _LISTED.findall(done.stdout)}
        return listed.get(name)

    async def fetch(self, tips: tuple[ObjectId, ...]) -> None:
        """Bring what the branch has into the repository's objects; `tips` are here with all they need.

        Raises:
            Unreachable, Misconfigured: it did not come, or not all of it.
        """
        done = await self._run(
            "fetch",
            "fetch",
            "--progress",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--no-show-forced-updates",
            "--",
            split_credentials(self._url)[0],
            _HEADS + self.branch,
            tips=tips,
            silence_s=MOVE_SILENCE_S,
        )
        if done.code:
            raise failure("fetch", done.stderr, self.shown)

    async def push(self, commit: ObjectId, tips: tuple[ObjectId, ...]) -> None:
        """Move the branch there to `commit`, which goes on from what is there.

        Raises:
            RevisionConflict: it does not go on from that any more: somebody pushed.
            Refused: the host has rules against it, or no space.
            Unreachable, Misconfigured: it cannot be asked.
        """
        done = await self._run(
            "push",
            "push",
            "--porcelain",
            "--progress",
            "--no-verify",
            "--",
            split_credentials(self._push_url)[0],
            f"{commit}:{_HEADS}{self.branch}",
            tips=tips,
            silence_s=MOVE_SILENCE_S,
        )
        if done.code:
            raise push_failure(done.stdout, done.stderr, mask(self._push_url), self.branch)

    async def _run(
        self, operation: str, *arguments: str, tips: tuple[ObjectId, ...], silence_s: float
    ) -> Transported:
        address = self._push_url if operation == "push" else self._url
        try:
            return await self._transport.run(
                *arguments, credentials=split_credentials(address), tips=tips, silence_s=silence_s
            )
        except DeadlineExceeded as exc:
            raise DeadlineExceeded(
                f"{self.shown} does not answer: {exc}", backend="remote", operation=operation
            ) from exc


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
