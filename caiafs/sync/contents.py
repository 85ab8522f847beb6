"""The bytes of any blob that the publisher has to store, wherever they are now.

Used by both backends and by merges. Looks among contents just merged or fetched, then in the state DB and its
spool, then in git. One trio loop; spool files are read in threads, a few MiB at a time.
"""

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import trio

from caiafs.core.errors import Corrupt, NotFound, StateCorrupt, Unreachable
from caiafs.core.types import ContentSource, Entry, ObjectId, blob_id
from caiafs.state import paths
from caiafs.state.ops import Op
from caiafs.state.reader import StateReader, StoredContent, read_spooled
from caiafs.state.spool import DAMAGE

MERGE_MAX_BYTES = 1 << 20
PARTIAL = ".partial"
_PIECE_BYTES = 4 << 20


class GitObjects(ContentSource, Protocol):
    """What is needed of git: its contents, and putting one into a plain file."""

    async def export(self, oid: ObjectId, target: Path) -> int:
        """Write a blob to a new file."""
        ...


class SmallBlobs(Protocol):
    """Git's small blobs, read in place."""

    def size(self, oid: ObjectId) -> int:
        """Return a blob's length."""
        ...

    def read_blob(self, oid: ObjectId) -> bytes:
        """Return a blob."""
        ...


