"""Handlers, called as pyfuse3 calls them, without a kernel."""

import errno
import os
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

from caiafs.fuse.caia import CaiaDirectory
from caiafs.fuse.convert import Presentation
from caiafs.fuse.operations import CaiaOperations
from caiafs.vfs import importing
from caiafs.virtual.nodes import VirtualDirectory
from tests.support.vfs_world import VfsWorld

WHO = SimpleNamespace(uid=os.getuid(), gid=os.getgid(), pid=0, umask=0)
MANY = {b"big/%03d" % number: b"x" for number in range(300)}


@pytest.fixture
async def a_mount(tmp_path):
    """Return a function that makes a world and the handlers over it."""
    worlds = []

    def make(documents):
        world = VfsWorld(tmp_path / "m", documents)
        worlds.append(world)
        caia = CaiaDirectory(
            VirtualDirectory(b".caia", {}), visible=False, changes=lambda: 0, news=lambda: 0
        )
        shown = Presentation.from_config(world.config)
        return world, CaiaOperations(world.mount.parts(), caia, shown, read_only=False)

    yield make
    for world in worlds:
        world.close()


@pytest.mark.parametrize(
    ("flags", "error"),
    [(os.O_CREAT | os.O_WRONLY, errno.ESTALE), (os.O_CREAT | os.O_EXCL, errno.EEXIST)],
)
async def test_creating_what_somebody_else_made_since_has_the_kernel_look_again(
    a_mount, flags, error
):
    world, operations = a_mount({b"f": b"x"})
    await world.remote.apply(*world.foreign({b"new": b"theirs"}))

    with pytest.raises(pyfuse3.FUSEError) as refused:
        await operations.create(1, b"new", 0o644, flags, WHO)

    assert refused.value.errno == error
    assert await world.read(b"new") == b"theirs"


@pytest.mark.parametrize("request_", ["lookup", "opendir", "rmdir"])
async def test_first_look_at_a_large_directory_lets_others_go_on(a_mount, monkeypatch, request_):
    monkeypatch.setattr(importing, "SLICE", 10)
    world, operations = a_mount(MANY)
    big = world.find(b"big").ino
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        if request_ == "lookup":
            assert (await operations.lookup(big, b"001", WHO)).st_ino
        elif request_ == "opendir":
            await operations.opendir(big, WHO)
        else:
            with pytest.raises(pyfuse3.FUSEError) as refused:
                await operations.rmdir(1, b"big", WHO)
            assert refused.value.errno == errno.ENOTEMPTY
        nursery.cancel_scope.cancel()

    assert turns >= len(MANY) // 10
