"""A server that lies, and a store process that uses it."""

from collections.abc import Iterator
from contextlib import asynccontextmanager

import pytest

from tests.support.hostile_server import HostileServer
from tests.support.store_world import a_world

TOKEN = "eyJ0b2tlbiI6MX0.s3cr3t-of-the-tests.c2ln"


@pytest.fixture
def hostile() -> Iterator[HostileServer]:
    """Return an honest server that a test turns."""
    server = HostileServer()
    yield server
    server.stop()


@asynccontextmanager
async def a_world_on(tmp_path, server, **settings):
    """Run a store process on `server`, with time-outs short enough for a test."""
    told = {
        "use_govc": True,
        "govc_url": server.url,
        "govc_repo_name": "docs",
        "operation_timeout_s": 2.0,
        "govc_timeout_s": 4.0,
        "retry_max": 1,
        "retry_backoff_s": 0.05,
        "breaker_reset_s": 0.2,
        "poll_interval_s": 0.2,
        "commit_settle_s": 0.02,
        **settings,
    }
    async with a_world(tmp_path, **told) as world:
        yield world
