"""A proxy between caiafs and a real govc server that spoils what a script says.

    proxy.play("ok ok 503 timeout torn ok", on="POST .*/commits$")

One word for each request that `on` matches; requests that do not match, or come after the last word, pass unharmed.

    ok        passes                               reset     is reset before the server sees it
    slow      passes, the answer a little late     timeout   the server never sees it, nobody answers
    twice     reaches the server twice             cut       is done, then reset instead of an answer
    503, 429  any status: not done, and said so    lost      is done, nobody answers
    done503   any status: done, and denied         torn      is done, half of the answer comes
    garbled   is done, the answer is no JSON       empty     is done, the answer is {}
    echo      is done, the answer is the one before it, whatever that was about
    mixed     is done, the answer is the one before it and its own behind that, as the real server does
"""

import contextlib
import json
import re
import socket
import struct

import trio

LATE_S = 0.15
_NEVER_SEEN = {"reset", "timeout"}
_NEVER_ANSWERED = {"cut", "lost"}
_BODIES = {"garbled": b'{"hash": "', "empty": b"{}"}


class FaultProxy:
    """Listens on a port of its own and passes HTTP requests on to `port`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._script: list[str] = []
        self._on = re.compile("")
        self._last_answer = b""
        self._played = trio.Event()
        self.port = 0
        self.seen: list[str] = []
        """Requests, as "METHOD target", with the word that each met."""
        self.times: list[float] = []
        """When each of them came, on trio's clock."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_played(self) -> None:
        """Wait until every word has met its request."""
        await self._played.wait()

    def play(self, script: str, *, on: str = "") -> None:
        """Spoil what comes from now on, by `script`, replacing an earlier one."""
        self._script = script.split()
        self._on = re.compile(on)
        self._played = trio.Event()
        if not self._script:
            self._played.set()

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)

    async def _serve(self, client: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with client:
                while request := await _receive(client):
                    word = self._word_for(request)
                    if not await self._spoil(word, request, client):
                        return

    def _word_for(self, request: bytes) -> str:
        named = " ".join(request.split(b"\r\n", 1)[0].decode().split(" ")[:2])
        word = self._script.pop(0) if self._script and self._on.search(named) else "ok"
        if not self._script:
            self._played.set()
        self.seen.append(f"{named} {word}")
        self.times.append(trio.current_time())
        return word

    async def _spoil(self, word: str, request: bytes, client: trio.SocketStream) -> bool:
        """Do what `word` says; return whether the connection goes on."""
        if word in _NEVER_SEEN:
            return await _break_off(word, client)
        if word.isdigit():
            await client.send_all(_answer(int(word)))
            return True
        answer = await self._forward(request)
        if word == "twice":
            await self._forward(request)
        if word in _NEVER_ANSWERED or not answer:
            return await _break_off(word, client)
        if word == "torn":
            head, _, body = answer.partition(b"\r\n\r\n")
            await client.send_all(head + b"\r\n\r\n" + body[: len(body) // 2])
            return False
        if word == "slow":
            await trio.sleep(LATE_S)
        await client.send_all(self._reworded(word, answer))
        return True

    def _reworded(self, word: str, answer: bytes) -> bytes:
        if word.startswith("done"):
            return _answer(int(word[4:]))
        if word in _BODIES:
            return _with_body(answer, _BODIES[word])
        before, self._last_answer = self._last_answer, answer
        if word == "echo":
            return before or answer
        if word == "mixed":
            return _with_body(before or answer, _plain_body(before or answer) + _plain_body(answer))
        assert word in {"ok", "slow", "twice"}, f"no such fault: {word}"
        return answer

    async def _forward(self, request: bytes) -> bytes:
        """Return the server's answer, b"" where it is not there."""
        head, _, body = request.partition(b"\r\n\r\n")
        lines = [x for x in head.split(b"\r\n") if not x.lower().startswith(b"connection:")]
        sent = b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body
        answer = b""
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self._target) as server:
                # A server that takes no more (413) answers before it has read all.
                with contextlib.suppress(trio.BrokenResourceError):
                    await server.send_all(sent)
                async for chunk in server:
                    answer += chunk
        except (OSError, trio.BrokenResourceError):
            if b"\r\n\r\n" not in answer:
                return b""
        # It closes after each; the client may go on.
        return _with_body(answer, _plain_body(answer)) if answer else b""


async def _receive(stream: trio.SocketStream) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = await stream.receive_some()
        if not chunk:
            return b""
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while len(body) < int(found[1] if found else 0):
        chunk = await stream.receive_some()
        if not chunk:
            return b""
        body += chunk
    return head + b"\r\n\r\n" + body


async def _break_off(word: str, client: trio.SocketStream) -> bool:
    """End the connection: by a reset, or by silence until the other end has had enough."""
    if word in {"timeout", "lost"}:
        while await client.receive_some():
            pass
    else:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _answer(status: int) -> bytes:
    body = json.dumps({"error": "spoiled", "code": f"SPOILED_{status}"}).encode()
    extra = b"Retry-After: 1\r\n" if status == 429 else b""
    return (
        b"HTTP/1.1 %d Spoiled\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
        % (status, extra, len(body))
    ) + body


def _plain_body(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    plain = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        plain, body = plain + body[:length], body[length + 2 :]
    return plain


def _with_body(answer: bytes, body: bytes) -> bytes:
    head = answer.partition(b"\r\n\r\n")[0]
    left_out = (b"content-length:", b"transfer-encoding:", b"connection:")
    lines = [x for x in head.split(b"\r\n") if not x.lower().startswith(left_out)]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body
