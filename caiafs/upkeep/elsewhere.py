"""Where a blob or tree may be that git has lost: the state DB, the disk cache, govc.

Used by the repair. Whoever asks compares ids.
"""

import contextlib
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from caiafs.backends.git.command import git_argv
from caiafs.backends.git.pack import NewObject, new_object
from caiafs.backends.git.repository import Repository
from caiafs.backends.git.trees import edit_tree
from caiafs.backends.govc import GovcBackend
from caiafs.core.errors import CaiaError, Corrupt, NotFound
from caiafs.core.types import (
    EMPTY_TREE,
    Change,
    DocPath,
    Entry,
    GitMode,
    ObjectId,
    git_mode,
)
from caiafs.state import paths
from caiafs.state.flags import InodeFlag
from caiafs.state.view import open_state
from caiafs.upkeep.check_files import pieces_of, to_stored
from caiafs.upkeep.git_run import environment_of
from caiafs.upkeep.place import Place, path_of

_IN_MEMORY_BYTES = 256 << 20
_LOGGED = (
    "SELECT mode, oid, parent, name FROM inode WHERE oid NOT NULL AND nlink > 0"
    " AND mode & 0xf000 IN (0x8000, 0xa000) AND NOT flags & ?"
)
_CONTENTS = (
    "SELECT c.size, c.data, c.spool, c.extents FROM content c JOIN op o ON o.content = c.id"
    " WHERE o.oid = ? LIMIT 1"
)


class BaseFiles:
    """Blobs of git as plain files, for contents that lie over them; the files end with their directory."""

    def __init__(self, repository: Repository, directory: Path) -> None:
        self._repository = repository
        self._directory = directory

    def __call__(self, oid: ObjectId) -> Path:
        """Return the blob's file.

        Raises:
            Corrupt: git does not have it whole.
        """
        target = self._directory / oid
        if not target.exists():
            with target.open("xb") as file:
                done = subprocess.run(
                    git_argv(self._repository.git_dir, "cat-file", "blob", oid),
                    stdout=file,
                    stderr=subprocess.DEVNULL,
                    check=False,
                    env=environment_of(self._repository),
                )
            if done.returncode:
                target.unlink()
                raise Corrupt(f"the blob {oid} below it cannot be read", backend="git")
        return target


class Elsewhere:
    """Looks for objects; `govc` may be None."""

    def __init__(
        self,
        place: Place,
        base_files: BaseFiles,
        documents: Mapping[ObjectId, Sequence[DocPath]],
        govc: GovcBackend | None,
    ) -> None:
        self._place = place
        self._base_files = base_files
        self._documents = documents
        self._govc = govc
        self._trees: dict[ObjectId, NewObject] | None = None

    async def find(self, oid: ObjectId, kind: str) -> NewObject | None:
        """Return the object, None where nobody has it."""
        if kind == "tree":
            if self._trees is None:
                self._trees = self._compose_trees()
            return self._trees.get(oid)
        if kind != "blob":
            return None
        found = self._in_state(oid) or self._in_cache(oid)
        return found or await self._in_govc(oid)

    def _in_state(self, oid: ObjectId) -> NewObject | None:
        with (
            contextlib.suppress(sqlite3.Error, CaiaError, OSError),
            contextlib.closing(open_state(self._place.state_dir)) as db,
        ):
            row = db.execute(_CONTENTS, (bytes.fromhex(oid),)).fetchone()
            if row is not None and row[0] <= _IN_MEMORY_BYTES:
                stored = to_stored(self._place.state_dir, *row)
                return _checked(oid, b"".join(pieces_of(stored, self._base_files)))
        return None

    def _in_cache(self, oid: ObjectId) -> NewObject | None:
        file = paths.cached_blob(self._place.state_dir, oid)
        with contextlib.suppress(OSError):
            if file.stat().st_size <= _IN_MEMORY_BYTES:
                return _checked(oid, file.read_bytes())
        return None

    async def _in_govc(self, oid: ObjectId) -> NewObject | None:
        if self._govc is None:
            return None
        for path in self._documents.get(oid, ()):
            with contextlib.suppress(CaiaError):
                document = await self._govc.read(path)
                if document is not None and document.entry.oid == oid:
                    return _checked(oid, document.content)
        return None

    def _compose_trees(self) -> dict[ObjectId, NewObject]:
        """Return the trees of what the state DB shows: where git has the same, they have the same ids."""
        changes: list[Change] = []
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(open_state(self._place.state_dir)) as db,
        ):
            for mode, oid, parent, name in db.execute(_LOGGED, (int(InodeFlag.LOCAL),)):
                path = path_of(db, parent, name)
                if path is not None:
                    entry = Entry(git_mode(mode) or GitMode.FILE, ObjectId(oid.hex()))
                    changes.append(Change(path, None, entry))
        with contextlib.suppress(CaiaError, NotFound):
            _, objects = edit_tree(self._place.repository.new_reader(), EMPTY_TREE, changes)
            return {item.oid: item for item in objects}
        return {}


def _checked(oid: ObjectId, content: bytes) -> NewObject | None:
    found = new_object(b"blob", content)
    return found if found.oid == oid else None
