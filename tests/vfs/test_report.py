"""A mount tells how it is, above all where something is damaged."""

from types import SimpleNamespace

import pytest

from caiafs.core.errors import StateCorrupt
from caiafs.mount_report import Reporter
from caiafs.store_link import StoreLink

DOCUMENTS = {b"f": b"old", b"d/a": b"a"}


def a_reporter(world):
    link = StoreLink("{}")
    link.tie(world.mount)
    reporter = Reporter(world.mount, link)
    reporter.operations = SimpleNamespace(requests={}, broken_requests=0)
    return reporter


def lose_root_tree(world, _monkeypatch):
    """Have git lack the tree of the root, which nobody has looked into."""
    world.root_inode.oid = "12" * 20
    assert world.root_inode.children is None


def damage_state_db(world, monkeypatch):
    """Have SQLite find damage wherever it looks."""
    world.table.children(world.root_inode)
    world.root_inode.children = None

    def damaged(*_):
        raise StateCorrupt("malformed")

    monkeypatch.setattr(world.db, "rows", damaged)


@pytest.mark.parametrize("harm", [lose_root_tree, damage_state_db])
async def test_report_is_made_though_the_root_cannot_be_read(a_world, monkeypatch, harm):
    world = a_world(DOCUMENTS)
    reporter = a_reporter(world)
    harm(world, monkeypatch)

    told = reporter.report()

    assert told.shadowed == ()
    assert told.repository == str(world.config.repository)
