"""Contents and modes in plain text and envelopes: reversible, deterministic, suspicious."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caiafs.backends.govc import codec
from caiafs.core.types import DocPath, GitMode, ObjectId, blob_id

MODES = st.sampled_from([GitMode.FILE, GitMode.EXECUTABLE, GitMode.SYMLINK])
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode()),
    st.text(max_size=50).map(lambda text: codec.MAGIC + text.encode()),
)


@given(mode=MODES, content=CONTENTS)
@example(GitMode.FILE, b"")
@example(GitMode.FILE, codec.MAGIC + b'1,"deleted":true}')
@example(GitMode.EXECUTABLE, codec.encode_tombstone().encode())
@example(GitMode.SYMLINK, b"../elsewhere")
def test_every_content_and_mode_survives(mode, content):
    text = codec.encode_content(mode, content)
    stored = codec.decode_content(text.encode())

    assert text
    assert isinstance(stored, codec.Stored)
    assert stored.content == content
    assert (stored.header.mode, stored.header.blob) == (mode, blob_id(content))
    assert stored.header.size_bytes == len(content)


@given(st.text(min_size=1).map(lambda text: text.encode()))
def test_plain_text_goes_as_it_is(content):
    if content.startswith(codec.MAGIC):
        return

    assert codec.encode_content(GitMode.FILE, content).encode() == content


def test_an_executable_script_stays_legible_for_others():
    text = codec.encode_content(GitMode.EXECUTABLE, b"#!/bin/sh\necho hi\n")

    assert text.startswith('{"caiafs-envelope":1,"blob":')
    assert text.endswith("\n#!/bin/sh\necho hi\n")


def test_a_text_that_looks_like_an_envelope_is_enveloped():
    content = codec.encode_tombstone().encode()

    text = codec.encode_content(GitMode.FILE, content)

    stored = codec.decode_content(text.encode())
    assert isinstance(stored, codec.Stored)
    assert stored.content == content


@given(path=st.binary(min_size=1, max_size=300).filter(lambda p: b"\0" not in p))
def test_an_envelope_holds_any_long_path(path):
    path = DocPath(b"/".join(part or b"x" for part in path.split(b"/")))
    if any(part in {b".", b".."} or len(part) > 255 for part in path.split(b"/")):
        return

    stored = codec.decode_content(codec.encode_content(GitMode.FILE, b"x", path=path).encode())
    gone = codec.decode_content(codec.encode_tombstone(path).encode())

    assert isinstance(stored, codec.Stored)
    assert stored.header.path == path
    assert gone == codec.Tombstone(path)


def test_a_submodule_needs_no_content():
    oid = ObjectId("a" * 40)
    header = codec.Header(GitMode.GITLINK, oid, 0, "none")

    stored = codec.decode_content(codec.encode_header(header).encode())

    assert stored == codec.Stored(header, b"")


@given(st.binary(min_size=1, max_size=40_000))
def test_parts_add_up(content):
    header = codec.Header(GitMode.FILE, blob_id(content), len(content), "parts", 1 << 12)
    pieces = [
        codec.encode_part(content[n * 4096 : (n + 1) * 4096]) for n in range(header.part_count)
    ]

    again = b"".join(codec.decode_part(piece.encode(), header, n) for n, piece in enumerate(pieces))

    assert again == content
    stored = codec.decode_content(codec.encode_header(header).encode())
    assert stored == codec.Stored(header, None)


HEADER = codec.encode_content(GitMode.EXECUTABLE, b"hello")


@pytest.mark.parametrize(
    "text",
    [
        HEADER.replace("hello", "hullo"),
        HEADER + "!",
        HEADER.replace('"size":5', '"size":6'),
        HEADER.replace('"size":5', '"size":-1'),
        HEADER.replace('"size":5', '"size":true'),
        HEADER.replace('"size":5', '"size":' + "9" * 5000),
        HEADER.replace('"size":5', f'"size":{1 << 62}'),
        HEADER.replace("100755", "040000"),
        HEADER.replace("100755", "104755"),
        HEADER.replace("100755", "160000"),
        HEADER.replace("utf-8", "rot13"),
        HEADER.replace("utf-8", "parts"),
        HEADER.replace("utf-8", "none"),
        HEADER.replace("utf-8", "base64"),
        HEADER.replace('"blob":"', '"blob":"../'),
        HEADER.replace('"size"', '"path":"../../etc/passwd","size"'),
        HEADER.replace('"size"', '"path":"a//b","size"'),
        HEADER.replace('"size"', '"path":"a%00b","size"'),
        HEADER.replace('"size"', '"path":["a"],"size"'),
        HEADER.replace('envelope":1', 'envelope":2'),
        '{"caiafs-envelope":',
        '{"caiafs-envelope":1}',
        '{"caiafs-envelope":1,"deleted":"yes"}',
        '{"caiafs-envelope":' + "[" * 20_000,
        '{"caiafs-envelope":1,"x":' + "[" * 15_000 + "]" * 15_000 + "}",
        '{"caiafs-envelope":1,"x":"' + "x" * codec.HEADER_MAX_BYTES + '"}',
        codec.encode_header(codec.Header(GitMode.FILE, ObjectId("a" * 40), 9, "parts", 7)),
    ],
)
def test_a_damaged_or_hostile_envelope_is_refused(text):
    with pytest.raises(codec.DecodeError):
        codec.decode_content(text.encode())


def test_a_part_of_the_wrong_size_is_refused():
    header = codec.Header(GitMode.FILE, ObjectId("a" * 40), 5000, "parts", 4096)

    with pytest.raises(codec.DecodeError):
        codec.decode_part(codec.encode_part(b"x" * 4095).encode(), header, 0)
    with pytest.raises(codec.DecodeError):
        codec.decode_part(b"\xff\xfe", header, 0)
