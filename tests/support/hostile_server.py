"""The reference service of the contract, turned hostile: whole until a test says what to answer instead.

    server.attack = lambda method, target: [b"HTTP/1.1 200 x\r\n...", ...] or None

What an attack returns is written to the socket as it is, piece by piece, until the other end has had enough.
"""

import functools
import itertools
import json
import zlib
from collections.abc import Callable, Iterable

from tests.support.contract_server import ContractServer, Handler

Attack = Callable[[str, str], Iterable[bytes] | None]
MIB = 1 << 20


class HostileHandler(Handler):
    """Asks the attack first."""

    def reply(self):
        attack = self.server.attack(self.command, self.path)
        if attack is None:
            super().reply()
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.attacked += 1
        self.close_connection = True
        try:
            for piece in attack:
                self.wfile.write(piece)
        except OSError:
            pass  # it had enough


class HostileServer(ContractServer):
    """A contract server with an `attack`; None from it is the honest answer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.service.RequestHandlerClass = HostileHandler
        self.stop_attack()

    @property
    def attacked(self) -> int:
        """How many answers were spoiled."""
        return self.service.attacked

    def start_attack(self, attack: Attack) -> None:
        self.service.attack = attack
        self.service.attacked = 0

    def stop_attack(self) -> None:
        self.start_attack(lambda *_: None)


def answer(body: bytes, **headers: str) -> list[bytes]:
    """Return a 200 with `body`, JSON unless a header says otherwise."""
    told = {"Content_Type": "application/json", "Content_Length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
    return [f"HTTP/1.1 200 x\r\n{lines}\r\n".encode(), body]


def said(value: object) -> list[bytes]:
    """Return a 200 with `value` as JSON."""
    return answer(json.dumps(value).encode())


def endless(**headers: str) -> Iterable[bytes]:
    """Return an answer that never ends."""
    told = {"Content_Type": "application/json"} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
    yield f"HTTP/1.1 200 x\r\n{lines}\r\n".encode()
    yield from itertools.repeat(b'"' + b"a" * MIB)


@functools.cache
def bomb() -> list[bytes]:
    """Return 1 GiB of blanks, deflated."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(b" " * MIB) for _ in range(1024)) + packer.flush()
    return answer(packed, Content_Encoding="gzip")


BODIES: dict[str, Callable[[], Iterable[bytes]]] = {
    "a body without end": endless,
    "a terabyte": lambda: endless(Content_Length=str(1 << 40)),
    "a number of bytes that is none": lambda: answer(b"{}", Content_Length="-1"),
    "a header without end": lambda: [b"HTTP/1.1 200 x\r\nX: ", *[b"a" * MIB] * 64],
    "no JSON": lambda: answer(b'{"hash": '),
    "JSON that is not UTF-8": lambda: answer(b'{"hash": "\xff"}'),
    "a nest": lambda: answer(b"[" * 10_000_000),
    "a swarm": lambda: answer(b"[" + b"[]," * (20 * MIB) + b"[]]"),
    "a number without end": lambda: answer(b"9" * MIB),
    "no number": lambda: answer(b'{"commits": NaN, "files": Infinity}'),
    "a key twice": lambda: answer(b'{"commits": [], "commits": [], "files": [], "files": []}'),
    "a bomb": bomb,
    "an unknown encoding": lambda: answer(b"{}", Content_Encoding="br"),
    "a list": lambda: said([]),
    "a text": lambda: said("hello"),
    "wrong types": lambda: said(
        {"commits": {"a": 1}, "files": "x", "hash": 7, "path": [], "content": {}}
    ),
    "wrong items": lambda: said({"commits": [1], "files": [None, 2]}),
    "a redirect": lambda: [
        b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    ],
}
"""What comes instead of an answer, by name."""
