"""Brings what a state DB holds and no store has into the repository, so that the DB can begin anew.

Used by the repair, on an unmounted repository. What was pending is replayed on the branch as the publisher does and becomes
commits of its writer, operation id and all: should the old DB ever come back, they count as settled. What cannot be
published is kept: damaged versions in damaged/, unpublished files in lost/, and the old DB itself.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.contents import GitContents
from caiafs.backends.git.log import CommitLog
from caiafs.core.errors import CaiaError, NotFound
from caiafs.core.types import ChangeSet, DocPath, GitMode, InodeNo, ObjectId, display, git_mode
from caiafs.state import damaged
from caiafs.state.damaged import DamagedVersion, Remains
from caiafs.state.flags import InodeFlag
from caiafs.state.ops import Op, OpKind
from caiafs.state.reader import StoredContent, to_object_id, to_op
from caiafs.store.trailers import Operation, operation_of
from caiafs.sync.groups import GroupLimits, plan_group
from caiafs.sync.identity import Identities
from caiafs.sync.merge import conflict_name, merge_text
from caiafs.sync.message import Provenance, compose
from caiafs.sync.replay import Merging, replay
from caiafs.upkeep.check_files import BaseFile, hash_stored, pieces_of, read_span, to_stored
from caiafs.upkeep.lost import Lost
from caiafs.upkeep.place import Place, path_of, settled_seq
from caiafs.vfs.local_names import LocalNames

_PROGRAM = "caiafs fsck"
_SMALL_BYTES = 1 << 20
_OPS = (
    "SELECT seq, kind, path, target, mode, oid, size, content, replaced, ino, uid, program, time_ns,"
    " aside, replaced_content FROM op WHERE seq>? ORDER BY seq"
)
_UNPUBLISHED = (
    "SELECT ino, mode, uid, oid, content, flags, parent, name, mtime_ns FROM inode"
    " WHERE flags & ? AND nlink > 0 AND content NOT NULL"
)


@dataclass(slots=True)
class Salvaged:
    """What was found.

    Attributes:
        ops: what the branch does not have, in order.
        contents: where the bytes of blobs are.
        strays: contents that no op can put, with the path that they had.
    """

    writer_id: str
    ops: list[Op] = field(default_factory=list)
    contents: dict[ObjectId, StoredContent] = field(default_factory=dict)
    strays: list[tuple[DocPath, StoredContent]] = field(default_factory=list)


class Gathering:
    """Collects what is pending from a state DB, or from what is left of one."""

    def __init__(
        self, db: sqlite3.Connection, place: Place, base_file: BaseFile, *, is_whole: bool
    ) -> None:
        self._db = db
        self._place = place
        self._base_file = base_file
        self._is_whole = is_whole
        self._reader = place.repository.new_reader()
        self._hashed: dict[int, ObjectId | None] = {}
        self._stands: dict[tuple[bytes, ObjectId], ObjectId | None] = {}

    def run(self) -> Salvaged:
        """Return it; versions that cannot be read are set aside on the way."""
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if not isinstance(meta.get("writer_id"), str):
            meta["writer_id"] = self._newest_writer()
        found = Salvaged(str(meta["writer_id"]))
        settled = settled_seq(self._place.repository, meta)
        expected = settled + 1
        for row in self._db.execute(_OPS, (settled,)).fetchall():
            op = to_op(row[:-1])
            if not self._is_whole and op.seq != expected:
                self._keep_stray(op, found)  # what came between is not known
                continue
            expected += 1
            whole = self._complete(op, row[-1], found)
            if whole is not None:
                found.ops.append(whole)
        self._gather_files(found, expected)
        return found

    def _newest_writer(self) -> str:
        history = CommitLog(self._reader)
        newest = zip(
            range(1000), history.newest(self._place.repository.head_commit()), strict=False
        )
        for _, record in newest:
            operation = operation_of(record.message)
            if operation is not None:
                return operation.writer_id
        return "00000000"

    def _complete(self, op: Op, replaced_content: int | None, found: Salvaged) -> Op | None:
        """Return `op` with its ids, None for a version that cannot be read."""
        replaced = op.replaced
        if replaced_content is not None:
            replaced = self._hash(replaced_content)
        if replaced is not None and (op.path, replaced) in self._stands:
            replaced = self._stands[op.path, replaced]
        op = replace(op, replaced=replaced)
        if op.kind not in {OpKind.PUT, OpKind.MOVE} or (op.oid is None and op.content_id is None):
            return op
        actual = self._hash(op.content_id) if op.content_id is not None else None
        oid = op.oid or actual
        if oid is not None and actual == oid:
            found.contents[oid] = self._stored(op.content_id)
            return replace(op, oid=oid)
        if oid is not None and self._reader.exists(oid):
            return op
        if op.kind is OpKind.MOVE:
            return replace(op, oid=None)
        self._set_aside(op.path, op.ino, op.content_id, blob=oid, before=op.replaced)
        if oid is not None:
            self._stands[op.path, oid] = op.replaced
        return None

    def _hash(self, content_id: int | None) -> ObjectId | None:
        """Return the id of a content row, None where it cannot be read."""
        if content_id is None:
            return None
        if content_id not in self._hashed:
            try:
                self._hashed[content_id] = hash_stored(self._stored(content_id), self._base_file)
            except (CaiaError, OSError):
                self._hashed[content_id] = None
        return self._hashed[content_id]

    def _stored(self, content_id: int | None) -> StoredContent:
        sql = "SELECT size, data, spool, extents FROM content WHERE id=?"
        row = self._db.execute(sql, (content_id,)).fetchone()
        if row is None:
            raise NotFound(f"content {content_id} is gone")
        return to_stored(self._place.state_dir, *row)

    def _set_aside(
        self,
        path: DocPath,
        ino: int,
        content_id: int | None,
        *,
        blob: ObjectId | None = None,
        before: ObjectId | None,
    ) -> None:
        """Keep what is left of a version that cannot be read in damaged/."""
        remains, size = Remains(), 0
        with contextlib.suppress(CaiaError):
            stored = self._stored(content_id)
            remains = Remains(stored.data, stored.spool, stored.extents, is_shared=True)
            size = stored.size_bytes
        version = DamagedVersion(
            name=damaged.new_name(ino, self._place.state_dir),
            paths=(path.decode("utf-8", "surrogateescape"),),
            inode=ino,
            blob=blob or "",
            size_bytes=size,
            reason="found by caiafs fsck: its bytes are not those that were saved",
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            before=before or "",
        )
        damaged.set_aside(self._place.state_dir, version, remains)

    def _keep_stray(self, op: Op, found: Salvaged) -> None:
        actual = self._hash(op.content_id)
        if op.kind is OpKind.PUT and actual is not None and actual == (op.oid or actual):
            found.strays.append((op.path, self._stored(op.content_id)))

    def _gather_files(self, found: Salvaged, next_seq: int) -> None:
        """Add files that were saved without an op: still open then, or never published."""
        local = LocalNames(self._place.config.local_patterns)
        flags = int(InodeFlag.UNLOGGED | InodeFlag.LOCAL)
        for row in self._db.execute(_UNPUBLISHED, (flags,)).fetchall():
            ino, mode, uid, oid, content, inode_flags, parent, name, mtime_ns = row
            actual = self._hash(content)
            path = path_of(self._db, parent, name) or DocPath(name or b"inode-%d" % ino)
            if actual is None:
                self._set_aside(path, ino, content, before=to_object_id(oid))
                continue
            stored = self._stored(content)
            shown = git_mode(mode)
            if local.match(path) or inode_flags & InodeFlag.LOCAL or shown is None:
                found.strays.append((path, stored))
                continue
            found.contents[actual] = stored
            found.ops.append(
                Op(
                    seq=next_seq,
                    kind=OpKind.PUT,
                    path=path,
                    target=None,
                    mode=shown or GitMode.FILE,
                    oid=actual,
                    size_bytes=stored.size_bytes,
                    content_id=content,
                    replaced=to_object_id(oid),
                    ino=InodeNo(ino),
                    uid=uid,
                    program="",
                    time_ns=mtime_ns,
                )
            )
            next_seq += 1


class SalvagedSource:
    """The contents that were found, and git's: a `ContentSource` for the commit that takes them in."""

    def __init__(
        self, contents: Mapping[ObjectId, StoredContent], git: GitContents, base_file: BaseFile
    ) -> None:
        self._contents = contents
        self._git = git
        self._base_file = base_file
        self.merged: dict[ObjectId, bytes] = {}

    async def read(self, oid: ObjectId) -> bytes:
        """Return a whole content."""
        return await self.read_range(oid, 0, await self.size(oid))

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of a content."""
        if oid in self.merged:
            return self.merged[oid][start:stop]
        stored = self._contents.get(oid)
        if stored is None:
            return await self._git.read_range(oid, start, stop)
        return await trio.to_thread.run_sync(
            read_span, stored, self._base_file, range(start, min(stop, stored.size_bytes))
        )

    async def size(self, oid: ObjectId) -> int:
        """Return the length of a content."""
        if oid in self.merged:
            return len(self.merged[oid])
        stored = self._contents.get(oid)
        return stored.size_bytes if stored is not None else await self._git.size(oid)

    def read_small(self, oid: ObjectId) -> bytes | None:
        """Return a content for a merge, None where it is too large for one or not here."""
        stored = self._contents.get(oid)
        if stored is None or stored.size_bytes > _SMALL_BYTES:
            return None
        return b"".join(pieces_of(stored, self._base_file))


async def publish(place: Place, found: Salvaged, base_file: BaseFile, lost: Lost) -> int:
    """Commit what was pending to the branch; return how many changes of documents that were."""
    contents = GitContents(place.repository)
    source = SalvagedSource(found.contents, contents, base_file)
    git = GitBackend(place.repository, source)
    reader = place.repository.reader

    def read_small(oid: ObjectId) -> bytes | None:
        small = source.read_small(oid)
        if small is not None or oid in found.contents:
            return small
        with contextlib.suppress(CaiaError):
            return reader.read_blob(oid) if reader.size(oid) <= _SMALL_BYTES else None
        return None

    def merge(path: DocPath, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        return merge_text(base, ours, theirs, path=path)

    for path, stored in found.strays:
        pieces = pieces_of(stored, base_file)
        await trio.to_thread.run_sync(lost.keep_content, path, pieces)
    merging = Merging(read_small, merge, conflict_name, lambda *_: 0)
    published = 0
    for ops in groups_of(found.ops):
        head = place.repository.head_commit()
        result = replay(ops, reader, place.repository.tree_of(head), merging)
        source.merged.update(result.contents)
        if not result.changes:
            continue
        built = await git.build(_change_set(found.writer_id, ops, result.changes), head)
        await git.advance(built, head)
        for path, reason in built.refused:
            lost.note(f"{display(path)} could not be published: {reason}")
        published += len(result.changes) - len(built.refused)
    return published


def groups_of(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    """Yield the ops of each commit, cut as the publisher does: one author, one version of a document."""
    limits = GroupLimits(documents=1 << 40, size_bytes=1 << 62, trailer_bytes=1 << 62)
    start = 0
    while start < len(ops):
        stop = start + plan_group(ops[start:], limits)
        yield ops[start:stop]
        start = stop


def _change_set(writer_id: str, ops: Sequence[Op], changes: tuple) -> ChangeSet:  # type: ignore[type-arg]  # of Change
    identities = Identities()
    last = ops[-1]
    operation = Operation(writer_id, ops[0].seq, last.seq)
    provenance = Provenance(identities.host, (identities.login(last.uid),), (_PROGRAM,))
    message = compose(changes, operation, provenance)
    author = identities.signature(last.uid or os.geteuid(), last.time_ns or time.time_ns())
    return ChangeSet(str(operation), author, message, tuple(changes))


def files_of_database(state_dir: Path, name: str) -> list[Path]:
    """Return a database's file with those beside it, its log first: a log must not outlive its database in place."""
    return [f for f in (state_dir / f"{name}{end}" for end in ("-shm", "-wal", "")) if f.exists()]
