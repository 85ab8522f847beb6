"""Two mounts that save at once: govc compares nothing, the later one wins there, and ours is not lost.

The other mount's commit says which version it replaces; it is written here by hand, so that it comes just then.
"""

import pytest

from caiafs.core.types import blob_id
from tests.store.test_publish_govc import settings
from tests.support.store_world import a_world

pytestmark = pytest.mark.govc


async def published(world, path, *texts):
    for text in texts:
        world.put(path, text)
        await world.stored()
        await world.sync()


def saved_elsewhere(path, text, *, saw):
    """Return the message of a mount that replaced `saw` by `text`."""
    old, new = blob_id(saw.encode()), blob_id(text.encode())
    return f"Update {path}\n\nCaiafs-Operation: feedf00d-1-1\nCaiafs-Change: {old} {new} {path}\n"


async def test_version_that_was_overwritten_unseen_is_kept_beside(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await published(world, "f.txt", "base\n", "ours\n")

        peek.write({"f.txt": "theirs\n"}, saved_elsewhere("f.txt", "theirs\n", saw="base\n"))

        await world.wait_for(lambda: world.content("f.txt") == "theirs\n", "theirs to win")
        [copy] = [path for path in world.tree() if path.startswith(b"f.conflict-")]
        assert world.content(copy.decode()) == "ours\n"
        await world.wait_for(world.agrees, "the mount to agree")
        await world.sync()
        assert peek.text("f.txt") == "theirs\n"
        assert peek.text(copy.decode()) == "ours\n"


async def test_overwritten_lines_are_merged_back_where_that_is_clean(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await published(world, "f", "1\n2\n3\n4\n5\n", "1\n2\n3\n4\nfive\n")

        theirs = "one\n2\n3\n4\n5\n"
        peek.write({"f": theirs}, saved_elsewhere("f", theirs, saw="1\n2\n3\n4\n5\n"))

        merged = "one\n2\n3\n4\nfive\n"
        await world.wait_for(lambda: world.content("f") == merged, "both edits")
        await world.wait_for(world.agrees, "the mount to agree")
        await world.sync()
        assert peek.text("f") == merged


async def test_commit_that_saw_ours_simply_replaces_it(tmp_path, server, peek):
    async with a_world(tmp_path, **settings(server)) as world:
        await published(world, "f.txt", "base\n", "ours\n")

        peek.write({"f.txt": "theirs\n"}, saved_elsewhere("f.txt", "theirs\n", saw="ours\n"))

        await world.wait_for(lambda: world.content("f.txt") == "theirs\n", "theirs")
        assert list(world.tree()) == [b"f.txt"]