class Contents:
    """A `ContentSource` over merged contents, the state DB and git."""

    def __init__(
        self, state: StateReader, state_dir: Path, git: GitObjects, git_reader: SmallBlobs
    ) -> None:
        self._state = state
        self._git_reader = git_reader
        self._state_dir = state_dir
        self._git = git
        self._held: dict[ObjectId, bytes] = {}
        self.held_bytes = 0
        """How much `hold` was given since `release` or `give_up`."""
        self._fetched: dict[ObjectId, Path] = {}
        self._rows: dict[ObjectId, int] = {}
        self._limiter = trio.CapacityLimiter(2)
        self._files = 0
        self._doubted: set[ObjectId] = set()

    def hold(self, contents: Mapping[ObjectId, bytes]) -> None:
        """Keep merged or fetched contents until `release`."""
        self._held.update(contents)
        self.held_bytes += sum(map(len, contents.values()))

    def give_up(self) -> dict[ObjectId, bytes]:
        """Hand over what is held: it goes to where it is found afterwards."""
        held, self._held, self.held_bytes = self._held, {}, 0
        return held

    async def fetch(
        self, oid: ObjectId, write: Callable[[BinaryIO], Awaitable[Entry | None]]
    ) -> Entry | None:
        """Have a large content written to a file and hold it like `hold`; None where `write` gives none.

        Memory is what `write` takes. The file becomes the disk cache's, so that a reader in the mount has it at once.
        """
        target = paths.cached_blob(self._state_dir, oid)
        await trio.to_thread.run_sync(_make_directory, target.parent)
        self._files += 1
        partial = target.with_name(f"{oid}.{os.getpid()}-{self._files}{PARTIAL}")
        try:
            with partial.open("xb") as file:
                entry = await write(file)
            if entry is None or entry.oid != oid:
                return None
            await trio.to_thread.run_sync(partial.rename, target)
        except OSError as exc:
            raise Unreachable(f"a document cannot be kept here: {exc.strerror}") from exc
        finally:
            partial.unlink(missing_ok=True)  # a local name
        self._fetched[oid] = target
        return entry

    def expect(self, ops: Iterable[Op]) -> None:
        """Note where the contents of a group are; finding each by its id would scan the op log."""
        self._rows = {op.oid: op.content_id for op in ops if op.oid and op.content_id is not None}

    def release(self) -> None:
        """Forget what was held or expected: git has it."""
        self.give_up()
        self._fetched.clear()
        self._rows.clear()

    async def read(self, oid: ObjectId) -> bytes:
        """Return a whole content, checked where it comes from the spool.

        Raises:
            NotFound: it is nowhere.
            Corrupt: what is here does not match its id.
        """
        await trio.lowlevel.checkpoint()
        held = self._held.get(oid)
        if held is not None:
            return held
        if oid in self._fetched:
            return await self.read_range(oid, 0, await self.size(oid))
        stored = self._stored(oid)
        if stored is None:
            return await self._git.read(oid)
        content = stored.data
        if content is None:
            content = await self._read_whole(stored)
        return content if blob_id(content) == oid else await self._read_elsewhere(oid)

    async def _read_whole(self, stored: StoredContent) -> bytes:
        pieces = []
        for start in range(0, stored.size_bytes, _PIECE_BYTES):
            stop = min(start + _PIECE_BYTES, stored.size_bytes)
            pieces.append(await self._read_spool(stored, start, stop))
        return b"".join(pieces)

    async def _read_elsewhere(self, oid: ObjectId) -> bytes:
        """Return a content that the state directory has other bytes of, if git has it too."""
        try:
            return await self._git.read(oid)
        except NotFound as exc:
            raise Corrupt(f"the saved bytes are not those of {oid}") from exc

    def doubt_base(self, oid: ObjectId) -> bool:
        """Drop the cached blob that a damaged content lies over, once; return whether it may be to blame."""
        stored = self._stored(oid)
        base = stored.extents.base if stored is not None and stored.extents is not None else None
        if base is None or oid in self._doubted:
            return False
        self._doubted.add(oid)
        paths.cached_blob(self._state_dir, base).unlink(missing_ok=True)
        return True

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of a content."""
        await trio.lowlevel.checkpoint()
        held = self._held.get(oid)
        if held is not None:
            return held[start:stop]
        if oid in self._fetched:
            file = self._fetched[oid]
            return await trio.to_thread.run_sync(_read_file, file, range(start, stop))
        stored = self._stored(oid)
        if stored is None:
            return await self._git.read_range(oid, start, stop)
        if stored.data is not None:
            return stored.data[start:stop]
        return await self._read_spool(stored, start, min(stop, stored.size_bytes))

    async def size(self, oid: ObjectId) -> int:
        """Return the length of a content."""
        await trio.lowlevel.checkpoint()
        held = self._held.get(oid)
        if held is not None:
            return len(held)
        if oid in self._fetched:
            return _size_of(self._fetched[oid])
        stored = self._stored(oid)
        return stored.size_bytes if stored is not None else await self._git.size(oid)

    def read_small(self, oid: ObjectId) -> bytes | None:
        """Return a content for a merge, in place; None where it is too large for one, or gone."""
        held = self._held.get(oid)
        if held is not None or oid in self._fetched:
            return held
        try:
            stored = self._stored(oid)
            if stored is None:
                return self._read_small_blob(oid)
            if stored.size_bytes > MERGE_MAX_BYTES:
                return None
            content = stored.data
            if content is None:
                content = _read_span(stored, None, range(stored.size_bytes))
        except (NotFound, Corrupt, StateCorrupt, Unreachable):
            return None
        return content if blob_id(content) == oid else None

    def _read_small_blob(self, oid: ObjectId) -> bytes | None:
        reader = self._git_reader
        return reader.read_blob(oid) if reader.size(oid) <= MERGE_MAX_BYTES else None

    def _stored(self, oid: ObjectId) -> StoredContent | None:
        row = self._rows.get(oid)
        if row is None:
            return self._state.content_with_id(oid)
        try:
            return self._state.content(row)
        except NotFound:
            return None

    async def cache_file(self, oid: ObjectId) -> tuple[Path, int]:
        """Return the disk cache's file of a blob and its length, filling it from git where it is not there.

        The file appears whole or not at all.

        Raises:
            NotFound, Corrupt, Unreachable: as git has it.
        """
        target = paths.cached_blob(self._state_dir, oid)
        size = await self._git.size(oid)
        if await trio.to_thread.run_sync(_has_size, target, size):
            return target, size
        await trio.to_thread.run_sync(_make_directory, target.parent)
        self._files += 1
        partial = target.with_name(f"{oid}.{os.getpid()}-{self._files}{PARTIAL}")
        try:
            await self._git.export(oid, partial)
            await trio.to_thread.run_sync(_check_and_place, partial, target, oid)
        finally:
            partial.unlink(missing_ok=True)  # a local name
        return target, size

    def remove_partial_files(self) -> None:
        """Remove what a killed process left in the disk cache."""
        for file in paths.cache(self._state_dir).glob(f"*/*{PARTIAL}"):
            file.unlink(missing_ok=True)

    async def _read_spool(self, stored: StoredContent, start: int, stop: int) -> bytes:
        assert stored.extents is not None, "a spool file has a map"
        base: Path | None = None
        plan = stored.extents.plan_read(start, stop)
        if any(source.origin == "base" for source in plan) and stored.extents.base is not None:
            base = (await self.cache_file(stored.extents.base))[0]
        return await trio.to_thread.run_sync(
            _read_span, stored, base, range(start, stop), limiter=self._limiter
        )


def _read_span(stored: StoredContent, base: Path | None, span: range) -> bytes:
    assert stored.spool is not None, "it is not inline"
    assert stored.extents is not None, "a spool file has a map"
    if base is None and any(
        s.origin == "base" for s in stored.extents.plan_read(span.start, span.stop)
    ):
        raise NotFound("the base of this content is not in the disk cache")
    spool_fd = base_fd = -1
    try:
        spool_fd = os.open(stored.spool, os.O_RDONLY | os.O_CLOEXEC)
        if base is not None:
            base_fd = os.open(base, os.O_RDONLY | os.O_CLOEXEC)
        return read_spooled(spool_fd, base_fd if base else None, stored.extents, span)
    except StateCorrupt as exc:
        raise Corrupt(str(exc)) from exc
    except OSError as exc:
        if exc.errno in DAMAGE:
            raise Corrupt(f"a spool file is gone or damaged: {exc.strerror}") from exc
        raise Unreachable(f"a spool file cannot be read now: {exc.strerror}") from exc
    finally:
        for fd in (spool_fd, base_fd):
            if fd >= 0:
                os.close(fd)


def _read_file(file: Path, span: range) -> bytes:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as exc:  # trimmed meanwhile
        raise Unreachable(f"{file.name} left the disk cache") from exc
    try:
        return os.pread(fd, len(span), span.start)
    finally:
        os.close(fd)


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as exc:  # trimmed meanwhile
        raise Unreachable(f"{file.name} left the disk cache") from exc


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _check_and_place(partial: Path, target: Path, oid: ObjectId) -> None:
    digest = hashlib.sha1(b"blob %d\0" % partial.stat().st_size)
    with partial.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    if digest.hexdigest() != oid:
        raise Corrupt(f"blob {oid} came out of git as something else", backend="git")
    partial.rename(target)
