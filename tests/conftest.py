"""What every test shares: real mounts, real documents, the requirement rule, hypothesis profiles."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.govc_server import GovcServer, GovcServers, govc_servers
from tests.support.mount import Mount
from tests.support.requirements import require_fuse
from tests.support.small_disk import a_small_disk

pytest.register_assert_rewrite(
    "tests.model.oracle", "tests.mount.agreement", "tests.support.writer"
)

__all__ = ["govc_servers"]  # a fixture that lives beside its server

MountFactory = Callable[..., Mount]

# CI runs the same examples every time; HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "explore",
    deadline=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


FIGURES = "figures"
"""Name of the property under which a test records a text for the end of the run."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures that tests recorded."""
    for report in terminalreporter.getreports(
        ""
    ):  # what is neither passed nor failed: the ends of tests
        for name, text in report.user_properties:
            if name == FIGURES and report.when == "teardown":
                terminalreporter.write_line(text)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("mount"):
        require_fuse()


class Mounts:
    """Every mount of one test: made on demand, closed and their logs checked at the end."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._made: list[Mount] = []

    def __call__(self, name: str = "", *, start: bool = True, **kwargs: Any) -> Mount:
        mount = Mount(self._base / (name or f"caia{len(self._made)}"), **kwargs)
        self._made.append(mount)
        if start:
            mount.start()
        return mount

    def close(self) -> None:
        for mount in reversed(self._made):
            mount.close()

    def check_logs(self) -> None:
        """Fail when a mount logged a warning that no test asked for."""
        for mount in self._made:
            if bad := mount.unexpected_log_lines():
                first = "\n".join(bad[:5])
                pytest.fail(f"unexpected in the log:\n{first}\n\nthe log:\n{mount.log()[-8000:]}")


@pytest.fixture
def mount_caia(tmp_path: Path, govc_servers: GovcServers) -> Iterator[MountFactory]:
    """Return a function that mounts a scratch CAIA: `mount_caia(options=…, env=…, repo=…)`.

    Asks for `govc_servers` so that servers outlive the mounts that publish to them.
    """
    mounts = Mounts(tmp_path)
    try:
        yield mounts
    finally:
        mounts.close()
    mounts.check_logs()


@pytest.fixture
def caia(mount_caia: MountFactory) -> Mount:
    """Return a mounted CAIA of this test's own, on git alone."""
    return mount_caia()


@pytest.fixture
def patient_caia(mount_caia: MountFactory) -> Mount:
    """Return a mounted CAIA that takes steps up to 5 s apart for one save: so far apart may sed's be on a busy machine."""
    return mount_caia(options=["commit_settle=5s"])


@pytest.fixture(scope="module")
def shared_caia(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """Return a mounted CAIA for all tests of a module that leave it as they found it."""
    require_fuse()
    mounts = Mounts(tmp_path_factory.mktemp("shared"))
    try:
        yield mounts()
    finally:
        mounts.close()
    mounts.check_logs()


@pytest.fixture
def room(shared_caia: Mount, request: pytest.FixtureRequest) -> Path:
    """Return a new directory in the shared mount for this test alone."""
    path = shared_caia.path / f"room-{abs(hash(request.node.nodeid)):x}"
    path.mkdir()
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 24 MiB."""
    with a_small_disk(tmp_path / "disk") as path:
        yield path


@pytest.fixture
def govc(govc_servers: GovcServers) -> GovcServer:
    """Return the real govc server in its default form."""
    return govc_servers()


@pytest.fixture
def caia_on_govc(mount_caia: MountFactory, govc: GovcServer) -> Mount:
    """Return a mounted CAIA that stores in `govc` and git, and notices changes of either fast."""
    return mount_caia(env=govc_environment(govc))


def govc_environment(server: GovcServer) -> dict[str, str]:
    """Return the environment of a mount that uses `server`."""
    return {"GOVC_SERVICE_URL": server.url, "CAIAFS_HEALTH_INTERVAL": "500ms"}
