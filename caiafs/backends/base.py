"""The contract that every store of documents keeps, and what it can say of itself.

Used by `store` (the hybrid over two) and `sync`. Each backend passes the one suite in tests/conformance.
All methods may wait and have their own deadline; cancelling one leaves the store as it was or as it
would be after it. Every method is idempotent: `commit` by its operation id.
"""

import abc
from dataclasses import dataclass, field
from typing import final

from caiafs.core.types import ChangeSet, DocPath, Entry


@final
@dataclass(frozen=True, slots=True)
class Document:
    """One document as a store holds it: its entry and its whole content."""

    entry: Entry
    content: bytes = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class Listing:
    """What a store says it holds.

    Attributes:
        entries: path to entry. An entry with an empty `oid` is known by name only.
        complete: False where the store cannot list everything (govc v2: first level only); then a
            path that is missing here may exist.
        revision: the store's head that the listing was taken at.
    """

    entries: dict[DocPath, Entry]
    complete: bool
    revision: str | None


@final
@dataclass(frozen=True, slots=True)
class Revision:
    """One commit as the store's own log shows it, newest first.

    Attributes:
        id: the store's commit id.
        message: whole message, trailers included.
        author_name, author_email: as the store says; in govc v2 another client's may appear here.
        time_ns: commit time, ns since the epoch.
        parent: the id before it; None for the first one or where the store does not say.
    """

    id: str
    message: str
    author_name: str
    author_email: str
    time_ns: int
    parent: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the store that answered can do; found by probing behaviour, not by version.

    Attributes:
        implementation: "git", "memory", "rest-v1", "rest-v2", "contract" or "none".
        lists: `listing` is complete.
        diffs: `changed_paths` works.
        max_content_bytes: a content above it goes in parts; None where there is no limit.
    """

    implementation: str
    lists: bool
    diffs: bool
    max_content_bytes: int | None


@final
@dataclass(frozen=True, slots=True)
class CommitResult:
    """What `commit` did.

    Attributes:
        revision: the newest commit that has the change set; None where none was made for it. Not a head that was asked for later:
            that may be somebody else's, and whoever takes it for seen writes over it.
        refused: documents that the store will not hold, with its reason; the others are stored.
    """

    revision: str | None
    refused: tuple[tuple[DocPath, str], ...] = ()


class Backend(abc.ABC):
    """A store of documents: paths to contents, with a log of commits."""

    name: str
    """"govc" or "git": the name in configuration, metrics and messages."""

    @abc.abstractmethod
    async def connect(self) -> Capabilities:
        """Reach the store, create the repository where it is missing, find out what it can do.

        Called at start and again after every outage.

        Raises:
            Unreachable: it does not answer, or not yet.
            Misconfigured: it answers, but not to us.
        """

    @abc.abstractmethod
    async def head(self) -> str | None:
        """Return the id of the newest commit, None where there is none yet."""

    @abc.abstractmethod
    async def log(self, limit: int) -> tuple[Revision, ...]:
        """Return the newest `limit` commits or fewer, newest first."""

    @abc.abstractmethod
    async def read(self, path: DocPath) -> Document | None:
        """Return the current document at `path`, None where there is none.

        Raises:
            Corrupt: the store's answer does not make sense; it is not returned.
        """

    @abc.abstractmethod
    async def listing(self) -> Listing:
        """Return what the store holds."""

    @abc.abstractmethod
    async def commit(self, change_set: ChangeSet) -> CommitResult:
        """Apply `change_set` as one commit, whole or not at all as far as the store can.

        `Change.before` is not compared here: the caller has looked. Contents come from the
        ContentSource that the backend was built with. A change set that is already applied, by
        operation id or because the store holds just that, changes nothing.

        Raises:
            Unreachable: unknown whether it was applied; send it again.
            Misconfigured: a person must act.
        """

    @abc.abstractmethod
    async def changed_paths(self, old: str, new: str) -> frozenset[DocPath] | None:
        """Return the paths that differ between two commits; None where the store cannot say."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Release connections and descriptors. Safe to call twice."""
