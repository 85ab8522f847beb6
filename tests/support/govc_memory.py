"""A program that sends a large document to a server and fetches it back, and tells how much memory each way took.

`python -m tests.support.govc_memory URL SIZE_BYTES FILE` prints JSON: RSS in bytes before, and its peak in each direction.
A process of its own, so that nothing else counts; the content is made up as it is asked for.
"""

import hashlib
import json
import os
import sys
import threading
from pathlib import Path

import trio

from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.types import DocPath, Entry, GitMode, ObjectId, blob_id
from tests.support.govc_documents import a_change_set

BLOCK = 1 << 16
PATH = DocPath(b"large.bin")


class MadeUpContent:
    """A ContentSource of one content that is nowhere as a whole; any other is empty."""

    def __init__(self, size: int) -> None:
        self._size = size
        digest = hashlib.sha1(b"blob %d\0" % size)
        for start in range(0, size, BLOCK):
            digest.update(self._make(start, min(start + BLOCK, size)))
        self.oid = ObjectId(digest.hexdigest())

    def _make(self, start: int, stop: int) -> bytes:
        numbers = range(start // 32, -(-stop // 32))
        made = b"".join(hashlib.sha256(b"%d" % number).digest() for number in numbers)
        return made[start % 32 : start % 32 + stop - start]

    async def read(self, oid: ObjectId) -> bytes:
        return await self.read_range(oid, 0, self._size) if oid == self.oid else b""

    async def read_range(self, _oid: ObjectId, start: int, stop: int) -> bytes:
        return self._make(start, min(stop, self._size))

    async def size(self, _oid: ObjectId) -> int:
        return self._size


class Peak:
    """The largest RSS of this process while it lasts, sampled."""

    def __enter__(self) -> "Peak":
        self.rss_bytes = rss_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._ended.wait(0.002):
            self.rss_bytes = max(self.rss_bytes, rss_bytes())

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()


def rss_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def measure(url: str, size: int, target: Path) -> dict[str, int]:
    """Return the figures, after checking that what came back is what was sent."""
    source = MadeUpContent(size)
    backend = GovcBackend(GovcSettings(url, "docs", request_timeout_s=120.0), source)
    await backend.connect()
    # One small document first: what is loaded for any request is no cost of a large one.
    small = Entry(GitMode.FILE, blob_id(b""), 0)
    await backend.commit(a_change_set({b"small": small, PATH: None}, operation="w-0-1"))
    before = rss_bytes()
    with Peak() as sending:
        entry = Entry(GitMode.FILE, source.oid, size)
        result = await backend.commit(a_change_set({PATH: entry}, operation="w-1-1"))
    with Peak() as fetching, target.open("wb") as file:
        found = await backend.read_to(PATH, file)
    await backend.aclose()
    assert result.refused == ()
    assert found == entry, found
    return {"before": before, "sending": sending.rss_bytes, "fetching": fetching.rss_bytes}


def main(url: str, size: int, target: Path) -> None:
    figures = trio.run(measure, url, size, target)
    assert target.stat().st_size == size
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
