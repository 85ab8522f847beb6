"""The id of a document, as the extended attribute user.caia.id shows it.

Used by fuse.operations, on the trio thread. Ids belong to published paths; the store process writes those that do not
follow from the path into a database beside the state DB, which is read here. A document that waits to be published is
published first, within a bounded time; one that cannot be yet has no id.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Protocol

import trio

from caiafs.core.document_ids import FILE_NAME, first_id
from caiafs.core.errors import NoAttribute, NotFound
from caiafs.core.types import DocPath, InodeNo
from caiafs.state.journal import Journal
from caiafs.vfs.inode import Inode
from caiafs.vfs.publication import Publication
from caiafs.vfs.restore import OUR_XATTRS
from caiafs.vfs.table import InodeTable

ID_XATTR = OUR_XATTRS + b"id"
_WAIT_S = 5.0
_LOOK_S = 0.05
_MOVES = "SELECT 1 FROM op WHERE kind IN ('move', 'exchange') LIMIT 1"


class PublishedWaiter(Protocol):
    """Waits for the store process; `app` supplies the link."""

    async def wait_published(self, timeout_s: float) -> bool:
        """Return whether everything that was logged is published, waiting for what is due."""
        ...


class DocumentIds:
    """Answers for the documents of one mount."""

    def __init__(
        self,
        journal: Journal,
        table: InodeTable,
        publication: Publication,
        *,
        published: PublishedWaiter,
    ) -> None:
        self._journal = journal
        self._table = table
        self._publication = publication
        self._published = published
        self._file = Path(journal.db.state_dir) / FILE_NAME

    async def id_of(self, ino: InodeNo) -> bytes:
        """Return the id of a published document.

        Raises:
            NoAttribute: it is not published, or not yet.
        """
        inode = self._table.get(ino)
        self._path(inode)
        all_published = await self._published.wait_published(_WAIT_S)
        if not all_published and self._may_wait(inode):
            raise NoAttribute("the document is not published yet")
        path = self._path(inode)
        with trio.move_on_after(_WAIT_S):
            while (found := self._look_up(path)) is None:  # noqa: ASYNC110
                # Another process writes it, once in the life of a state directory: nobody says when.
                await trio.sleep(_LOOK_S)
            return found.encode()
        raise NoAttribute("ids are not known yet")

    def _may_wait(self, inode: Inode) -> bool:
        """Whether what waits may concern this document: an op of its own, or any that moves something."""
        waits = self._journal.newest_op(inode.ino) or inode.unhashed is not None
        return bool(waits or self._journal.db.rows(_MOVES))

    def _path(self, inode: Inode) -> DocPath:
        """Return where a document is published; of several names the first."""
        try:
            paths = self._publication.public_paths(inode) if inode.is_logged else []
        except NotFound:
            paths = []
        if not paths:
            raise NoAttribute("what is not published has no id")
        return min(paths)

    def _look_up(self, path: DocPath) -> str | None:
        """Return an id, None as long as none is known."""
        try:
            uri = f"{self._file.absolute().as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1.0)) as db:
                if not db.execute("SELECT 1 FROM state WHERE key='ready'").fetchone():
                    return None
                row = db.execute("SELECT id FROM document WHERE path=?", (path,)).fetchone()
        except sqlite3.Error:
            return None  # not made yet, or being made anew
        return row[0] if row else first_id(path)
