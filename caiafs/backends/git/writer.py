"""Making objects durable: few of them loose, many as one pack, large blobs in pieces.

Used by `backend`. All methods wait in threads of one limiter, so that the loop goes on; when one returns, what it
wrote is on disk. git's `hash-object` reads a pipe into memory whole, hence a pack of our own for large blobs too.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import trio

from caiafs.backends.git.loose import write_loose
from caiafs.backends.git.pack import NewObject, PackWriter, write_pack
from caiafs.backends.git.repository import Repository
from caiafs.core.errors import Corrupt, NotFound, Unreachable
from caiafs.core.types import ContentSource, ObjectId

LOOSE_MAX_OBJECTS = 3
"""Above this a pack, which costs three fsyncs where a loose object costs two: 2 against 7 ms for a saved document
with its directories (8 objects), 8 against 46 ms on a busy disk. `backend` sees to it that packs stay few."""

STREAM_ABOVE_BYTES = 16 << 20
_PIECE_BYTES = 4 << 20
_TOUCH_INTERVAL_S = 60.0
_VERIFY_MAX_BYTES = 1 << 20
_TRIES = 4

T = TypeVar("T")


class ObjectWriter:
    """Writes objects of one repository; counts packs in `packs_written`, for upkeep."""

    def __init__(self, repository: Repository) -> None:
        self._object_dir = repository.write_dir
        self._reader = repository.reader
        self._packs_touched = -_TOUCH_INTERVAL_S
        self.packs_written = 0
        self._limiter = trio.CapacityLimiter(1)

    def freshen(self, oid: ObjectId) -> bool:
        """Whether the blob is here already; if so it counts as new, for a gc that runs meanwhile.

        A loose one that is damaged is removed: the caller has the content and writes it again.
        """
        if not self._reader.exists(oid):
            return False
        loose = self._object_dir / oid[:2] / oid[2:]
        try:
            if self._reader.size(oid) <= _VERIFY_MAX_BYTES:
                self._reader.read_blob(oid)
            os.utime(loose)
        except NotFound:
            return False
        except Corrupt:
            loose.unlink(missing_ok=True)
            return False
        except OSError:
            self._freshen_packs()
        return True

    def _freshen_packs(self) -> None:
        """Touch the packs, all of them: finding out which one holds an object costs more."""
        now = time.monotonic()
        if now - self._packs_touched < _TOUCH_INTERVAL_S:
            return
        self._packs_touched = now
        for pack in (self._object_dir / "pack").glob("pack-*.pack"):
            with contextlib.suppress(OSError):
                os.utime(pack)

    async def write(self, objects: list[NewObject]) -> None:
        """Make `objects` durable.

        Raises:
            Unreachable: the disk did not take them.
        """
        distinct = list({item.oid: item for item in objects}.values())
        if not distinct:
            return
        if len(distinct) <= LOOSE_MAX_OBJECTS:
            await self._in_thread(_write_again, write_loose, self._object_dir, distinct)
            return
        await self._in_thread(_write_again, write_pack, self._object_dir, distinct)
        self.packs_written += 1

    async def write_large(self, oid: ObjectId, size: int, source: ContentSource) -> None:
        """Make one blob of `size` bytes durable, a few MiB in memory at a time.

        Raises:
            Corrupt: the source's bytes are not what `oid` names; nothing was written.
            NotFound: the source does not have it.
            Unreachable: the disk did not take it.
        """
        pack = await self._in_thread(PackWriter, self._object_dir, 1)
        try:
            pack.begin(b"blob", size)
            for start in range(0, size, _PIECE_BYTES):
                piece = await source.read_range(oid, start, min(start + _PIECE_BYTES, size))
                await self._in_thread(pack.feed, piece)
            if pack.end() != oid:
                raise Corrupt(
                    f"the content of {oid} is not what its id says",
                    backend="git",
                    operation="commit",
                )
            await self._in_thread(pack.finish)
        finally:
            pack.abandon()

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            return await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter)
        except OSError as exc:
            raise Unreachable(
                f"cannot write to the repository: {exc}", backend="git", operation="commit"
            ) from exc


def _write_again(
    write: Callable[[Path, list[NewObject]], object], directory: Path, objects: list[NewObject]
) -> None:
    """Write once more what the user's `git gc --prune=now` removed before it had its name."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            write(directory, objects)
            return
    write(directory, objects)
