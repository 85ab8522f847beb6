"""Clean small contents in memory, least recently used first out, bounded in bytes and entries.

Used by vfs.contents on the trio thread. Keyed by blob id, so an entry is right for ever.
"""

from dataclasses import dataclass

from cachetools import LRUCache

from caiafs.core.types import ObjectId

_ENTRY_OVERHEAD_BYTES = 200
"""What Python and the cache itself need for an entry, about."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Entries and bytes now; hits and misses since the mount."""

    entries: int
    size_bytes: int
    max_bytes: int
    hits: int
    misses: int


def _cost_bytes(content: bytes) -> int:
    return len(content) + _ENTRY_OVERHEAD_BYTES


class BlobCache:
    """Blob id to content."""

    def __init__(self, *, max_bytes: int, max_entries: int) -> None:
        self._blobs: LRUCache[ObjectId, bytes] = LRUCache(max_bytes, getsizeof=_cost_bytes)
        self._max_entries = max_entries
        self._max_content = max(0, max_bytes // 4 - _ENTRY_OVERHEAD_BYTES)
        self._hits = 0
        self._misses = 0

    def get(self, oid: ObjectId) -> bytes | None:
        """Return the content, None where it is not here."""
        content = self._blobs.get(oid)
        if content is None:
            self._misses += 1
        else:
            self._hits += 1
        return content

    def put(self, oid: ObjectId, content: bytes) -> None:
        """Keep `content`, unless it would push out a quarter of everything."""
        if len(content) > self._max_content:
            return
        self._blobs[oid] = content
        while len(self._blobs) > self._max_entries:
            self._blobs.popitem()

    def clear(self) -> None:
        """Forget everything."""
        self._blobs.clear()

    def statistics(self) -> CacheStatistics:
        """Return what is here and how often it helped."""
        return CacheStatistics(
            entries=len(self._blobs),
            size_bytes=int(self._blobs.currsize),
            max_bytes=int(self._blobs.maxsize),
            hits=self._hits,
            misses=self._misses,
        )
