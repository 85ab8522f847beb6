import os

from caiafs.cache.disk import trim


def a_blob(directory, name: str, *, size: int, used_s: int):
    path = directory / name[:2] / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used_s, used_s))
    return path


def test_the_blobs_used_longest_ago_go_first(tmp_path):
    old = a_blob(tmp_path, "aa1", size=60, used_s=1)
    newer = a_blob(tmp_path, "ab2", size=30, used_s=2)
    newest = a_blob(tmp_path, "bb3", size=40, used_s=3)

    left = trim(tmp_path, 100)

    assert left == 70
    assert not old.exists()
    assert newer.exists()
    assert newest.exists()


def test_a_cache_below_its_bound_is_left_alone(tmp_path):
    blob = a_blob(tmp_path, "aa1", size=100, used_s=1)

    assert trim(tmp_path, 100) == 100
    assert blob.exists()
