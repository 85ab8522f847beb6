"""Changes that wait for the rest of their commit take little room and come out as they went in."""

import hashlib
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.types import Change, DocPath, Entry, ObjectId
from caiafs.link import gathered
from caiafs.link.gathered import Gathered

entries = st.none() | st.builds(
    Entry,
    st.sampled_from([0o100644, 0o100755, 0o120000]),
    st.binary(min_size=20, max_size=20).map(lambda raw: ObjectId(raw.hex())),
    st.integers(-1, 1 << 62),
)
changes = st.lists(st.builds(Change, st.binary(min_size=1).map(DocPath), entries, entries))


@given(st.lists(changes, max_size=4))
def test_changes_come_out_as_they_went_in_as_often_as_one_asks(pieces):
    found = Gathered()
    for piece in pieces:
        found.add(piece)
    expected = [change for piece in pieces for change in piece]

    assert len(found) == len(expected)
    assert list(found) == list(found) == expected


def an_entry(number: int) -> Entry:
    return Entry(0o100644, ObjectId(hashlib.sha1(b"%d" % number).hexdigest()))


def test_many_changes_take_a_fraction_of_what_the_objects_take():
    count = 20 * gathered._PIECE
    found = Gathered()
    tracemalloc.start()
    for start in range(0, count, gathered._PIECE):
        piece = [
            Change(DocPath(b"documents/text/%040x" % n), an_entry(n), an_entry(-n))
            for n in range(start, start + gathered._PIECE)
        ]
        objects_bytes = tracemalloc.get_traced_memory()[0] - found.packed_bytes
        found.add(piece)
        del piece
    held = tracemalloc.get_traced_memory()[0]
    assert sum(1 for _ in found) == count
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found.packed_bytes < count * 120
    assert held < found.packed_bytes + 1_000_000
    assert most < held + 5 * objects_bytes  # one piece unpacked at a time
