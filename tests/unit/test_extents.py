from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.types import ObjectId
from caiafs.state.extents import Extents

BASE = bytes(range(1, 60))
BASE_ID = ObjectId("11" * 20)

actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 80), st.binary(min_size=1, max_size=30)),
        st.tuples(st.just("truncate"), st.integers(0, 100), st.just(b"")),
        st.tuples(st.just("seal"), st.just(0), st.just(b"")),
        st.tuples(st.just("reload"), st.just(0), st.just(b"")),
    ),
    max_size=20,
)


def content_of(extents: Extents, spool: bytes) -> bytes:
    origins = {"spool": spool, "base": BASE, "zero": bytes(1000)}
    out = b""
    for source in extents.plan_read(0, 1 << 40):
        assert source.start == len(out)
        length = source.stop - source.start
        out += origins[source.origin][source.offset : source.offset + length]
    return out


@given(actions)
def test_extents_show_what_was_written_and_closed_versions_never_change(steps):
    extents = Extents(base=BASE_ID, base_size=len(BASE))
    expected = bytearray(BASE)
    spool = bytearray()
    closed: list[tuple[bytes, bytes]] = []
    for action, offset, new in steps:
        if action == "write":
            where = extents.plan_place(offset, len(new))
            extents.place(offset, len(new))
            spool.extend(bytes(max(0, where + len(new) - len(spool))))
            spool[where : where + len(new)] = new
            expected.extend(bytes(max(0, offset - len(expected))))
            expected[offset : offset + len(new)] = new
        elif action == "truncate":
            extents.truncate(offset)
            del expected[offset:]
            expected.extend(bytes(offset - len(expected)))
        elif action == "seal":
            extents.seal()
            closed.append((extents.to_bytes(), bytes(expected)))
        else:
            extents = Extents.from_bytes(extents.to_bytes())

        assert content_of(extents, bytes(spool)) == expected
        assert extents.size == len(expected)
        for packed, content in closed:
            assert content_of(Extents.from_bytes(packed), bytes(spool)) == content


def test_sequential_writes_are_one_piece_and_the_spool_file_is_the_content():
    extents = Extents()

    for block in range(5):
        extents.place(block * 10, 10)

    assert len(extents.pieces) == 1
    assert extents.is_plain_file


def test_a_write_over_unsealed_bytes_reuses_them():
    extents = Extents()
    extents.place(0, 100)

    extents.place(10, 20)

    assert extents.spool_end == 100
