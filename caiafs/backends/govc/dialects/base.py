"""What a dialect is: a frozen value that plans requests for one repository and reads their answers.

Pure: imports neither trio nor the backend. `backend` and `staging` send what is planned here.
"""

import abc
import json
from dataclasses import dataclass

from caiafs.backends.base import Capabilities, Revision
from caiafs.backends.govc import answers, codec
from caiafs.backends.govc.paths import PathRules
from caiafs.backends.govc.wire import Request
from caiafs.core.types import DocPath

REQUEST_BYTES = 10 * 1024 * 1024
"""Largest request that a server takes unless it says otherwise (10 MB by default)."""


@dataclass(frozen=True, slots=True)
class Dialect(abc.ABC):
    """One repository on one server, and how it is spoken to."""

    repo: str

    @property
    @abc.abstractmethod
    def rules(self) -> PathRules:
        """What it takes for a path."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @abc.abstractmethod
    def plan_log(self, limit: int) -> Request:
        """Plan reading the newest `limit` commits."""

    @abc.abstractmethod
    def plan_read(self, name: str, path: DocPath | None) -> Request:
        """Plan reading the file `name`; FILE_NOT_FOUND is an answer."""

    @abc.abstractmethod
    def plan_listing(self) -> Request:
        """Plan the widest listing there is."""

    @abc.abstractmethod
    def parse_listing(self, payload: object) -> tuple[answers.Listed, ...]:
        """Return the files in the answer to `plan_listing`."""

    def decode_file(self, file: answers.File) -> codec.Stored | codec.Tombstone:
        """Return what a file stands for.

        Raises:
            DecodeError: it stands for nothing that makes sense.
        """
        return codec.decode_content(file.content)

    def parse_log(self, payload: object) -> tuple[Revision, ...]:
        """Return the commits in the answer to `plan_log`, newest first."""
        return answers.parse_log(payload)

    def plan_diff(self, old: str, new: str) -> Request | None:
        """Plan asking which names differ between two commits; None where it cannot be asked."""
        _ = old, new
        return None


@dataclass(frozen=True, slots=True)
class StagedDialect(Dialect):
    """A dialect of the real server: files are staged one by one, then committed."""

    @property
    @abc.abstractmethod
    def loses_commits(self) -> bool:
        """Whether two commits at once may leave one of them out of the log."""

    @abc.abstractmethod
    def plan_add(self, name: str, text: str, path: DocPath | None) -> Request:
        """Plan staging `text` as `name`; REQUEST_TOO_LARGE is an answer."""

    @abc.abstractmethod
    def plan_remove(self, name: str, path: DocPath | None) -> Request | None:
        """Plan staging a deletion; None where a tombstone has to stand for it."""

    @abc.abstractmethod
    def plan_commit(self, message: str, author: tuple[str, str]) -> Request:
        """Plan committing what is staged; COMMIT_FAILED is an answer."""


@dataclass(frozen=True, slots=True)
class FilePut:
    """One file of a commit in the service contract: content as bytes, mode and kind beside it."""

    name: str
    content: bytes
    mode: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class CommitPlan:
    """One commit in the service contract."""

    operation_id: str
    message: str
    author: tuple[str, str]
    files: tuple[FilePut, ...]
    deletions: tuple[str, ...]


def encode_body(fields: dict[str, object]) -> bytes:
    """Return `fields` as JSON; UTF-8 as it is, for bodies no larger than they must be."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


READ_CODES = frozenset({"FILE_NOT_FOUND"})
ADD_CODES = frozenset({"REQUEST_TOO_LARGE"})
COMMIT_CODES = frozenset({"COMMIT_FAILED"})
LOG_CODES = frozenset({"LOG_FAILED"})
