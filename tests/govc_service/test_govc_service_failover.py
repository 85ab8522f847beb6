"""Failover of the govc service: whatever becomes of it, nothing is lost, saves go on, and health tells.

What a proxy can do is done to any server; what needs the server's process is done to our own.
"""

import os
import statistics
import time
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.govc_service.conftest import URL, Service
from tests.support.govc_server import GovcServer, GovcServers
from tests.support.mount import Mount
from tests.support.outage_proxy import RETRY_AFTER_S, OutageProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.govc, pytest.mark.slow]

OUTAGES = ("down", "reset", "hang", "headers", "500", "502", "503", "504", "429")
QUICK = {"CAIAFS_OPERATION_TIMEOUT": "1s", "CAIAFS_BREAKER_RESET": "1s", "CAIAFS_RETRY_MAX": "1"}


def begin(caia: Mount, *, expect: str = "govc") -> None:
    """Have the service hold a first document; from now on the log may say what an outage has it say."""
    caia.expect_log(expect)
    (caia / "before").write_text("before\n")
    caia.sync()


def check_healed(caia: Mount, service: Service, scratch: Path) -> None:
    """Check that all is well again by itself, and everything everywhere."""
    caia.wait_health("ok")
    service.check_agreement(caia, scratch)


@pytest.fixture
def behind(mount_caia: MountFactory, service: Service, proxy: OutageProxy) -> Mount:
    """Return a mount that reaches the service through the proxy, in step with it."""
    caia = mount_caia(env={**service.environment(proxy.url), **QUICK})
    begin(caia)
    return caia


def documents_in_git(caia: Mount) -> list[str]:
    heads = caia.git("for-each-ref", "refs/heads").strip()
    return caia.git("ls-tree", "-r", "--name-only", "HEAD").split() if heads else []


def use(caia: Mount, name: str) -> None:
    """Save, change, rename and remove documents, and see them."""
    (caia / f"{name}-new").write_text(f"{name}\n")
    (caia / "changed").write_text(f"changed while {name}\n")
    (caia / f"{name}-renamed").write_text("to be renamed\n")
    (caia / f"{name}-renamed").rename(caia / f"{name}-moved")
    (caia / f"{name}-binary").write_bytes(bytes(range(256)))
    assert (caia / "before").read_text() == "before\n"
    assert f"{name}-moved" in os.listdir(caia.path)


def health_names_govc(caia: Mount) -> None:
    wait_until(lambda: "govc" in str(caia.wait_health("degraded")["reasons"]), "govc is named")
    health = caia.wait_health("degraded")
    assert health["backends"]["govc"]["condition"] in {"degraded", "failed"}


@pytest.mark.parametrize("outage", OUTAGES)
def test_outage_costs_nothing_is_told_and_heals(
    behind: Mount, service: Service, proxy: OutageProxy, tmp_path: Path, outage: str
):
    proxy.be(outage)
    use(behind, outage)
    health_names_govc(behind)
    wait_until(lambda: f"{outage}-moved" in documents_in_git(behind), "git has what was saved")

    proxy.be("pass")
    check_healed(behind, service, tmp_path)


def test_slow_service_delays_no_save(
    behind: Mount, service: Service, proxy: OutageProxy, tmp_path: Path
):
    proxy.slow_s = 0.9  # within QUICK's time-out

    proxy.be("slow")
    use(behind, "slow")
    took_s = []
    for number in range(9):
        began = time.monotonic()
        (behind / f"slow-{number}").write_text("slow\n")
        took_s.append(time.monotonic() - began)

    assert statistics.median(took_s) < proxy.slow_s / 2, "no save waits for an answer"
    proxy.be("pass")
    service.check_agreement(behind, tmp_path)


@pytest.mark.parametrize("primary", ["git", "govc"])
def test_service_that_is_down_at_the_start_is_used_once_it_is_there(
    mount_caia: MountFactory, service: Service, proxy: OutageProxy, tmp_path: Path, primary: str
):
    proxy.be("down")
    caia = mount_caia(env={**service.environment(proxy.url), **QUICK, "PRIMARY_BACKEND": primary})
    caia.expect_log("govc")
    (caia / "before").write_text("before\n")
    use(caia, "absent")
    health_names_govc(caia)
    assert caia.stats()["storage_stats"]["govc"]["govc_integrated"] is False

    proxy.be("pass")

    check_healed(caia, service, tmp_path)
    assert caia.stats()["storage_stats"]["config"]["primary_backend"] == primary


def test_with_git_as_primary_an_outage_delays_nothing_either(
    mount_caia: MountFactory, service: Service, proxy: OutageProxy, tmp_path: Path
):
    caia = mount_caia(env={**service.environment(proxy.url), **QUICK, "PRIMARY_BACKEND": "git"})
    begin(caia)

    proxy.be("hang")
    use(caia, "hang")
    wait_until(lambda: "hang-moved" in documents_in_git(caia), "git has what was saved")
    proxy.be("pass")

    check_healed(caia, service, tmp_path)


