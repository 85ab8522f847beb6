"""A server that answers what a test wrote down: bytes on a real socket, nothing understood."""

import ssl
from collections.abc import Callable

import trio

Answer = bytes | Callable[[bytes], bytes]


def http(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    """Return an HTTP answer; JSON unless `Content_Type` says otherwise."""
    told = {"Content_Type": "application/json", "Content_Length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} x\r\n{lines}\r\n".encode() + body


class ScriptedServer:
    """Answers requests in turn from `script`, the last one for ever; b"" hangs up, None never answers."""

    def __init__(self, *script: Answer | None, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.script = list(script)
        self.requests: list[bytes] = []
        self.pause_s = 0.0
        """How long it takes a rest in the middle of an answer."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)

    async def _serve(self, plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if self._tls is not None:
            stream = trio.SSLStream(plain, self._tls, server_side=True, https_compatible=True)
        try:
            async with stream:
                while request := await self._receive(stream):
                    self.requests.append(request)
                    answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                    if answer is None:
                        await trio.sleep_forever()
                    elif answer == b"":
                        return
                    else:
                        told = answer(request) if callable(answer) else answer
                        middle = len(told) // 2 if self.pause_s else len(told)
                        await stream.send_all(told[:middle])
                        await trio.sleep(self.pause_s)
                        await stream.send_all(told[middle:])
        except trio.BrokenResourceError:
            pass

    async def _receive(self, stream: trio.abc.Stream) -> bytes:
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = await stream.receive_some()
            if not chunk:
                return b""
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            (
                int(line[15:])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        while len(body) < length:
            body += await stream.receive_some()
        return head + b"\r\n\r\n" + body
