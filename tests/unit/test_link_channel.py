import json
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from caiafs.core.types import Change, DocPath, Entry, GitMode, ObjectId
from caiafs.link import channel as channel_module
from caiafs.link.channel import (
    Channel,
    FrameTooLarge,
    LinkClosed,
    LinkError,
    decode_message,
    encode_message,
)
from caiafs.link.codec import CodecError, from_json, to_json
from caiafs.link.messages import Changes, Due, Ready, Report, Start, SyncDone, to_path, to_text

BLOB = ObjectId("1" * 40)


def a_pair():
    left, right = trio.testing.memory_stream_pair()
    return Channel(left), Channel(right), right


@pytest.mark.parametrize(
    "message",
    [
        Due(last_seq=7, urgent=True),
        Start(config="{}", state_dir="/x", settled_seq=0, known_commit=None, writer_id="00000001"),
        Ready(commit=BLOB, tree=BLOB),
        SyncDone(request_id=1, left={"git": 0, "govc": 2}, reasons=("govc is away",)),
        Changes(
            commit=BLOB,
            last_seq=9,
            changes=(
                Change(DocPath(b"a/\xff\n"), None, Entry(int(GitMode.FILE), BLOB, 3)),
                Change(DocPath("ü".encode()), Entry(int(GitMode.SYMLINK), BLOB, 3), None),
            ),
            trees={to_text(b"a\xfe"): BLOB},
        ),
    ],
)
async def test_message_arrives_as_it_was_sent(message):
    here, there, _ = a_pair()

    await here.send(message)

    assert await there.receive() == message


def test_any_bytes_survive_as_text():
    path = bytes(range(1, 256))

    assert to_path(json.loads(json.dumps(to_text(path)))) == path


async def test_many_senders_never_mix_their_frames():
    here, there, _ = a_pair()
    seen = []

    async with trio.open_nursery() as nursery:
        for seq in range(50):
            nursery.start_soon(here.send, Report(report=str(seq) * 1000))
        seen.extend([await there.receive() for _ in range(50)])

    assert {message.report for message in seen} == {str(seq) * 1000 for seq in range(50)}


async def test_frame_that_ends_half_way_is_an_error():
    left, right = trio.testing.memory_stream_pair()
    await left.send_all(encode_message(Due(last_seq=1))[:-1])
    await left.aclose()

    with pytest.raises(LinkError, match="inside a frame"):
        await Channel(right).receive()


async def test_end_between_two_frames_is_none():
    here, there, _ = a_pair()
    await here.send(Due(last_seq=1))
    await here.aclose()

    assert await there.receive() == Due(last_seq=1)
    assert await there.receive() is None


async def test_bytes_that_are_no_frame_are_an_error():
    left, right = trio.testing.memory_stream_pair()
    await left.send_all(b"GET / HTTP/1.1\r\n")

    with pytest.raises(LinkError, match="out of step"):
        await Channel(right).receive()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nonsense",
        b'{"t": "Due"}',
        b'{"t": "Nobody", "v": {}}',
        b'{"t": "Due", "v": {"last_seq": "7"}}',
        b'{"t": "Due", "v": {"last_seq": true}}',
        b'{"t": "Due", "v": {"last_seq": 7, "colour": "red"}}',
        b'{"t": "Due", "v": {}}',
        b'{"t": "Due", "v": 7}',
    ],
)
def test_body_that_is_no_message_is_an_error(body):
    with pytest.raises(LinkError):
        decode_message(body)


def test_message_beyond_the_bound_is_not_sent(monkeypatch):
    monkeypatch.setattr(channel_module, "MAX_FRAME_BYTES", 1000)

    with pytest.raises(FrameTooLarge):
        encode_message(Report(report="x" * 1000))


async def test_sending_to_nobody_says_closed():
    here, there, _ = a_pair()
    await there.aclose()

    with pytest.raises(LinkClosed):
        await here.send(Due(last_seq=1))


async def test_large_changes_pass():
    here, there, _ = a_pair()
    entry = Entry(int(GitMode.FILE), BLOB, 3)
    message = Changes(
        BLOB, 1, tuple(Change(DocPath(b"d/%d" % i), None, entry) for i in range(20_000))
    )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, message)
        received = await there.receive()

    assert received == message


def test_codec_refuses_what_has_no_json_form():
    with pytest.raises(CodecError):
        to_json(object())
    with pytest.raises(CodecError):
        from_json(Path, 7)


def test_paths_travel_whatever_the_locale_says(monkeypatch):
    # As in a locale of ISO-8859-1, which Python takes for names unless it is told otherwise.
    monkeypatch.setattr(os, "fsdecode", lambda raw: raw.decode("latin-1"))
    change = Change(DocPath("Übersicht\udcff.txt".encode("utf-8", "surrogateescape")), None, None)
    message = Changes(commit="1" * 40, last_seq=1, changes=(change,))

    assert decode_message(encode_message(message)[8:]) == message
