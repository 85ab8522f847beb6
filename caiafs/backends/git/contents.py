"""Contents of blobs for whoever stores or shows them: small ones in place, large ones through the git command.

Used by `backend`, by the publisher to send to govc what git holds, and to fill the disk cache. Inflating a large
blob in this process holds the GIL (64 MiB: 5.3 s), in a thread too, and takes three times its size in memory.
"""

import os
import tempfile
from pathlib import Path
from typing import IO

import trio

from caiafs.backends.git.command import git_environment, run_git
from caiafs.backends.git.repository import Repository
from caiafs.core.errors import Corrupt, Unreachable
from caiafs.core.types import ObjectId, blob_id

IN_PLACE_BYTES = 1 << 20


class GitContents:
    """The blobs of one repository; a `ContentSource`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._reader = repository.reader
        self._lock = trio.Lock()
        self._unpacked: tuple[ObjectId, IO[bytes]] | None = None
        self._environment = git_environment(repository.object_dir, repository.git_dir)

    async def read(self, oid: ObjectId) -> bytes:
        """Return the whole content, checked against its id."""
        await trio.lowlevel.checkpoint()
        if self._reader.size(oid) <= IN_PLACE_BYTES:
            return self._reader.read_blob(oid)
        content = await self._cat(oid)
        if await trio.to_thread.run_sync(blob_id, content) != oid:
            raise Corrupt(f"blob {oid} is not what its id says", backend="git", operation="read")
        return content

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the content.

        A large blob is unpacked once into an unnamed file, which serves the ranges that follow, up to the last one.
        """
        await trio.lowlevel.checkpoint()
        size = self._reader.size(oid)
        if size <= IN_PLACE_BYTES:
            return self._reader.read_blob(oid)[start:stop]
        async with self._lock:
            if self._unpacked is None or self._unpacked[0] != oid:
                self.close()
                self._unpacked = (oid, await self._unpack(oid))
            piece = await trio.to_thread.run_sync(
                os.pread, self._unpacked[1].fileno(), stop - start, start
            )
            if stop >= size:
                self.close()  # the last range, as a rule: the disk gets its space back
            return piece

    async def size(self, oid: ObjectId) -> int:
        """Return the length of the content in bytes."""
        await trio.lowlevel.checkpoint()
        return self._reader.size(oid)

    async def export(self, oid: ObjectId, target: Path) -> int:
        """Write the content to a new file `target` and return its length; nothing is synced.

        Raises:
            NotFound: it is not here.
            Corrupt: it cannot be read.
            Unreachable: the file cannot be written.
        """
        size = self._reader.size(oid)
        try:
            with target.open("xb") as file:
                await self._cat(oid, file)
        except OSError as exc:
            raise Unreachable(f"cannot write {target}: {exc}", backend="git") from exc
        return size

    def close(self) -> None:
        """Give back the unpacked blob's file. Safe to call twice."""
        if self._unpacked is not None:
            self._unpacked[1].close()
            self._unpacked = None

    async def _unpack(self, oid: ObjectId) -> IO[bytes]:
        try:
            file = tempfile.TemporaryFile(dir=self._repository.write_dir)  # noqa: SIM115 outlives the call
        except OSError as exc:
            raise Unreachable(f"cannot unpack blob {oid}: {exc}", backend="git") from exc
        try:
            await self._cat(oid, file)
        except BaseException:
            file.close()
            raise
        return file

    async def _cat(self, oid: ObjectId, stdout: IO[bytes] | None = None) -> bytes:
        return await run_git(
            self._repository.git_dir,
            "cat-file",
            "blob",
            oid,
            stdout=stdout,
            environment=self._environment,
        )
