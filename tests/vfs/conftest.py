import pytest

from tests.support.vfs_world import VfsWorld


@pytest.fixture
async def a_world(tmp_path):
    """Return a function that begins the next mount, of new or given documents."""
    made = []

    def begin(documents=None, root=None, **settings):
        world = VfsWorld(root or tmp_path / "m0", documents, **settings)
        made.append(world)
        return world

    yield begin
    for world in made:
        world.close()
