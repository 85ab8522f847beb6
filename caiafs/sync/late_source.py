"""Where the git backend gets contents from: a part that is made with its help, so it is given later.

Used by `sync.assembly` only.
"""

from caiafs.core.types import ObjectId
from caiafs.sync.contents import Contents


class LateSource:
    """The content source that the git backend is built with: it is part of what it is given later."""

    _contents: Contents

    def become(self, contents: Contents) -> None:
        """Read from `contents` from now on."""
        self._contents = contents

    async def read(self, oid: ObjectId) -> bytes:
        """Return a whole content; see `core.types.ContentSource`."""
        return await self._contents.read(oid)

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        """Return a part of a content."""
        return await self._contents.read_range(oid, start, stop)

    async def size(self, oid: ObjectId) -> int:
        """Return a content's length."""
        return await self._contents.size(oid)
