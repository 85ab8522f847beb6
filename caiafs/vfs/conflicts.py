"""Open conflicts: which there are, and the versions of each.

Used by `virtual.conflicts`, `vfs.resolution` and the reports, on the trio thread. The record is the copy in the tree: a
conflict is open while its copy is beside its document. Found in the state DB by an index on such names, which holds
what the mount has looked into; what it has not is looked for once in the life of a state DB, in the background by the
store process, and afterwards each change from outside names its path. So nothing is walked at a mount, and a rename of
a directory or a removal counts at once.

Where the versions come from is asked of the history, in the background too: until it has answered, a conflict has its
two versions and no base.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import trio

from caiafs.core.conflicts import MARK, CopyName, find_document, parse_copy_name
from caiafs.core.errors import CaiaError, NotFound
from caiafs.core.types import ROOT_INODE, DocPath, InodeNo, ObjectId, join_path, split_path
from caiafs.link.messages import Origin
from caiafs.state.journal import Journal
from caiafs.vfs.importing import ObjectSource
from caiafs.vfs.inode import Inode
from caiafs.vfs.table import InodeTable

log = logging.getLogger(__name__)

LOOKED = "conflicts_looked_for"
"""Key in the state DB's `meta`: the whole tree was looked through."""

_FIND = (
    "SELECT parent, name, ino FROM dentry INDEXED BY dentry_conflict "
    "WHERE instr(name, x'2e636f6e666c6963742d')"
)
_KEY_NAME_BYTES_MAX = 240
_RETRY_S = 5.0
_ASK_AT_ONCE = 500
assert bytes.fromhex("2e636f6e666c6963742d") == MARK  # the index of state.schema looks for it


class History(Protocol):
    """Who knows the published tree and its past; `app` supplies the link to the store process."""

    async def conflict_copies(self) -> list[DocPath]:
        """Return the paths of all copies; raises CaiaError."""
        ...

    async def conflict_origins(self, copies: list[DocPath]) -> list[Origin]:
        """Return where these copies come from, as far as the history says; raises CaiaError."""
        ...


class Place(NamedTuple):
    """A name in a directory, and the inode that it means."""

    directory: InodeNo
    name: bytes
    ino: InodeNo


@dataclass(frozen=True, slots=True)
class Conflict:
    """One open conflict.

    Attributes:
        key: what it is called in `.caia/conflicts`: printable, the same in every mount.
        path, copy_path: the document and its copy.
        document, copy: where both are now.
        named: what the copy's name says.
        kind: what is at odds: content, added, type or directory.
        origin: None where the history was not asked yet, or does not say.
    """

    key: str
    path: DocPath
    copy_path: DocPath
    document: Place
    copy: Place
    named: CopyName
    kind: str
    origin: Origin | None


