"""What a migration has in common whichever way it goes: its plan, document by document, and what came of it.

Used by `migrate_govc` and `migrate_git`. A migration overwrites nothing that differs unless it is told to, and what is
there with the right hash is left alone: that is also how it goes on after it was interrupted.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from caiafs.core.types import Change, DocPath, Entry, Signature
from caiafs.store.pieces import BATCH_BYTES, BATCH_DOCUMENTS
from caiafs.sync.identity import Identities


@dataclass(slots=True)
class Migrated:
    """What a migration came to.

    Attributes:
        copied, same: documents (between repositories: references) that were sent, and that were there already.
        differing: what the target has another version of; left as it is unless overwriting was asked for.
        refused: what the target does not take, with its reason.
        notes: what else a person should know.
        is_partial: documents may be missing that nobody could name.
    """

    copied: int = 0
    same: int = 0
    differing: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_partial: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the target has everything that the source has."""
        return not (self.differing or self.refused or self.is_partial)


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done for some documents."""

    changes: tuple[Change, ...]
    same: int
    differing: tuple[DocPath, ...]


def plan_step(
    wanted: Mapping[DocPath, Entry], there: Mapping[DocPath, Entry | None], *, overwrite: bool
) -> Step:
    """Return what brings `there` to `wanted`, path by path."""
    changes: list[Change] = []
    differing: list[DocPath] = []
    same = 0
    for path, entry in wanted.items():
        found = there.get(path)
        if entry.same_content(found):
            same += 1
        elif found is None or overwrite:
            changes.append(Change(path, found if found is None or found.oid else None, entry))
        else:
            differing.append(path)
    return Step(tuple(sorted(changes, key=lambda c: c.path)), same, tuple(differing))


def batches(entries: Mapping[DocPath, Entry]) -> Iterator[dict[DocPath, Entry]]:
    """Yield documents in portions of bounded number and size, in order of their paths."""
    batch: dict[DocPath, Entry] = {}
    size = 0
    for path in sorted(entries):
        entry = entries[path]
        if batch and (len(batch) >= BATCH_DOCUMENTS or size + entry.size_bytes > BATCH_BYTES):
            yield batch
            batch, size = {}, 0
        batch[path] = entry
        size += max(entry.size_bytes, 0)
    if batch:
        yield batch


def writer_id(source: str, target: str) -> str:
    """Return the writer that a migration's commits name: the same for the same two places."""
    return hashlib.sha1(f"migrate\n{source}\n{target}".encode()).hexdigest()[:8]


def operation_id(writer: str, head: str | None, changes: Sequence[Change]) -> str:
    """Return the id of one step; `head` makes two equal steps at different times two operations."""
    digest = hashlib.sha1(repr(head).encode())
    for change in changes:
        after = change.after.oid if change.after else "-"
        digest.update(b"\n%s %s" % (after.encode(), change.path))
    return f"{writer}-migrate-{digest.hexdigest()[:20]}"


def author_now() -> Signature:
    """Return the user who migrates, as the author of its commits."""
    return Identities().signature(os.getuid(), time.time_ns())
