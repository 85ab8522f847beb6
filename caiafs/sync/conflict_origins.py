"""Where conflict copies come from: read from the commits that made them.

Used by `sync.service`, in a thread with a reader of its own. The trailer `Caiafs-Conflict` names the versions, so that
a mount that only received the commit, or lost its state, knows as much as the one that found the conflict. Bounded: a
conflict that is not explained within the bounds still has both its versions.
"""

import itertools
from collections.abc import Iterable

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.log import CommitLog, CommitRecord
from caiafs.backends.git.objects import ObjectReader
from caiafs.core.conflicts import MARK, parse_copy_name
from caiafs.core.types import DocPath, GitMode, ObjectId, split_path
from caiafs.link.messages import Origin, Version, to_text
from caiafs.store.trailers import NamedConflict, named_conflicts
from caiafs.sync.published import Published

_COMMITS_MAX = 50_000
_CLOCK_SLACK_NS = 7 * 86_400 * 1_000_000_000
_LOOKS_MAX = 20_000
COPIES_MAX = 10_000


def find_copies(reader: ObjectReader, tree: ObjectId) -> list[DocPath]:
    """Return the paths of all conflict copies below `tree`, as many as a message takes."""
    found: list[DocPath] = []
    waiting = [(b"", tree)]
    while waiting and len(found) < COPIES_MAX:
        prefix, oid = waiting.pop()
        for entry in reader.read_tree(oid):
            if entry.is_dir:
                waiting.append((prefix + entry.name + b"/", entry.oid))
            elif MARK in entry.name and parse_copy_name(entry.name) is not None:
                found.append(DocPath(prefix + entry.name))
    return sorted(found)


def find_origins(
    reader: ObjectReader, head: ObjectId | None, copies: Iterable[DocPath]
) -> list[Origin]:
    """Return where `copies` come from, as far as the history of `head` says.

    A copy that moved with its directory is known by its own name.
    """
    history = CommitLog(reader)
    search = _Search(history, reader)
    wanted = set(copies)
    since_ns = min((_time_of(copy) for copy in wanted), default=0) - _CLOCK_SLACK_NS
    found: list[Origin] = []
    for record in itertools.islice(history.newest(head), _COMMITS_MAX):
        if not wanted or record.committer.time_ns < since_ns:
            break
        for named in (
            named_conflicts(record.message) if "Caiafs-Conflict: " in record.message else ()
        ):
            copy = _match(named, wanted)
            if copy is not None:
                wanted.discard(copy)
                found.append(search.explain(copy, named, record))
    return found


def _time_of(copy: DocPath) -> int:
    parsed = parse_copy_name(split_path(copy)[1])
    return parsed.time_ns if parsed is not None else 0


def _match(named: NamedConflict, wanted: set[DocPath]) -> DocPath | None:
    if named.copy in wanted:
        return named.copy
    name = split_path(named.copy)[1]
    return next((copy for copy in sorted(wanted) if split_path(copy)[1] == name), None)


class ConflictHistory:
    """Answers the mount, each question in a thread."""

    def __init__(self, git: GitBackend, published: Published) -> None:
        self._git = git
        self._published = published
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def copies(self) -> list[DocPath]:
        """Return all conflict copies of the published tree; raises StoreError."""
        tree = self._published.tree

        def look() -> list[DocPath]:
            return find_copies(self._git.repository.new_reader(), tree)

        return await trio.to_thread.run_sync(look, limiter=self._one_at_a_time)

    async def origins(self, copies: list[DocPath]) -> list[Origin]:
        """Return where these copies come from; raises StoreError."""
        head = self._published.commit

        def look() -> list[Origin]:
            return find_origins(self._git.repository.new_reader(), head, copies)

        return await trio.to_thread.run_sync(look, limiter=self._one_at_a_time)


class _Search:
    """Finds the commits that brought the versions of a conflict."""

    def __init__(self, history: CommitLog, reader: ObjectReader) -> None:
        self._history = history
        self._reader = reader
        self._looks_left = _LOOKS_MAX

    def explain(self, copy: DocPath, named: NamedConflict, record: CommitRecord) -> Origin:
        ours = named.kept
        return Origin(
            to_text(copy),
            record.oid,
            record.author.time_ns,
            named.base,
            self._version(ours, named.path, record) if ours is not None else None,
            self._version(named.beside, named.path, record),
        )

    def _version(self, oid: ObjectId, path: DocPath, record: CommitRecord) -> Version:
        """Return who brought `oid` to `path`; where no parent has it there, the commit of the conflict did."""
        waiting = [record]
        while waiting and self._looks_left > 0:
            commit = waiting.pop()
            parents = [self._history.commit(parent) for parent in commit.parents]
            having = [parent for parent in parents if self._has(parent, path, oid)]
            if not having:
                author = f"{commit.author.name} <{commit.author.email}>"
                return Version(oid, commit.oid, author, commit.author.time_ns)
            waiting = having[:1]
        return Version(oid)

    def _has(self, commit: CommitRecord, path: DocPath, oid: ObjectId) -> bool:
        self._looks_left -= 1
        entry = self._reader.entry_at(commit.tree, path)
        return entry is not None and entry.mode is not GitMode.DIRECTORY and entry.oid == oid
