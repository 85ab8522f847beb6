"""The store process logs to a file of its own, without secrets."""

from tests.store.test_publish_govc import govc_report, settings
from tests.support.govc_server import free_port
from tests.support.store_world import a_world


class _Nobody:
    """Where a server might be."""

    def __init__(self):
        self.url = f"http://127.0.0.1:{free_port()}"


async def test_store_process_logs_beside_the_mounts_log_and_masks_the_token(tmp_path):
    nobody = _Nobody()
    # A word that the log would say, in the token's place.
    more = {"govc_auth_token": "publishing", "enable_fallback": False}
    async with a_world(tmp_path, **settings(nobody, **more)) as world:
        world.put("f", "1")
        world.due()
        await world.wait_for(lambda: world.report.get("reasons"), "a reason")
        assert govc_report(world)["condition"] != "ok"

    log = world.state_dir / "log.store"
    assert "WARNING caiafs.sync.publisher: ******** waits: govc" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert not (world.state_dir / "log").exists()
