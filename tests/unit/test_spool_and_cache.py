"""Spool files, the lock of a repository, and the cache of small contents."""

import os

import pytest

from caiafs.cache.memory import BlobCache
from caiafs.core.errors import StateBusy, StateCorrupt, StateFull
from caiafs.core.types import blob_id
from caiafs.state.database import make_private
from caiafs.state.extents import Extents
from caiafs.state.lock import RepositoryLock
from caiafs.state.spool import Spool
from caiafs.vfs.body import BaseMissing, SmallBody, SpoolBody


@pytest.fixture
def spool(tmp_path):
    make_private(tmp_path)
    return Spool(tmp_path)


def test_spool_file_that_is_adopted_is_the_blob_of_the_disk_cache(spool):
    file = spool.create()
    file.write(b"content", 0)
    oid = blob_id(b"content")

    spool.adopt(file.name, oid)

    assert spool.names() == set()
    cached = spool.open_cached(oid, 7)
    assert os.pread(cached.fd, 100, 0) == b"content"


def test_cached_blob_of_another_length_is_removed_and_not_read(spool):
    file = spool.create()
    file.write(b"cont", 0)
    oid = blob_id(b"content")
    spool.adopt(file.name, oid)

    assert spool.open_cached(oid, 7) is None
    assert spool.open_cached(oid, 4) is None


def test_spool_file_that_is_gone_is_damage(spool):
    with pytest.raises(StateCorrupt):
        spool.open("0123456789abcdef")


def test_write_to_a_full_disk_is_state_full(spool):
    file = spool.create()
    file.close()
    file.fd = os.open("/dev/full", os.O_RDWR)

    with pytest.raises(StateFull):
        file.write(b"x", 0)


async def test_synced_spool_file_reads_back(spool):
    file = spool.create()
    file.write(b"content", 0)

    await spool.sync(file)

    assert os.pread(spool.open(file.name).fd, 10, 0) == b"content"


async def test_second_mount_of_a_repository_is_refused_with_the_holder_named(
    tmp_path, autojump_clock
):
    lock = await RepositoryLock.acquire(tmp_path / "lock", timeout_s=0)

    with pytest.raises(StateBusy, match=f"process {os.getpid()} holds"):
        await RepositoryLock.acquire(tmp_path / "lock", timeout_s=1)

    lock.release()
    lock.release()
    (await RepositoryLock.acquire(tmp_path / "lock", timeout_s=0)).release()


def test_cache_is_bounded_in_bytes_and_entries():
    cache = BlobCache(max_bytes=100_000, max_entries=10)
    for number in range(100):
        content = b"%d" % number * 500
        cache.put(blob_id(content), content)

    statistics = cache.statistics()

    assert statistics.entries == 10
    assert statistics.size_bytes <= 100_000


def test_cache_keeps_no_content_that_would_push_out_a_quarter_of_it():
    cache = BlobCache(max_bytes=10_000, max_entries=10)
    content = b"x" * 3000

    cache.put(blob_id(content), content)

    assert cache.get(blob_id(content)) is None
    assert cache.statistics().misses == 1


def test_cache_drops_what_was_least_recently_used():
    cache = BlobCache(max_bytes=100_000, max_entries=2)
    one, two, three = (blob_id(c) for c in (b"1", b"2", b"3"))
    cache.put(one, b"1")
    cache.put(two, b"2")
    cache.get(one)

    cache.put(three, b"3")

    assert (cache.get(one), cache.get(two)) == (b"1", None)


def test_small_body_is_copied_at_the_first_write_only():
    clean = b"clean content"
    body = SmallBody(clean)

    body.write(b"C", 0)
    body.write(b"!", 20)

    assert clean == b"clean content"
    assert body.read(0, 100) == b"Clean content" + bytes(7) + b"!"


def test_spool_body_asks_for_its_base_only_where_it_shows(spool):
    extents = Extents(base=blob_id(b"0123456789"), base_size=10)
    body = SpoolBody(spool.create(), extents)
    body.write(b"abc", 0)

    assert body.read(0, 3) == b"abc"
    with pytest.raises(BaseMissing):
        body.read(0, 4)

    body.give_base(b"0123456789")
    assert body.read(0, 100) == b"abc3456789"


def test_full_disk_leaves_a_spool_body_as_it_was(spool):
    body = SpoolBody(spool.create(), Extents())
    body.write(b"kept", 0)
    good = body.spool.fd
    body.spool.fd = os.open("/dev/full", os.O_RDWR)

    with pytest.raises(StateFull):
        body.write(b"lost", 4)

    os.close(body.spool.fd)
    body.spool.fd = good
    assert (body.size, body.read(0, 10)) == (4, b"kept")