def test_without_fallback_changes_wait_for_the_primary_and_closes_succeed(
    mount_caia: MountFactory, service: Service, proxy: OutageProxy, tmp_path: Path
):
    caia = mount_caia(
        env={**service.environment(proxy.url), **QUICK, "CAIAFS_ENABLE_FALLBACK": "false"}
    )
    begin(caia, expect="govc|waits|fallback")

    proxy.be("down")
    use(caia, "down")
    health_names_govc(caia)
    assert documents_in_git(caia) == ["before"]
    assert wait_until(lambda: caia.health()["pending_ops"], "health counts what waits")
    proxy.be("pass")

    service.check_agreement(caia, tmp_path)


def test_service_that_says_when_to_come_back_is_left_alone_until_then(
    behind: Mount, service: Service, proxy: OutageProxy, tmp_path: Path
):
    proxy.be("429")
    (behind / "during").write_text("during\n")
    first = wait_until(lambda: proxy.times, "it is asked, and answers 429")[0]
    behind.wait_health("degraded")
    wait_until(lambda: time.monotonic() > first + RETRY_AFTER_S, "the time it said is over")

    asked = [when - first for when in proxy.times if when < first + RETRY_AFTER_S]
    assert len(asked) <= 3, "the first, and those that were under way"
    proxy.be("pass")
    service.check_agreement(behind, tmp_path)


def test_unmount_during_an_outage_ends_in_time_and_the_next_mount_goes_on(
    behind: Mount, service: Service, proxy: OutageProxy, tmp_path: Path
):
    behind.unmount()
    behind.options = ("unmount_grace=2s",)
    behind.start()
    proxy.be("hang")
    use(behind, "hang")

    began = time.monotonic()
    behind.unmount()
    took_s = time.monotonic() - began
    proxy.be("pass")
    behind.start()

    assert took_s < 2 + 15
    service.check_agreement(behind, tmp_path)


# --- what our own server's process is needed for


def test_service_that_dies_and_comes_back_empty_is_filled_again(
    own_server: GovcServer, caia: Mount, service: Service, tmp_path: Path
):
    begin(caia)

    own_server.stop()
    use(caia, "dead")
    health_names_govc(caia)
    own_server.start()

    check_healed(caia, service, tmp_path)
    assert (caia / "before").read_text() == "before\n"


def test_process_that_hangs_is_no_hang_of_the_mount(
    own_server: GovcServer, caia: Mount, service: Service, tmp_path: Path
):
    begin(caia)

    own_server.pause()
    try:
        use(caia, "paused")
        health_names_govc(caia)
    finally:
        own_server.resume()

    service.check_agreement(caia, tmp_path)


def test_service_that_comes_back_older_gets_what_it_lacks_and_removes_nothing(
    own_server: GovcServer, caia: Mount, service: Service, tmp_path: Path
):
    begin(caia, expect="govc|conflict")
    (caia / "later").write_text("later\n")
    caia.sync()

    own_server.stop()
    own_server.start()
    # A backup of yesterday: the first document only.
    service.ask("POST", "/api/v1/repos", {"id": service.repository, "memory_only": False})
    service.write("before", "before\n")
    use(caia, "older")

    check_healed(caia, service, tmp_path)
    assert (caia / "later").read_text() == "later\n"


def test_another_server_in_its_place_is_filled_from_git(
    own_server: GovcServer, caia: Mount, service: Service, tmp_path: Path
):
    begin(caia)

    other = {"new": "old", "old": "new"}[own_server.architecture]
    own_server.restart(architecture=other)
    use(caia, "another")

    check_healed(caia, service, tmp_path)
    implementation = caia.stats()["storage_stats"]["govc"]["implementation"]
    assert implementation == {"old": "rest-v1", "new": "rest-v2"}[other]


@pytest.mark.skipif(bool(URL), reason="a wrong token could lock you out of your server")
def test_wrong_token_is_told_and_costs_no_save(
    mount_caia: MountFactory, govc_servers: GovcServers, tmp_path: Path
):
    server = govc_servers(auth=True)
    service = Service(server.url, server, token="not.a.token")
    caia = mount_caia(env=service.environment())
    caia.expect_log("govc")
    (caia / "before").write_text("before\n")
    use(caia, "guarded")

    health_names_govc(caia)
    wait_until(lambda: "token" in str(caia.health()["reasons"]), "health names the token")
    wait_until(lambda: "guarded-moved" in documents_in_git(caia), "git has what was saved")
    assert "not.a.token" not in caia.log()