class Conflicts:
    """All open conflicts of the mount."""

    def __init__(
        self, journal: Journal, table: InodeTable, objects: ObjectSource, history: History
    ) -> None:
        self._journal = journal
        self._table = table
        self._objects = objects
        self._history = history
        self._found: list[Conflict] = []
        self._found_at = -1
        self._origins: dict[DocPath, Origin | None] = {}
        self._unasked = trio.Event()
        self.answers = 0
        """How often the history was asked: what is known of a conflict changes with it."""

    def open(self) -> list[Conflict]:
        """Return the open conflicts, sorted by path; from memory while no name has changed."""
        if self._found_at != self._journal.names_changed:
            changed = self._journal.names_changed
            try:
                self._journal.commit()
                rows = self._journal.db.rows(_FIND)
                found = [self._look_at(InodeNo(row[0]), row[1], InodeNo(row[2])) for row in rows]
            except (
                CaiaError
            ):  # what is damaged has its own reason in health, or is told to who reads it
                return self._found
            self._found = sorted((c for c in found if c is not None), key=lambda c: c.copy_path)
            self._found_at = changed
            if any(conflict.copy_path not in self._origins for conflict in self._found):
                self._unasked.set()
        return self._found

    def find(self, key: str) -> Conflict:
        """Return the open conflict of that key.

        Raises:
            NotFound: there is none.
        """
        for conflict in self.open():
            if conflict.key == key:
                return conflict
        raise NotFound("no such conflict is open")

    def size_of(self, oid: ObjectId) -> int | None:
        """Return the length of a version that git has, None where it is not here."""
        try:
            return self._objects.size(oid)
        except CaiaError:
            return None

    def _look_at(self, parent: InodeNo, name: bytes, ino: InodeNo) -> Conflict | None:
        """Return the conflict that a name stands for, if it is one and open."""
        named = parse_copy_name(name)
        if named is None:
            return None
        try:
            directory, copy = self._table.get(parent), self._table.get(ino)
            if not copy.is_publishable or not (directory.nlink and self._is_reached(directory)):
                return None
            document = self._document(directory, name, named)
            if document is None:
                return None
            above = self._table.path(directory)
            copy_path = join_path(above, name)
        except NotFound:
            return None
        origin = self._origins.get(copy_path)
        return Conflict(
            conflict_key(document.name, copy_path),
            join_path(above, document.name),
            copy_path,
            document,
            Place(parent, name, ino),
            named,
            _kind(self._table.get(document.ino), copy, origin),
            origin,
        )

    def _is_reached(self, directory: Inode) -> bool:
        while directory.ino != ROOT_INODE:
            names = self._table.names(directory)
            if not names:
                return False
            directory = self._table.get(names[0][0])
        return True

    def _document(self, directory: Inode, name: bytes, named: CopyName) -> Place | None:
        sql = "SELECT ino FROM dentry WHERE parent=? AND name=?"
        rows = self._journal.db.rows(sql, directory.ino, named.document)
        if rows:
            return Place(directory.ino, named.document, InodeNo(rows[0][0]))
        if not named.is_cut:
            return None
        children = self._table.children(directory)
        found = find_document(name, named, children)
        return Place(directory.ino, found, children[found]) if found else None

    # --- what comes from outside

    def noticed(self, paths: Iterable[DocPath]) -> None:
        """Look into the directories of copies among `paths`, which came from outside."""
        for path in paths:
            if MARK in bytes(path) and parse_copy_name(split_path(path)[1]) is not None:
                self._load(path)
                self._origins.pop(path, None)
                self._found_at = -1
                self._unasked.set()

    def _load(self, path: DocPath) -> None:
        directory: Inode | None = self._table.get(ROOT_INODE)
        try:
            for name in path.split(b"/"):
                if directory is None or not directory.is_directory:
                    return
                directory = self._table.find(directory, name)
        except CaiaError as exc:
            log.warning("a conflict is not listed: %s", exc)

    async def run(self) -> None:
        """Ask the store process for what only it knows, until cancelled."""
        while True:
            try:
                await self._look_for_copies()
                await self._ask_origins()
            except CaiaError as exc:
                log.debug("the history of conflicts waits: %s", exc)
                await trio.sleep(_RETRY_S)
                continue
            await self._unasked.wait()

    async def _look_for_copies(self) -> None:
        if self._journal.db.meta(LOOKED):
            return
        self.noticed(await self._history.conflict_copies())
        self._journal.put_meta(LOOKED, 1)
        self._journal.commit()

    async def _ask_origins(self) -> None:
        self._unasked = trio.Event()
        wanted = [c.copy_path for c in self.open() if c.copy_path not in self._origins]
        for start in range(0, len(wanted), _ASK_AT_ONCE):
            asked = wanted[start : start + _ASK_AT_ONCE]
            answers = await self._history.conflict_origins(asked)
            self._origins |= dict.fromkeys(asked)
            self._origins |= {
                DocPath(origin.copy.encode("utf-8", "surrogateescape")): origin
                for origin in answers
            }
            self._found_at = -1
            self.answers += 1


def _kind(ours: Inode, theirs: Inode, origin: Origin | None) -> str:
    if ours.is_directory:
        return "directory"
    if ours.is_symlink != theirs.is_symlink:
        return "type"
    return "added" if origin is not None and origin.base is None else "content"


def conflict_key(name: bytes, copy_path: DocPath) -> str:
    """Return the key of a conflict: the document's name as far as it prints, and 8 digits of the copy's path."""
    text = name.decode("utf-8", "surrogateescape")
    shown = "".join(char if char.isprintable() and char != "%" else _escape(char) for char in text)
    kept = shown.encode()[:_KEY_NAME_BYTES_MAX].decode("utf-8", "ignore")
    return f"{kept}.{hashlib.sha1(copy_path).hexdigest()[:8]}"


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
