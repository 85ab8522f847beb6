"""A certificate of one's own, and a server that speaks TLS in front of a plain one."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path

from tests.support.requirements import require_tool


def make_certificate(where: Path) -> Path:
    """Return a self-signed certificate of 127.0.0.1 with its key, in one file below `where`."""
    require_tool("openssl")
    key, certificate, both = where / "key.pem", where / "certificate.pem", where / "server.pem"
    options = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", key, "-out", certificate]
    subprocess.run(["openssl", *options.split(), *names, *files], check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


class TlsFront:
    """Takes TLS connections on a port of its own and passes what comes to `port`, until `stop`.

    Attributes:
        heard: everything that clients sent, once decrypted.
    """

    def __init__(self, port: int, certificate: Path) -> None:
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.heard = bytearray()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(plain,), daemon=True).start()

    def _pass_on(self, plain: socket.socket) -> None:
        try:
            with (
                self._context.wrap_socket(plain, server_side=True) as client,
                socket.create_connection(("127.0.0.1", self._target)) as server,
            ):
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                while piece := client.recv(65536):
                    self.heard += piece
                    server.sendall(piece)
        except OSError:
            plain.close()

    def stop(self) -> None:
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
