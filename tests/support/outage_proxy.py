"""A proxy that can be turned into every kind of outage, in front of a govc server that nobody here may stop.

    proxy.be("hang")   accepts, reads, never answers        proxy.be("down")     nobody listens
    proxy.be("reset")  resets what comes                    proxy.be("headers")  sends headers and then nothing
    proxy.be("503")    any status; 429 says Retry-After     proxy.be("slow")     every answer `slow_s` late
    proxy.be("pass")   passes everything on

In threads, so that tests of real mounts and scripts/bench can use it. What was connected before a change is cut off.
"""

import contextlib
import json
import re
import socket
import struct
import threading
import time

from tests.support.govc_server import free_port

WORDS = {"pass", "hang", "down", "reset", "headers", "slow"}
RETRY_AFTER_S = 2
_HEADERS_ONLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\r\n"


class OutageProxy:
    """Listens on a port of its own and passes connections on to `host`:`port`, as long as it is not told otherwise."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, slow_s: float = 2.0) -> None:
        self._target = (host, port)
        self.slow_s = slow_s
        self._word = "pass"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port = self._listener.getsockname()[1]
        self.times: list[float] = []
        """When each request came since the last `be`, by time.monotonic."""
        self._stopped = threading.Event()
        self._changed = threading.Event()
        self._listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> int:
        """Return how many requests have come since the last `be`."""
        return len(self.times)

    def be(self, word: str) -> None:
        """Treat what comes from now on by `word`; connections that are open end."""
        assert word in WORDS or word.isdigit(), word
        before, self._word = self._word, word
        self.times = []
        self._changed.set()
        self._changed = threading.Event()
        with self._lock:
            for connection in self._open:
                _reset(connection)
            self._open.clear()
        if word == "down":
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        elif before == "down":
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._listen()

    def stop(self) -> None:
        """End it."""
        self._stopped.set()
        if self._word != "down":
            self.be("down")

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        changed = self._changed
        try:
            with contextlib.suppress(OSError):
                while request := _receive(client):
                    self.times.append(time.monotonic())
                    if not self._answer(client, request, changed):
                        return
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()

    def _answer(self, client: socket.socket, request: bytes, changed: threading.Event) -> bool:
        """Do with one request what the word says; return whether the connection goes on."""
        word = self._word
        if word == "reset":
            _reset(client)
            return False
        if word in {"hang", "headers"}:
            if word == "headers":
                client.sendall(_HEADERS_ONLY)
            changed.wait()
            return False
        if word.isdigit():
            client.sendall(_status(int(word)))
            return True
        if word == "slow":
            changed.wait(self.slow_s)
        client.sendall(self._forward(request))
        return False

    def _forward(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        lines = [x for x in head.split(b"\r\n") if not x.lower().startswith(b"connection:")]
        answer = b""
        with socket.create_connection(self._target, timeout=30) as server:
            server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
            while piece := server.recv(1 << 16):
                answer += piece
        return answer


def _receive(client: socket.socket) -> bytes:
    """Return one request, b"" at the end."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(1 << 16)
        if not piece:
            return b""
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while len(body) < int(found[1] if found else 0):
        piece = client.recv(1 << 16)
        if not piece:
            return b""
        body += piece
    return head + b"\r\n\r\n" + body


def _status(status: int) -> bytes:
    body = json.dumps({"error": "an outage", "code": f"OUTAGE_{status}"}).encode()
    extra = f"Retry-After: {RETRY_AFTER_S}\r\n" if status == 429 else ""
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
