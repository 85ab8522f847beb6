"""A git host that speaks http: git's own http-backend behind a password."""

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that was ended closes its connection."""


class GitHttpServer:
    """Serves the repositories below `root` on 127.0.0.1 to who knows user and password, in a thread.

    Attributes:
        seen: the Authorization header of each request, None where it had none.
        hold: cleared, a request that is authorised waits.
    """

    def __init__(self, root, *, user="ada", password="topsecret"):
        self.seen = []
        self.hold = threading.Event()
        self.hold.set()
        self.held = threading.Event()
        wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                given = self.headers.get("Authorization")
                outer.seen.append(given)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if given != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="docs"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                outer.held.set()
                outer.hold.wait(20)
                self._serve(body)

            do_POST = do_GET

            def _serve(self, body):
                url = urlsplit(self.path)
                environment = os.environ | {
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": url.path,
                    "QUERY_STRING": url.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "REMOTE_USER": user,
                }
                done = subprocess.run(
                    ["git", "http-backend"], input=body, env=environment, capture_output=True
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                lines = [line.split(": ", 1) for line in head.decode().splitlines()]
                status = next((value for name, value in lines if name == "Status"), "200 OK")
                self.send_response(int(status.split()[0]))
                for name, value in lines:
                    if name != "Status":
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, path, credentials=""):
        at = f"{credentials}@" if credentials else ""
        return f"http://{at}127.0.0.1:{self.port}/{path}"

    def close(self):
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
