"""What the store process says of the stores: documents held, documents lacking, heads."""

import pytest

from caiafs.core.config import BackendName
from tests.store.test_publish_govc import connected, govc_report, settings
from tests.support.store_world import a_world


def git_report(world):
    return world.report.get("backends", {}).get("git", {})


async def test_documents_of_git_are_counted_from_an_existing_tree_and_go_on(tmp_path):
    async with a_world(tmp_path) as world:
        for number in range(30):
            world.put(f"d{number % 3}/f{number}", str(number))
        assert await world.stored() == ""
        await world.wait_for(lambda: git_report(world).get("documents") == 30, "30 documents")

    async with a_world(tmp_path) as world:
        await world.wait_for(lambda: git_report(world).get("documents") == 30, "30 documents")
        world.remove("d1")
        world.put("new", "1")
        assert await world.stored() == ""

        await world.wait_for(lambda: git_report(world)["documents"] == 21, "21 documents")
        await world.wait_for(lambda: git_report(world)["head"] == world.head(), "git's head")


@pytest.mark.govc
async def test_documents_of_govc_are_those_that_it_holds_after_a_restart_too(
    tmp_path, server, peek
):
    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)
        for number in range(10):
            world.put(f"f{number}", str(number))
        assert await world.stored() == ""
        await world.sync()
        await world.wait_for(lambda: govc_report(world)["documents"] == 10, "10 documents")

    async with a_world(tmp_path, **settings(server)) as world:
        await connected(world)

        await world.wait_for(lambda: govc_report(world)["documents"] == 10, "10 documents")
        assert govc_report(world)["head"] == peek.log(1)[0]["hash"]


@pytest.mark.govc
@pytest.mark.parametrize("primary", list(BackendName))
async def test_documents_that_govc_lacks_are_counted_while_it_is_away(tmp_path, server, primary):
    more = {"primary_backend": primary}
    async with a_world(tmp_path, **settings(server, **more)) as world:
        await connected(world)
        for number in range(5):
            world.put(f"f{number}", str(number))
        assert await world.stored() == ""
        await world.sync()
        server.stop()
        for number in range(3, 12):
            world.put(f"f{number}", f"again {number}")
        assert await world.stored() == ""

        await world.wait_for(lambda: govc_report(world)["behind"] == 9, "9 documents behind")
        assert govc_report(world)["documents"] == 5
        await world.wait_for(lambda: git_report(world)["documents"] == 12, "12 documents")
