"""The real govc server for tests: started on a free port, killed, restarted, paused at will.

Use the fixture factory `govc_servers` (imported by a conftest): `server = govc_servers(storage="disk", architecture="old")`.
"""

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from caiafs.backends.govc import GovcSettings
from tests.support.requirements import require

PROJECT = Path(__file__).resolve().parent.parent.parent
START_LIMIT_S = 60.0


def _load_script():
    """Load scripts/govc-server, which knows how to find and configure the server."""
    loader = importlib.machinery.SourceFileLoader(
        "govc_server_script", str(PROJECT / "scripts" / "govc-server")
    )
    # No cached bytecode beside an executable script.
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(Path(loader.path).read_bytes(), loader.path, "exec"), module.__dict__)
    return module


_script = _load_script()


def find_server() -> str:
    """Return the server's binary; skip, or fail where everything is required, without one."""
    found = _script.find_server()
    require(found, "the govc server is not here; `scripts/govc-server` says how to build it")
    assert found is not None
    return str(found)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now.

    It is none of those that outgoing connections get: one of them would keep a server that is away from coming back, and
    whoever asks for a server that is away is connected to itself when its own port happens to be the server's.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = range(10_000, low) if low > 11_000 else range(high + 1, 65_536)
    while True:
        port = secrets.choice(ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class GovcServer:
    """One server process; it keeps its port over restarts and loses everything else."""

    def __init__(
        self,
        scratch: Path,
        *,
        storage: str = "memory",
        architecture: str = "new",
        auth: bool = False,
        max_request: int = 10 * 1024 * 1024,
    ) -> None:
        self._binary = find_server()
        self._scratch = scratch
        self.storage, self.architecture, self.auth = storage, architecture, auth
        self.max_request = max_request
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> "GovcServer":
        """Start it and wait until it answers."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        config = self._scratch / "govc.yaml"
        config.write_text(
            _script.config_text(
                self.port,
                storage=self.storage,
                architecture=self.architecture,
                auth=self.auth,
                max_request=self.max_request,
                disk=str(self._scratch / "repositories"),
            )
        )
        with (self._scratch / "govc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-config", str(config)], stdout=log, stderr=log
            )
        limit = time.monotonic() + START_LIMIT_S
        while not _script.answers(self.port):
            if self._process.poll() is not None or time.monotonic() > limit:
                self.stop()
                pytest.fail(f"govc did not start: {self.log()}", pytrace=False)
            time.sleep(0.01)
        return self

    def log(self) -> str:
        """Return what the server printed."""
        return (self._scratch / "govc.log").read_text(errors="replace")[-2000:]

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it; SIGKILL by default, as outages do. Safe when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        process.wait()

    def restart(self, *, architecture: str | None = None) -> None:
        """End it and start it again on its port: empty, as the real one is."""
        self.stop()
        self.architecture = architecture or self.architecture
        self.start()

    def pause(self) -> None:
        """Make it hang: connections are accepted by the kernel and never answered."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads stop one after the other; one that still runs answers.
        limit = time.monotonic() + START_LIMIT_S
        while not self._is_stopped():
            assert time.monotonic() < limit, "the server does not stop"
            time.sleep(0.001)

    def _is_stopped(self) -> bool:
        states = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(state.read_text().rpartition(") ")[2].startswith("T") for state in states)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def login(self) -> str:
        """Return a JWT of the built-in user (auth on)."""
        answer = self._post("/api/v1/auth/login", {"username": "admin", "password": "admin"})
        return str(answer["token"])

    def api_key(self) -> str:
        """Return a fresh API key of the built-in user (auth on)."""
        bearer = {"Authorization": f"Bearer {self.login()}"}
        with urllib.request.urlopen(f"{self.url}/api/v1/auth/csrf-token", timeout=30) as reply:
            csrf = {"X-CSRF-Token": json.load(reply)["csrf_token"]}
        fields: dict[str, object] = {"name": "test", "permissions": ["read", "write"]}
        return str(self._post("/api/v1/apikeys", fields, **bearer, **csrf)["key"])

    def _post(self, target: str, fields: dict[str, object], **headers: str):
        request = urllib.request.Request(
            self.url + target,
            data=json.dumps(fields).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def settings(self, **changes) -> GovcSettings:
        """Return settings for a backend of this server."""
        return GovcSettings(**{"url": self.url, "repo_name": "docs", **changes})


GovcServers = Callable[..., GovcServer]


@pytest.fixture
def govc_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GovcServers]:
    """Return a function that starts a real govc server for this test: `govc_servers(storage="disk")`."""
    made: list[GovcServer] = []

    def make(**options) -> GovcServer:
        server = GovcServer(tmp_path_factory.mktemp("govc"), **options)
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.stop()
