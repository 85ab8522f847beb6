"""Where the op log is cut into commits."""

from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.types import DocPath, blob_id
from caiafs.state.ops import Op, OpKind
from caiafs.sync.groups import GroupLimits, plan_group

LIMITS = GroupLimits(documents=1000, size_bytes=1 << 20, trailer_bytes=1 << 20)


def put(path, content="1", *, replaced=None, uid=0, size=1):
    return _op(
        OpKind.PUT, path, oid=blob_id(content.encode()), replaced=replaced, uid=uid, size=size
    )


def remove(path, *, aside=False):
    return _op(OpKind.REMOVE, path, replaced=blob_id(b"old"), aside=aside)


def move(path, target, *, replaced=None):
    return _op(OpKind.MOVE, path, target=target, replaced=replaced)


def exchange(path, target):
    return _op(OpKind.EXCHANGE, path, target=target)


def _op(kind, path, *, target=None, oid=None, replaced=None, uid=0, size=0, aside=False):
    return Op(
        seq=0,
        kind=kind,
        path=DocPath(path.encode()),
        target=DocPath(target.encode()) if target else None,
        mode=0o100644,
        oid=oid,
        size_bytes=size,
        content_id=None,
        replaced=replaced,
        ino=0,
        uid=uid,
        program="",
        time_ns=0,
        aside=aside,
    )


def cut(*ops, **limits):
    """Return the sizes of all groups that `ops` make."""
    bounds = GroupLimits(
        limits.get("documents", 1000),
        limits.get("size_bytes", 1 << 20),
        limits.get("trailer_bytes", 1 << 20),
        limits.get("coalesce", False),
    )
    sizes, left = [], list(ops)
    while left:
        sizes.append(plan_group(left, bounds))
        left = left[sizes[-1] :]
    return sizes


OLD = blob_id(b"old")


def test_nothing_makes_no_group():
    assert plan_group([], LIMITS) == 0


def test_different_documents_share_a_group():
    assert cut(put("a"), put("b"), put("c")) == [3]


def test_second_version_of_a_document_opens_a_group():
    assert cut(put("f", "1"), put("f", "2"), put("f", "3")) == [1, 1, 1]


def test_same_content_again_is_no_version():
    assert cut(put("f", "1"), put("f", "1")) == [2]


def test_another_author_opens_a_group():
    assert cut(put("a", uid=1), put("b", uid=2), put("c", uid=1)) == [1, 1, 1]


def test_sed_in_place_is_one_step():
    dance = (put("sedX", "new"), move("sedX", "f", replaced=OLD))

    assert cut(*dance) == [2]


def test_two_saves_by_rename_are_two_groups_cut_before_the_temporary_file():
    first = (put("t1", "1"), move("t1", "f", replaced=OLD))
    second = (put("t2", "2"), move("t2", "f", replaced=OLD))

    assert cut(put("other"), *first, *second) == [3, 2]


def test_vims_backup_by_rename_is_one_step():
    save = (remove("f"), put("f", "2"))

    assert cut(put("f", "1", replaced=OLD), *save) == [1, 2]


def test_new_file_that_goes_again_does_not_cut():
    assert cut(put("a"), put("tmp"), remove("tmp"), put("b")) == [4]


def test_first_version_is_not_buried_by_its_rename_to_an_editors_backup():
    assert cut(put("f", "1"), remove("f", aside=True), put("f", "2")) == [1, 2]


def test_saved_version_is_not_buried_by_its_removal():
    assert cut(put("f", "2", replaced=OLD), remove("f")) == [1, 1]


def test_saved_version_is_not_buried_by_a_rename_over_it():
    assert cut(put("f", "2", replaced=OLD), move("g", "f", replaced=OLD)) == [1, 1]


def test_version_is_followed_through_a_rename():
    assert cut(put("a", "1"), move("a", "b"), put("b", "2")) == [2, 1]


def test_version_is_followed_through_a_directory_rename():
    assert cut(put("d/a", "1"), move("d", "e"), put("e/a", "2")) == [2, 1]


def test_versions_are_followed_through_an_exchange():
    assert cut(put("a", "1"), exchange("a", "b"), put("a", "2"), put("b", "3")) == [3, 1]


def test_bounds_cut():
    ops = [put(f"f{n}", str(n), size=10) for n in range(10)]

    assert cut(*ops, documents=4) == [4, 4, 2]
    assert cut(*ops, size_bytes=30) == [3, 3, 3, 1]


def test_one_op_beyond_the_bounds_is_a_group_of_its_own():
    assert cut(put("big", size=100), put("small", size=1), size_bytes=50) == [1, 1]


def test_bound_does_not_part_a_save_dance():
    ops = (put("a"), put("b"), put("sedX", "n"), move("sedX", "f", replaced=OLD), put("c"))

    assert cut(*ops, documents=3) == [2, 3]


def test_bound_does_not_part_a_backup_by_rename():
    ops = (put("a"), put("b"), remove("f"), put("f", "n"))

    assert cut(*ops, documents=3) == [2, 2]


def test_names_that_make_a_long_message_cut():
    ops = [put("d/" + "x" * 200 + str(n)) for n in range(10)]

    assert cut(*ops, trailer_bytes=1000) == [3, 3, 3, 1]


def test_too_much_waiting_coalesces_versions():
    assert cut(put("f", "1"), put("f", "2"), put("f", "3"), coalesce=True) == [3]


PATHS = st.sampled_from(["a", "b", "d", "d/x", "d/y", "e"])
OPS = st.one_of(
    st.builds(put, PATHS, st.sampled_from("123456"), replaced=st.sampled_from([None, OLD])),
    st.builds(remove, PATHS),
    st.builds(move, PATHS, PATHS, replaced=st.sampled_from([None, OLD])),
    st.builds(exchange, PATHS, PATHS),
)


@given(st.lists(OPS, max_size=30), st.integers(1, 10))
def test_every_op_is_in_exactly_one_group(ops, documents):
    sizes = cut(*ops, documents=documents)

    assert sum(sizes) == len(ops)
    assert all(0 < size <= documents for size in sizes)
