"""Saving attributes ends in order, whoever waits for it: a database closed under a thread is a crash of the process."""

import threading

import pytest
import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.repository import open_repository
from caiafs.core.config import Config
from caiafs.state.database import StateDatabase
from caiafs.sync.attributes import open_saver
from tests.support.govc_documents import Contents


@pytest.fixture
def saver(tmp_path):
    config = Config(repository=tmp_path / "repo.git", mountpoint=tmp_path / "mnt")
    git = GitBackend(open_repository(config.repository), Contents())
    StateDatabase.open(tmp_path / "state").close()
    return open_saver(config, tmp_path / "state", git, lambda: False)


async def test_databases_are_closed_when_nobody_has_a_thread_in_them(saver, monkeypatch):
    at_work, go_on = threading.Event(), threading.Event()
    compose, saved = saver._compose, []

    def slowly(*arguments):
        at_work.set()
        assert go_on.wait(60)
        return compose(*arguments)

    async def save():
        saved.append(await saver.save())

    monkeypatch.setattr(saver, "_compose", slowly)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(save)
        async with trio.open_nursery() as ending:
            ending.start_soon(saver.run)
            await trio.to_thread.run_sync(at_work.wait, 60)
            ending.cancel_scope.cancel()
            waiting.start_soon(trio.to_thread.run_sync, go_on.set)

    assert saved == [True]
