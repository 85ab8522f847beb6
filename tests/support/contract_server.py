"""A small reference service of the contract in `caiafs.backends.govc.dialects.contract`: stdlib, real sockets, in memory.

`ContractServer` runs it in a thread. Knobs: `max_request`, `refuse` (names it will not hold), `token` (then everything else is 401).
"""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from caiafs.backends.govc import GovcSettings
from caiafs.core.types import blob_id

MODES = {"100644", "100755", "120000"}


class ApiError(Exception):
    def __init__(self, status, code, details=None):
        super().__init__(code)
        self.status, self.code, self.details = status, code, details


class Repository:
    """Files and log of one repository."""

    def __init__(self):
        self.files = {}
        self.commits = []

    def head(self):
        return self.commits[0]["hash"] if self.commits else ""

    def commit(self, body, refuse):
        files, deletions = body.get("files") or [], body.get("deletions") or []
        if (not files and not deletions) or not body.get("message"):
            raise ApiError(400, "INVALID_REQUEST")
        operation = body.get("operation_id")
        for known in self.commits:
            if operation and known["operation_id"] == operation:
                return 200, known
        if body.get("parent") not in {None, self.head()}:
            raise ApiError(409, "PARENT_MISMATCH")
        new = dict(self.files)
        for file in files:
            new[file["path"]] = self.held(file, refuse)
        for path in deletions:
            new.pop(path, None)
        self.files = new
        commit = {
            "message": body["message"],
            "author": body["author"],
            "email": body["email"],
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "parent": self.head(),
            "operation_id": operation,
        }
        seed = json.dumps([commit, len(self.commits)]).encode()
        commit["hash"] = hashlib.sha1(seed).hexdigest()
        self.commits.insert(0, commit)
        return 201, commit

    def held(self, file, refuse):
        path, encoding, mode = file["path"], file["encoding"], file.get("mode", "100644")
        if path in refuse:
            raise ApiError(422, "DOCUMENT_REFUSED", {"path": path})
        if encoding not in {"utf-8", "base64"} or mode not in MODES:
            raise ApiError(400, "INVALID_REQUEST")
        text = file["content"]
        content = text.encode() if encoding == "utf-8" else base64.b64decode(text, validate=True)
        return content, mode, file.get("kind", "")

    def describe(self, path):
        content, mode, kind = self.files[path]
        oid = blob_id(content)
        return {"path": path, "mode": mode, "size": len(content), "hash": oid, "kind": kind}

    def show(self, path):
        if path not in self.files:
            raise ApiError(404, "FILE_NOT_FOUND")
        content = self.files[path][0]
        try:
            told = {"content": content.decode(), "encoding": "utf-8"}
        except UnicodeDecodeError:
            told = {"content": base64.b64encode(content).decode(), "encoding": "base64"}
        return self.describe(path) | told


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Service"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply()

    def do_POST(self):
        self.reply()

    def reply(self):
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        try:
            status, answer = self.route(raw)
        except ApiError as exc:
            status = exc.status
            answer = {"error": exc.code.lower(), "code": exc.code, "details": exc.details}
        except (KeyError, ValueError, TypeError) as exc:
            status, answer = 400, {"error": repr(exc), "code": "INVALID_REQUEST"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def route(self, raw):
        service = self.server
        if service.token and self.headers.get("Authorization") != f"Bearer {service.token}":
            raise ApiError(401, "UNAUTHORIZED")
        if len(raw) > service.max_request:
            raise ApiError(413, "REQUEST_TOO_LARGE", {"max_size": service.max_request})
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with service.lock:
            return self.act(url.path.split("/")[1:], query, raw)

    def act(self, parts, query, raw):
        match [self.command, *parts]:
            case ["GET", "health"]:
                return 200, {"status": "healthy"}
            case ["POST", "api", "v1", "repos"]:
                self.server.repositories.setdefault(json.loads(raw)["id"], Repository())
                return 201, {"id": json.loads(raw)["id"]}
            case ["GET", "api", "v1", "repos", name]:
                self.repository(name)
                return 200, {"id": name}
            case ["POST", "api", "v1", "repos", name, "commits"]:
                return self.repository(name).commit(json.loads(raw), self.server.refuse)
            case ["GET", "api", "v1", "repos", name, "commits"]:
                return 200, {"commits": self.repository(name).commits[: int(query["limit"])]}
            case ["GET", "api", "v1", "repos", name, "files"]:
                return 200, self.files(self.repository(name), query)
        raise ApiError(404, "ENDPOINT_NOT_FOUND")

    def files(self, repository, query):
        if "path" in query:
            return repository.show(query["path"])
        listed = [repository.describe(path) for path in sorted(repository.files)]
        return {"head": repository.head(), "files": listed}

    def repository(self, name):
        try:
            return self.server.repositories[name]
        except KeyError:
            raise ApiError(404, "REPO_NOT_FOUND") from None


class Service(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, max_request, refuse, token):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.repositories: dict[str, Repository] = {}
        self.max_request, self.refuse, self.token = max_request, refuse, token

    def handle_error(self, request, client_address):
        """Say nothing: clients that hang up are the tests' doing."""


class ContractServer:
    """The service on a free port of 127.0.0.1, until `stop`."""

    def __init__(self, *, max_request=10 * 1024 * 1024, refuse=(), token=""):
        self.service = Service(max_request, set(refuse), token)
        self._thread = threading.Thread(target=self.service.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.server_port}"

    def forget(self) -> None:
        """Lose every repository, as a restart of the real server does."""
        with self.service.lock:
            self.service.repositories.clear()

    def stop(self) -> None:
        self.service.shutdown()
        self._thread.join()
        self.service.server_close()

    def settings(self, **changes) -> GovcSettings:
        """Return settings for a backend of this service."""
        return GovcSettings(**{"url": self.url, "repo_name": "docs", **changes})


ContractServers = Callable[..., ContractServer]


@pytest.fixture
def contract_servers() -> Iterator[ContractServers]:
    """Return a function that runs a reference service for this test."""
    made: list[ContractServer] = []

    def make(**options) -> ContractServer:
        made.append(ContractServer(**options))
        return made[-1]

    yield make
    for server in made:
        server.stop()
