"""The cursor of a govc repository: written by several tasks, one after the other."""

from dataclasses import replace

import pytest
import trio

from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core.config import Config
from caiafs.core.types import Change, ChangeSet, DocPath, Signature
from caiafs.store.cursors import Cursor, CursorStore
from caiafs.store.govc_store import GovcStore
from tests.support.git_objects import a_backend
from tests.support.waiting import PATIENCE_S

AUTHOR = Signature("Some Body", "some@example.org", 10**18)


@pytest.fixture
def store(tmp_path):
    """Return a govc store over an empty repository, and the contents that its git backend reads."""
    git, contents = a_backend(tmp_path / "r")
    cursors = CursorStore(git, "http://127.0.0.1:1", "docs")
    config = Config(repository=tmp_path / "r", mountpoint=tmp_path / "mnt")

    def make_backend(*, renewed=False):
        return GovcBackend(GovcSettings("http://127.0.0.1:1"), contents)

    store = GovcStore(make_backend, cursors, config)
    store.cursor = Cursor()
    yield store, contents
    git.contents.close()


def a_step(contents, number):
    entry = contents.put(b"%d" % number)
    return ChangeSet("", AUTHOR, "", (Change(DocPath(b"f"), None, entry),))


async def test_cursor_that_moves_while_it_is_saved_can_be_moved_on(store, monkeypatch):
    govc, contents = store
    git = govc._cursors._git
    move_ref, moves, moved = git.move_ref, trio.Event(), trio.Event()

    async def move_late(*arguments):
        moves.set()
        with trio.move_on_after(0.3):  # as long as it takes to sync
            await moved.wait()
        await move_ref(*arguments)

    await govc.advance_cursor(govc.cursor, a_step(contents, 1), save=False)
    govc.cursor = replace(govc.cursor, newest="unsaved")
    monkeypatch.setattr(git, "move_ref", move_late)
    with trio.fail_after(PATIENCE_S):
        await save_while_it_moves(govc, contents, moves, moved)

    await govc.advance_cursor(govc.cursor, a_step(contents, 3), save=True)
    assert (await govc._cursors.load()).tree == govc.cursor.tree


async def save_while_it_moves(govc, contents, moves, moved):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(govc.save_cursor)
        await moves.wait()
        await govc.advance_cursor(govc.cursor, a_step(contents, 2), save=False)
        moved.set()
