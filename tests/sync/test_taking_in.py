"""Taking in what other clients have in govc: much of it, and without filling memory."""

from caiafs.core.types import blob_id
from caiafs.store import govc_store
from caiafs.sync import foreign
from caiafs.sync.contents import Contents
from tests.support.sync_world import Server, a_sync_world
from tests.sync.test_publishing import level, until

SIZE_BYTES = 100_000


async def test_collection_larger_than_what_may_be_held_comes_in_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "HELD_MAX_BYTES", 3 * SIZE_BYTES)
    hold, most = Contents.hold, []

    def hold_and_note(self, contents):
        hold(self, contents)
        most.append(sum(map(len, self._held.values())))

    monkeypatch.setattr(Contents, "hold", hold_and_note)
    server = Server()
    await server.write({b"d/%d" % i: b"%08d" % i * (SIZE_BYTES // 8) for i in range(20)})

    async with a_sync_world(tmp_path, server=server) as world:
        await until(lambda: level(world) and len(world.shown) == 20)
        world.check()

    assert len(most) >= 20
    assert max(most) <= 4 * SIZE_BYTES


async def test_collection_whose_log_is_longer_than_is_read_comes_in_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(govc_store, "_LOG_STEPS", (2, 4))
    server = Server()
    for number in range(8):
        path, oid = b"d/%d" % number, blob_id(b"%d" % number)
        text = f"Another mount's\n\nCaiafs-Operation: 1badcafe-{number}-{number}\n"
        text += f"Caiafs-Change: - {oid} {path.decode()}\n"
        await server.write({path: b"%d" % number}, text)

    async with a_sync_world(tmp_path, server=server) as world:
        await until(lambda: level(world) and len(world.shown) == 8)
        world.check()
