"""Contents too large for memory: published from their spool files, loaded into the disk cache."""

import os

from caiafs.core.types import Entry, GitMode, blob_id
from caiafs.link.messages import LoadRequest
from caiafs.state import paths
from caiafs.state.extents import Extents
from tests.support.store_world import a_world

MIB = 1 << 20


def edited(content, edits, size):
    """Return `content` after `edits` (offset, bytes), then cut or filled up to `size`."""
    made = bytearray(content.ljust(size, b"\0"))
    for offset, piece in edits:
        made[offset : offset + len(piece)] = piece
    return bytes(made[:size].ljust(size, b"\0"))


def put_over(world, path, base, edits, size):
    """Save what `edits` make of the published content `base`, as a spool file over it."""
    extents = Extents(base=blob_id(base), base_size=len(base))
    spool = f"{world.last_seq:016x}"
    with (paths.spool(world.state_dir) / spool).open("wb") as file:
        for offset, piece in edits:
            file.seek(extents.plan_place(offset, len(piece)))
            file.write(piece)
            extents.place(offset, len(piece))
    extents.truncate(size)
    extents.seal()
    row = world.db.execute(
        "INSERT INTO content (size,spool,extents) VALUES (?,?,?)",
        (size, spool, extents.to_bytes()),
    ).lastrowid
    content = edited(base, edits, size)
    entry = Entry(GitMode.FILE, blob_id(content), size)
    replaced = world.shown[path].oid
    world.shown[path] = entry
    world._op("put", path, entry=entry, content=row, replaced=replaced)
    return content


def git_bytes(world, path):
    return os.fsencode(world.git("cat-file", "blob", f"main:{path}"))


async def test_blob_above_what_is_read_in_memory_is_loaded_whole(tmp_path):
    content = os.urandom(1 * MIB) * 20
    async with a_world(tmp_path) as world:
        world.put("big", content)
        assert await world.stored() == ""

        done = await world.process.request(LoadRequest(0, blob_id(content)))

        assert (done.error, done.size_bytes) == ("", len(content))
        cached = paths.cached_blob(world.state_dir, blob_id(content))
        assert blob_id(cached.read_bytes()) == blob_id(content)


async def test_blob_that_is_nowhere_is_an_error_and_leaves_no_file(tmp_path):
    async with a_world(tmp_path) as world:
        world.put("f", "1")
        assert await world.stored() == ""

        done = await world.process.request(LoadRequest(0, blob_id(b"never stored")))

        assert done.error
        assert not list(paths.cache(world.state_dir).rglob("*.partial"))


async def test_large_file_edited_in_place_is_published_as_it_reads(tmp_path):
    base = os.urandom(1 * MIB) * 20
    edits = [(5, b"start"), (7 * MIB - 3, b"across a piece"), (20 * MIB, b"appended")]
    async with a_world(tmp_path) as world:
        world.put("big", base)
        assert await world.stored() == ""

        content = put_over(world, b"big", base, edits, 20 * MIB + 8)
        assert await world.stored() == ""

        assert world.tree()[b"big"].oid == blob_id(content)
        assert blob_id(git_bytes(world, "big")) == blob_id(content)


async def test_small_file_cut_and_grown_again_reads_zeros_where_nothing_was_written(tmp_path):
    base = b"0123456789" * 20_000
    async with a_world(tmp_path) as world:
        world.put("f", base)
        assert await world.stored() == ""

        cut = put_over(world, b"f", base, [(3, b"xyz")], 100)
        assert await world.stored() == ""
        grown = put_over(world, b"f", cut, [(200, b"far")], 500)
        assert await world.stored() == ""

        assert git_bytes(world, "f") == grown
        assert grown[100:200] == bytes(100)
        assert world.agrees()
