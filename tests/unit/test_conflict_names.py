"""Names of conflict copies, and which document a copy belongs to."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caiafs.core.conflicts import conflict_name, find_document, parse_copy_name
from caiafs.core.types import DocPath, blob_id
from caiafs.vfs.conflicts import conflict_key

SECOND = 1_000_000_000
NOON_NS = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()) * SECOND
names = st.binary(min_size=1, max_size=255).filter(
    lambda name: not {0, 0x2F} & set(name) and name not in {b".", b".."}
)


@given(
    name=names,
    content=st.binary(max_size=9),
    length=st.sampled_from([8, 40]),
    others=st.sets(names),
)
def test_a_copy_leads_to_its_document_among_any_names(name, content, length, others):
    oid = blob_id(content)
    copy = conflict_name(DocPath(name), NOON_NS, oid, id_length=length)

    parsed = parse_copy_name(copy)

    assert parsed is not None
    assert parsed.time_ns == NOON_NS
    assert oid.startswith(parsed.blob)
    assert find_document(copy, parsed, {name, copy}) == name
    found = find_document(copy, parsed, {name, copy, *others})
    assert found == name or conflict_name(DocPath(found), NOON_NS, oid, id_length=length) == copy


def test_a_copy_of_a_copy_belongs_to_the_copy():
    first = conflict_name(DocPath(b"a.txt"), NOON_NS, blob_id(b"1"))
    second = conflict_name(DocPath(first), NOON_NS, blob_id(b"2"))

    parsed = parse_copy_name(second)

    assert find_document(second, parsed, {b"a.txt", first, second}) == first


def test_a_copy_whose_document_is_gone_belongs_to_none():
    copy = conflict_name(DocPath(b"a.txt"), NOON_NS, blob_id(b"1"))

    assert find_document(copy, parse_copy_name(copy), {copy, b"a", b"txt"}) is None


@pytest.mark.parametrize(
    "name",
    [
        b"a.txt",
        b".conflict-20261122T120000Z-1a2b3c4d",
        b"a.conflict-20261122T120000Z-1a2b3c4d.two.parts",
        b"a.conflict-20261122T120000Z-1A2B3C4D",
        b"a.conflict-20261122T120000Z-1a2b3c4",
        b"a.conflict-20261322T120000Z-1a2b3c4d",
        b"a.conflict-20261122-1a2b3c4d",
    ],
)
def test_what_only_looks_like_a_copy_is_none(name):
    assert parse_copy_name(name) is None


@given(name=names, path=names)
def test_a_key_prints_and_is_a_name(name, path):
    key = conflict_key(name, DocPath(path))

    assert key.isprintable()
    assert len(key.encode()) < 256
    assert "/" not in key


def test_a_key_shows_the_name_in_any_language_and_tells_directories_apart():
    here, there = (conflict_key("größe.txt".encode(), DocPath(p)) for p in (b"a/x", b"b/x"))

    assert here.startswith("größe.txt.")
    assert here != there
