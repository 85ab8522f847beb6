"""The op log: what happened to published paths, in order, as the publisher needs it.

Written by the mount process in the transaction of the change itself; read by the publisher.
Replaying ops on the published tree gives the mount's tree; `replaced` says what the writer saw, so
that a foreign change in between is a merge and never lost.
"""

import enum
from dataclasses import dataclass

from caiafs.core.types import DocPath, ObjectId


class OpKind(enum.StrEnum):
    """What an op does to the published tree."""

    PUT = "put"
    """`path` holds blob `oid` with `mode`; whatever was there is replaced."""
    REMOVE = "remove"
    """`path` is gone: a document, or a directory with all that is below."""
    MOVE = "move"
    """`path`, a document or a directory with all below, is at `target` now, replacing it."""
    EXCHANGE = "exchange"
    """`path` and `target` changed places (RENAME_EXCHANGE)."""


@dataclass(frozen=True, slots=True)
class Op:
    """One op as it stands in the log.

    Attributes:
        seq: position; increases, never reused.
        path, target: at the time of the op. `target` is None except for MOVE and EXCHANGE.
        mode, oid, size_bytes: of the content that is put.
        content_id: row with the bytes; None where git already has the blob.
        replaced: blob that the writer saw at `path` (MOVE: at `target`); None: nothing was there.
        ino: the document's inode, which ties its versions together.
        uid, program: who, taken at open.
        time_ns: when.
        aside: REMOVE: the document goes on under a name that is not published, as an editor's backup.
    """

    seq: int
    kind: OpKind
    path: DocPath
    target: DocPath | None
    mode: int
    oid: ObjectId | None
    size_bytes: int
    content_id: int | None
    replaced: ObjectId | None
    ino: int
    uid: int
    program: str
    time_ns: int
    aside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOp:
    """An op to be appended; see `Op`.

    Attributes:
        replaced_content: content row whose blob id becomes `replaced` as soon as it is hashed.
    """

    kind: OpKind
    path: DocPath
    ino: int
    uid: int
    program: str
    time_ns: int
    target: DocPath | None = None
    mode: int = 0
    oid: ObjectId | None = None
    size_bytes: int = 0
    content_id: int | None = None
    replaced: ObjectId | None = None
    replaced_content: int | None = None
    aside: bool = False
