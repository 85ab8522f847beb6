"""The govc service that the three suites of the CAIA documents run against.

By default the real server, started for each test. `GOVC_SERVICE_URL=... pytest -k govc_service` takes a server of yours, with
GOVC_AUTH_TOKEN where it asks for one; caiafs' own settings for govc (CAIAFS_GOVC_CA_FILE and the like) are passed on. Nothing of yours
is touched: each test makes a repository of its own, named after GOVC_REPO_NAME, and deletes it at the end. What your server would
have to be stopped for is done by a proxy in front of it, or skipped with its reason.
"""

import contextlib
import json
import os
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import MountFactory
from tests.mount.agreement import differences, document_paths
from tests.support.fresh_reader import read_govc
from tests.support.govc_server import GovcServer, GovcServers
from tests.support.mount import Mount
from tests.support.outage_proxy import OutageProxy

URL = os.environ.get("GOVC_SERVICE_URL", "").rstrip("/")
TOKEN = os.environ.get("GOVC_AUTH_TOKEN", "") if URL else ""
REPOSITORY = os.environ.get("GOVC_REPO_NAME", "caia-documents")
PASSED_ON = {name: value for name, value in os.environ.items() if name.startswith("CAIAFS_GOVC_")}


class Service:
    """One repository on the service, and a plain client of it that knows nothing of caiafs.

    Attributes:
        server: the process, None where it is the user's.
    """

    def __init__(self, url: str, server: GovcServer | None, token: str = "") -> None:
        self.url, self.server, self.token = url, server, token
        self.repository = f"{REPOSITORY[:40]}-test-{secrets.token_hex(4)}"

    @property
    def dialect(self) -> str:
        """ "v2" or "v1": what answers."""
        with contextlib.suppress(urllib.error.HTTPError):
            self.ask("GET", f"/api/v2/repos/{self.repository}/commits?limit=1")
            return "v2"
        return "v1"

    def environment(self, url: str = "") -> dict[str, str]:
        """Return the environment of a mount on this repository."""
        told = {"GOVC_SERVICE_URL": url or self.url, "GOVC_REPO_NAME": self.repository}
        token = {"GOVC_AUTH_TOKEN": self.token} if self.token else {}
        return {**told, **token, **PASSED_ON, "CAIAFS_HEALTH_INTERVAL": "500ms"}

    def ask(self, method: str, target: str, fields: dict[str, Any] | None = None) -> Any:
        """Return the answer to one request, as JSON."""
        headers = {"Content-Type": "application/json", **self._credentials()}
        if method != "GET" and self.token:
            headers["X-CSRF-Token"] = self._csrf()
        body = None if fields is None else json.dumps(fields).encode()
        request = urllib.request.Request(
            self.url + target, data=body, headers=headers, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def _credentials(self) -> dict[str, str]:
        if not self.token:
            return {}
        if self.token.startswith("govc_"):
            return {"X-API-Key": self.token}
        return {"Authorization": f"Bearer {self.token}"}

    def _csrf(self) -> str:
        request = urllib.request.Request(
            f"{self.url}/api/v1/auth/csrf-token", headers=self._credentials()
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return str(reply.headers.get("X-CSRF-Token", ""))

    def text(self, path: str) -> str:
        """Return a document's text as the service has it."""
        quoted = urllib.parse.quote(path)
        if self.dialect == "v2":
            return str(
                self.ask("GET", f"/api/v2/repos/{self.repository}/files?path={quoted}")["content"]
            )
        return str(self.ask("GET", f"/api/v1/repos/{self.repository}/read/{quoted}")["content"])

    def log(self) -> list[dict[str, Any]]:
        """Return the service's commits, newest first."""
        names = {"v2": "/api/v2/repos/{}/commits", "v1": "/api/v1/repos/{}/log"}
        target = names[self.dialect].format(self.repository)
        return list(self.ask("GET", f"{target}?limit=500")["commits"])

    def operations(self) -> list[str]:
        """Return the operation of each of our commits, as its trailer says."""
        lines = [line for commit in self.log() for line in commit["message"].splitlines()]
        return [line for line in lines if line.startswith("Caiafs-Operation")]

    def write(self, path: str, text: str) -> None:
        """Commit a document as another client does."""
        root = f"/api/{self.dialect}/repos/{self.repository}"
        add, commit = ("files", "commits") if self.dialect == "v2" else ("add", "commit")
        self.ask("POST", f"{root}/{add}", {"path": path, "content": text})
        author = {"author": "Other Client", "email": "other@example.org"}
        self.ask("POST", f"{root}/{commit}", {"message": "Write as another client", **author})

    def delete(self) -> None:
        """Remove the repository; it was made for the test."""
        with contextlib.suppress(urllib.error.URLError, OSError, ValueError):
            self.ask("DELETE", f"/api/v1/repos/{self.repository}")

    def check_agreement(self, caia: Mount, scratch: Path, *, timeout_s: float = 110) -> None:
        """Check that a clone, and what a new process reads from the service, are what the mount shows."""
        caia.sync(timeout_s=timeout_s)
        paths = document_paths(caia.path)
        number = sum(1 for _ in scratch.glob("clone-*"))
        clone = caia.clone(scratch / f"clone-{number}")
        assert differences(caia.path, clone) == ""
        assert document_paths(clone) == paths
        env = self.environment()
        target = scratch / f"from-govc-{number}"
        read = read_govc(self.url, paths, target, repository=self.repository, env=env)
        assert differences(caia.path, read) == ""
        operations = self.operations()
        assert len(operations) == len(set(operations)), "an operation is in the log twice"


@pytest.fixture(autouse=True)
def _made() -> Iterator[list[Service]]:
    """Return the repositories of this test; they are deleted once its mounts are gone."""
    made: list[Service] = []
    yield made
    for each in made:
        each.delete()


Services = Callable[[], Service]


@pytest.fixture(params=["new", "old"] if not URL else ["yours"])
def services(
    request: pytest.FixtureRequest, govc_servers: GovcServers, _made: list[Service]
) -> Services:
    """Return a function that makes a repository on the server, in each of its two forms, or on the one that GOVC_SERVICE_URL names."""
    server = None if URL else govc_servers(architecture=request.param)

    def make() -> Service:
        _made.append(Service(server.url, server) if server else Service(URL, None, TOKEN))
        return _made[-1]

    return make


@pytest.fixture
def service(services: Services) -> Service:
    """Return a repository of this test's own."""
    return services()


@pytest.fixture
def own_server(service: Service) -> GovcServer:
    """Return the server's process, for what can be done to our own only."""
    if service.server is None:
        pytest.skip("your server is not ours to stop, restart or empty")
    return service.server


@pytest.fixture
def proxy(service: Service) -> Iterator[OutageProxy]:
    """Return a proxy in front of the service, whoever's that is."""
    parts = urlsplit(service.url)
    if parts.scheme != "http":
        pytest.skip("nothing can stand between caiafs and a server that speaks TLS")
    made = OutageProxy(parts.port or 80, parts.hostname or "")
    yield made
    made.stop()


@pytest.fixture
def caia(service: Service, mount_caia: MountFactory) -> Mount:
    """Return a mount on the service."""
    return mount_caia(env=service.environment())
