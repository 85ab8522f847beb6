"""Framed messages between the mount process and the store process.

A frame is eight bytes (magic, length) and that many bytes of JSON: `{"t": class, "v": fields}`.
Used by `link.supervisor` and `store_process`. Any task may send; one task receives.
"""

import json
import struct
import typing

import trio

from caiafs.core.errors import CaiaError
from caiafs.link import messages
from caiafs.link.codec import CodecError, from_json, to_json
from caiafs.link.messages import Message

MAX_FRAME_BYTES = 64 * 1024 * 1024
_HEADER = struct.Struct(">4sI")
_MAGIC = b"caia"
_CHUNK_BYTES = 256 * 1024
_KINDS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(messages.Message)}


class LinkError(CaiaError):
    """The other process sent what is no message, or the frame ended half-way."""


class LinkClosed(LinkError):
    """The other process is gone."""


class FrameTooLarge(LinkError):
    """A message of more than MAX_FRAME_BYTES; nothing of it was sent."""


def encode_message(message: Message) -> bytes:
    """Return `message` as one frame."""
    envelope = {"t": type(message).__name__, "v": to_json(message)}
    body = json.dumps(envelope, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"a {envelope['t']} of {len(body)} bytes is too large for the link")
    return _HEADER.pack(_MAGIC, len(body)) + body


def decode_message(body: bytes) -> Message:
    """Return the message in the body of a frame.

    Raises:
        LinkError: it is not one of ours.
    """
    try:
        envelope = json.loads(body)
        kind = _KINDS[envelope["t"]]
        return typing.cast("Message", from_json(kind, envelope["v"]))
    except (ValueError, KeyError, TypeError, CodecError) as exc:
        raise LinkError(f"not a message: {exc!r}") from exc


class Channel:
    """One end of the link."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self._buffer = bytearray()

    async def send(self, message: Message) -> None:
        """Send one message, whole.

        A cancelled send closes the link: half a frame would make nonsense of the next.

        Raises:
            LinkClosed: the other process is gone.
        """
        frame = encode_message(message)
        async with self._sending:
            try:
                await self._stream.send_all(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise LinkClosed("the other process is gone") from exc
            except trio.Cancelled:
                await trio.aclose_forcefully(self._stream)
                raise

    async def receive(self) -> Message | None:
        """Return the next message, None at the end of the stream between two frames.

        Raises:
            LinkError: the stream ended inside a frame, or the frame is not ours.
        """
        if not await self._fill(_HEADER.size):
            if self._buffer:
                raise LinkError("the link ended inside a frame")
            return None
        magic, length = _HEADER.unpack_from(self._buffer)
        if magic != _MAGIC or length > MAX_FRAME_BYTES:
            raise LinkError("the link is out of step: no frame where one was expected")
        if not await self._fill(_HEADER.size + length):
            raise LinkError("the link ended inside a frame")
        body = bytes(memoryview(self._buffer)[_HEADER.size : _HEADER.size + length])
        del self._buffer[: _HEADER.size + length]
        return decode_message(body)

    async def _fill(self, wanted: int) -> bool:
        """Read until the buffer has `wanted` bytes; False when the stream ends before."""
        await trio.lowlevel.checkpoint()
        while len(self._buffer) < wanted:
            try:
                received = await self._stream.receive_some(_CHUNK_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            if not received:
                return False
            self._buffer += received
        return True

    async def aclose(self) -> None:
        """Close this end; the other sees the end of the stream."""
        await self._stream.aclose()
