"""Real govc servers for the store process."""

import pytest

from tests.support.govc_peek import Peek
from tests.support.govc_server import govc_servers

__all__ = ["govc_servers"]


@pytest.fixture
def server(govc_servers):
    """Return a server in its default form; one that ended by itself says why."""
    made = govc_servers(architecture="new", storage="memory")
    yield made
    if made._process is not None and made._process.poll() is not None:
        pytest.fail(f"govc ended by itself: {made.log()}", pytrace=False)


@pytest.fixture
def peek(server):
    return Peek(server.url)
