"""What govc is known to hold, kept as a commit of our own under refs/caia/govc/.

Used by `store.govc_store`. The commit's tree is what govc holds, its first parent what that was made from; its message
says which govc commit was seen last. It may lag: sending again what govc has already is harmless.
"""

import hashlib
import re
import time
from dataclasses import dataclass, field, replace
from urllib.parse import quote_from_bytes, unquote_to_bytes

from caiafs.backends.git.backend import GitBackend
from caiafs.core.errors import NotFound
from caiafs.core.types import EMPTY_TREE, Change, ChangeSet, DocPath, ObjectId, Signature

GOVC_REFS = "refs/caia/govc/"
_REFUSED_MAX = 1000
_FIELD = re.compile(r"^(Head|Newest|Published|Url|Repository|Dialect): (.*)$", re.MULTILINE)
_REFUSED = re.compile(r"^Refused: ([0-9a-f]{40}) (\S+) (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RefusedContent:
    """A content that govc did not take at a path, and why."""

    oid: ObjectId
    reason: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where govc is.

    Attributes:
        tree: what it holds; refused documents count as held.
        published: the commit of ours that has this tree; None where none has.
        head: its newest commit up to which everything was looked at.
        newest: the newest commit known to be there, ours after `head` among them; when it is gone, so
            is what govc held.
        refused: documents it did not take.
    """

    tree: ObjectId = EMPTY_TREE
    published: ObjectId | None = None
    head: str | None = None
    newest: str | None = None
    refused: dict[DocPath, RefusedContent] = field(default_factory=dict)


class CursorStore:
    """Reads and writes the cursor of one govc repository."""

    def __init__(self, git: GitBackend, url: str, repository: str) -> None:
        self._git = git
        self._url = url
        self._repository = repository
        self.ref = cursor_ref(url, repository)
        self._base: ObjectId | None = None
        self._saved: Cursor | None = None

    async def load(self) -> Cursor | None:
        """Return the cursor as it was saved; None where there is none, or it cannot be used."""
        commit = self._git.repository.refs.read(self.ref)
        if commit is None:
            return None
        try:
            record = self._git.log_of.commit(commit)
        except NotFound:
            return None
        fields = dict(_FIELD.findall(record.message))
        published = _optional(fields.get("Published"))
        cursor = Cursor(
            record.tree,
            ObjectId(published) if published else None,
            _optional(fields.get("Head")),
            _optional(fields.get("Newest")),
            refused_in(record.message),
        )
        self._base, self._saved = commit, cursor
        return cursor

    async def save(self, cursor: Cursor, dialect: str) -> None:
        """Write `cursor` where it differs from what was saved."""
        if cursor == self._saved:
            return
        lines = [
            "What govc holds",
            "",
            f"Head: {cursor.head or '-'}",
            f"Newest: {cursor.newest or '-'}",
            f"Published: {cursor.published or '-'}",
            f"Url: {self._url}",
            f"Repository: {self._repository}",
            f"Dialect: {dialect}",
        ]
        refused = list(cursor.refused.items())[:_REFUSED_MAX]
        lines += [
            f"Refused: {r.oid} {quote_from_bytes(path, '/')} {r.reason}" for path, r in refused
        ]
        base = await self.base_of(cursor)
        commit = await self._git.build(_change_set("\n".join(lines) + "\n"), base)
        await self._git.move_ref(self.ref, commit.commit, self._git.repository.refs.read(self.ref))
        self._base, self._saved = commit.commit, cursor

    async def base_of(self, cursor: Cursor) -> ObjectId | None:
        """Return a commit that has the cursor's tree."""
        for commit in (cursor.published, self._base):
            if commit is not None and self._git.repository.tree_of(commit) == cursor.tree:
                return commit
        if cursor.tree == EMPTY_TREE:
            return None
        msg = "a cursor's tree is always one that was built here"
        raise NotFound(msg)

    async def apply(self, cursor: Cursor, changes: tuple[Change, ...]) -> Cursor:
        """Return `cursor` with `changes` in its tree: govc has them now."""
        built = await self._git.build(
            ChangeSet("", _signature(), "What govc holds\n", changes), await self.base_of(cursor)
        )
        self._base = built.commit
        return replace(cursor, tree=built.tree, published=None)

    async def drop(self) -> None:
        """Forget the cursor: govc does not hold that tree any more."""
        await self._git.move_ref(self.ref, None, self._git.repository.refs.read(self.ref))
        self._base = self._saved = None


def cursor_ref(url: str, repository: str) -> str:
    """Return the reference of the cursor of one govc repository."""
    digest = hashlib.sha1(f"{url}\n{repository}".encode()).hexdigest()
    return f"{GOVC_REFS}{digest}"


def refused_in(message: str) -> dict[DocPath, RefusedContent]:
    """Return the documents that a cursor's message says govc did not take."""
    return {
        DocPath(unquote_to_bytes(path)): RefusedContent(ObjectId(oid), reason)
        for oid, path, reason in _REFUSED.findall(message)
    }


def _optional(text: str | None) -> str | None:
    return None if text in (None, "-") else text


def _signature() -> Signature:
    return Signature("caiafs", "caiafs@localhost", time.time_ns())


def _change_set(message: str) -> ChangeSet:
    return ChangeSet("", _signature(), message, ())
