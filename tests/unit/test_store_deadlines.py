"""How long govc may take."""

import pytest
import trio

from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.config import Config
from caiafs.core.errors import DeadlineExceeded
from caiafs.core.types import DocPath
from caiafs.store.govc_store import GovcStore

PATHS = [DocPath(b"d/%d" % number) for number in range(200)]


def a_store(monkeypatch, *, each_s):
    """Return a store whose server takes so long for each document."""

    async def current(_, paths):
        await trio.sleep(each_s * len(paths))
        return dict.fromkeys(paths)

    monkeypatch.setattr(GovcBackend, "current", current)
    config = Config(repository="r", mountpoint="mnt", operation_timeout_s=5.0)

    def make_backend(*, renewed=False):
        return GovcBackend(GovcSettings("http://127.0.0.1:1", "docs"), None)

    return GovcStore(make_backend, None, config)


async def test_documents_that_take_a_while_each_are_looked_at(monkeypatch, autojump_clock):
    store = a_store(monkeypatch, each_s=0.5)

    assert len(await store.current(PATHS)) == len(PATHS)


async def test_documents_that_never_come_are_given_up(monkeypatch, autojump_clock):
    store = a_store(monkeypatch, each_s=10)

    with pytest.raises(DeadlineExceeded):
        await store.current(PATHS)
