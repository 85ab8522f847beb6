"""Backends on real servers: every dialect under one fixture, closed and stopped after each test."""

from collections.abc import AsyncIterator, Callable

import pytest

from caiafs.backends.govc import GovcBackend
from tests.support.contract_server import ContractServers, contract_servers
from tests.support.govc_documents import Contents
from tests.support.govc_server import GovcServer, GovcServers, govc_servers

__all__ = ["contract_servers", "govc_servers"]

REAL = {
    "v2-memory": {"architecture": "new", "storage": "memory"},
    "v2-disk": {"architecture": "new", "storage": "disk"},
    "v1-memory": {"architecture": "old", "storage": "memory"},
    "v1-disk": {"architecture": "old", "storage": "disk"},
}


@pytest.fixture
def contents() -> Contents:
    """Return where the backends of this test get their contents."""
    return Contents()


Connect = Callable[..., GovcBackend]


@pytest.fixture
async def backends(contents: Contents) -> AsyncIterator[Connect]:
    """Return a function that makes a backend of a server; each is closed at the end."""
    made: list[GovcBackend] = []

    def make(server, **settings) -> GovcBackend:
        made.append(GovcBackend(server.settings(**settings), contents))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()


@pytest.fixture(params=list(REAL))
def server(request: pytest.FixtureRequest, govc_servers: GovcServers) -> GovcServer:
    """Return each form of the real server in turn."""
    return govc_servers(**REAL[request.param])


@pytest.fixture(params=["v2-memory", "v2-disk"])
def v2_server(request: pytest.FixtureRequest, govc_servers: GovcServers) -> GovcServer:
    """Return the new architecture, in memory and on disk."""
    return govc_servers(**REAL[request.param])


@pytest.fixture(params=["v1-memory", "v1-disk"])
def v1_server(request: pytest.FixtureRequest, govc_servers: GovcServers) -> GovcServer:
    """Return the old architecture, in memory and on disk."""
    return govc_servers(**REAL[request.param])


@pytest.fixture(params=[*REAL, "contract"])
def any_server(request: pytest.FixtureRequest):
    """Return each form of the real server and the contract's reference service in turn."""
    if request.param == "contract":
        make: ContractServers = request.getfixturevalue("contract_servers")
        return make()
    return request.getfixturevalue("govc_servers")(**REAL[request.param])
