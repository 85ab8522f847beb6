"""Which rendering of a file in `.caia` a lookup finds: what has happened meanwhile decides, and who looks."""

import os
import time

import pytest

from caiafs.core.errors import NotFound
from caiafs.fuse import caia
from caiafs.fuse.caia import CaiaDirectory
from caiafs.virtual.nodes import DocumentFile, Reader, VirtualDirectory, VirtualFile

COPIER, OTHER = 10, 20


class World:
    """A `.caia` with one file that says how often it was rendered."""

    def __init__(self) -> None:
        self.changes = self.news = self.renderings = 0
        root = VirtualDirectory(b".caia", {b"f": VirtualFile(b"f", self._render)})
        self.caia = CaiaDirectory(
            root, visible=False, changes=lambda: self.changes, news=lambda: self.news
        )
        self._root = self.caia.show(root).st_ino

    def _render(self) -> bytes:
        self.renderings += 1
        return b"%d\n" % self.renderings

    def look(self, pid: int) -> int:
        return int(self.caia.lookup(self._root, b"f", pid).st_ino)

    def open(self, pid: int) -> int:
        ino = self.look(pid)
        self.caia.open(ino, os.O_RDONLY, 0)
        return ino


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world in which no two lookups are parts of one open(2)."""
    monkeypatch.setattr(caia, "_AT_ONCE_NS", -1)
    return World()


def test_nothing_new_is_the_same_file_to_everybody(world: World):
    assert world.look(COPIER) == world.open(OTHER) == world.look(COPIER)


def test_process_that_looked_finds_what_it_saw_whatever_is_heard_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caia, "_ANSWERS_FOR_NS", -1)
    seen = world.look(COPIER)
    world.news += 1

    assert world.open(COPIER) == seen


def test_news_are_seen_by_everybody_else(world: World):
    seen = world.look(COPIER)
    world.news += 1

    assert world.look(OTHER) != seen


def test_news_are_seen_by_a_process_that_reads_again(world: World):
    seen = world.open(COPIER)
    world.news += 1

    assert world.open(COPIER) != seen


def test_what_was_done_through_the_mount_is_seen_at_once(world: World):
    seen = world.look(COPIER)
    world.changes += 1

    assert world.open(COPIER) != seen


def test_clock_that_is_set_back_keeps_no_old_rendering(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    seen = world.look(COPIER)
    world.changes += 1
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns - 3600 * 10**9)

    assert world.look(OTHER) != seen


def test_document_that_is_gone_when_it_is_opened_leaves_no_handle(world: World):
    def gone() -> Reader:
        raise NotFound("it was removed")

    entry = world.caia.show(DocumentFile(b"ours", 1, 0, gone))

    with pytest.raises(NotFound):
        world.caia.open(entry.st_ino, os.O_RDONLY, 0)

    world.caia.forget(entry.st_ino, 1)
    with pytest.raises(NotFound):
        world.caia.getattr(entry.st_ino)
