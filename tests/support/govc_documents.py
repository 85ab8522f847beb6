"""Contents and change sets for tests of the govc backend."""

from caiafs.core.errors import NotFound
from caiafs.core.types import (
    Change,
    ChangeSet,
    DocPath,
    Entry,
    GitMode,
    ObjectId,
    Signature,
    blob_id,
)

ADA = Signature("Ada Lovelace", "ada@example.org", 1_700_000_000_000_000_000)


class Contents:
    """A ContentSource that holds what a test put in."""

    def __init__(self) -> None:
        self.held: dict[ObjectId, bytes] = {}

    def put(self, content: bytes, mode: int = GitMode.FILE) -> Entry:
        oid = blob_id(content)
        self.held[oid] = content
        return Entry(mode, oid, len(content))

    async def read(self, oid: ObjectId) -> bytes:
        try:
            return self.held[oid]
        except KeyError:
            raise NotFound(f"no blob {oid}") from None

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        return (await self.read(oid))[start:stop]

    async def size(self, oid: ObjectId) -> int:
        return len(await self.read(oid))


def a_change_set(
    changes: dict[bytes, Entry | None],
    *,
    operation: str = "0badcafe-1-1",
    message: str = "Save",
    author: Signature = ADA,
) -> ChangeSet:
    """Return a change set that puts entries and deletes where there is None."""
    steps = (Change(DocPath(path), None, entry) for path, entry in sorted(changes.items()))
    return ChangeSet(
        operation, author, f"{message}\n\nCaiafs-Operation: {operation}\n", tuple(steps)
    )
