"""How saved attributes lie in a git tree: one that mirrors the documents' directories.

Used by `sync.attributes`, which writes it, and through `SavedTrees` by the mount process. Synchronous, small objects.

A directory's attributes are the blob `%caia-attributes`; those of a directory with thousands of names are spread over
`%caia-attributes.00000007` and so on by a checksum of the name, so that one changed file rewrites one of them. No
directory can be called that: a name that begins with `%caia-` is stored escaped (see `names`).
"""

import zlib
from collections.abc import Mapping, Sequence

from caiafs.backends.git import names
from caiafs.backends.git.objects import ObjectReader, RawEntry, format_tree
from caiafs.backends.git.pack import NewObject, new_object
from caiafs.core.errors import Corrupt
from caiafs.core.types import EMPTY_TREE, GitMode, ObjectId

META_REF = "refs/caia/meta"
ATTRIBUTES = names.PREFIX + b"attributes"
LINKS = names.PREFIX + b"links"
DOCUMENTS = names.PREFIX + b"documents"
_PART_ENTRIES = 256
_BLOB_MAX_BYTES = 32 << 20
_DIRECTORY_MAX_BYTES = 128 << 20
_FILE = b"%o" % GitMode.FILE
_DIRECTORY = b"%o" % GitMode.DIRECTORY


class SavedTrees:
    """Reads trees of saved attributes."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader

    def read(self, tree: ObjectId) -> tuple[list[bytes], dict[bytes, ObjectId]]:
        """Return a directory's attribute blobs, and its subtrees by the names that they show.

        Raises:
            NotFound: an object is not here.
            Corrupt: it cannot be read, or is absurdly large.
        """
        entries = self._reader.raw_tree(tree)
        subtrees = {
            names.unescape(entry.name): ObjectId(entry.oid.hex())
            for entry in entries
            if entry.is_dir
        }
        blobs: list[bytes] = []
        total = 0
        for entry in entries:
            if not entry.is_dir and entry.name.startswith(ATTRIBUTES):
                blobs.append(self._blob(entry))
                total += len(blobs[-1])
            if total > _DIRECTORY_MAX_BYTES:
                raise Corrupt("saved attributes are absurdly large", backend="git")
        return blobs, subtrees

    def read_links(self, tree: ObjectId) -> bytes | None:
        """Return the blob that tells of hard links, None where there is none; raises as `read`."""
        found = [entry for entry in self._reader.raw_tree(tree) if entry.name == LINKS]
        return self._blob(found[0]) if found else None

    def read_documents(self, tree: ObjectId) -> dict[bytes, bytes]:
        """Return the blobs that tell of document ids, by what follows their common name; raises as `read`."""
        return {
            entry.name.removeprefix(DOCUMENTS): self._blob(entry)
            for entry in self._reader.raw_tree(tree)
            if not entry.is_dir and entry.name.startswith(DOCUMENTS)
        }

    def _blob(self, entry: RawEntry) -> bytes:
        oid = ObjectId(entry.oid.hex())
        if self._reader.size(oid) > _BLOB_MAX_BYTES:
            raise Corrupt(f"saved attributes {oid} are absurdly large", backend="git")
        return self._reader.read_blob(oid)


def part_of(name: bytes, count: int) -> bytes:
    """Return the blob that holds the attributes of `name` in a directory of `count` names."""
    if count <= 2 * _PART_ENTRIES:
        return ATTRIBUTES
    parts = 1 << (count // _PART_ENTRIES).bit_length()
    return ATTRIBUTES + b".%08x" % (zlib.crc32(name) % parts)


def blob_entries(blobs: Mapping[bytes, bytes]) -> tuple[bytes, list[NewObject]]:
    """Return blobs (by entry name) as raw tree entries and as objects."""
    items = {name: new_object(b"blob", content) for name, content in blobs.items()}
    raw = [RawEntry(_FILE, name, bytes.fromhex(item.oid)) for name, item in items.items()]
    return format_tree(raw), list(items.values())


def directory_tree(own: Sequence[RawEntry], subtrees: Mapping[bytes, ObjectId]) -> NewObject:
    """Return the tree of a directory that has `own` blobs, and subtrees by the names that they show."""
    entries = list(own)
    for name, oid in subtrees.items():
        if oid != EMPTY_TREE:
            unfit = names.is_refused(name) or names.is_special(name)
            stored = names.escape(name) if unfit else name
            entries.append(RawEntry(_DIRECTORY, stored, bytes.fromhex(oid)))
    return new_object(b"tree", format_tree(entries))
