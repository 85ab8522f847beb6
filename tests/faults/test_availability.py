"""With a govc that hangs, drips or sends headers only, a mount answers as fast as with a healthy one."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import MountFactory
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount
from tests.support.outage_proxy import OutageProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.govc, pytest.mark.slow]

TIMES = 60
SILENCES = ("hang", "slow", "headers")
NOISE_S = 0.005
WAIT_S = 4.0
"""Shorter than operation_timeout: an answer that is that late is no outage yet."""
GENEROUS = 8
"""How many times longer than with a healthy server, on a machine that does other things as well; a wait for govc is hundreds."""


@pytest.fixture
def proxy(govc: GovcServer) -> Iterator[OutageProxy]:
    made = OutageProxy(govc.port, slow_s=WAIT_S)
    yield made
    made.stop()


@pytest.fixture
def behind(mount_caia: MountFactory, proxy: OutageProxy) -> Mount:
    """Return a mount with a few documents, in step with a govc behind a proxy."""
    caia = mount_caia(env={"GOVC_SERVICE_URL": proxy.url, "CAIAFS_HEALTH_INTERVAL": "500ms"})
    caia.expect_log("govc")
    (caia / "folder").mkdir()
    for number in range(30):
        (caia / "folder" / f"doc-{number}").write_text(f"{number}\n")
    caia.sync()
    caia.wait_health("ok")
    return caia


def everyday(caia: Mount) -> dict[str, Callable[[int], object]]:
    """Return what people do all day, by name; each is called with a number of its own."""
    folder = caia.path / "folder"
    return {
        "ls": lambda _: os.listdir(folder),
        "stat": lambda n: os.stat(folder / f"doc-{n % 30}"),
        "look for what is not there": lambda n: os.path.exists(folder / f"missing-{n}"),
        "read": lambda n: (folder / f"doc-{n % 30}").read_bytes(),
        "health": lambda _: caia.virtual("health.json"),
        "stats": lambda _: caia.virtual("stats.json"),
        "save": lambda n: (folder / f"saved-{n}").write_text(f"{n}\n"),
        "rename": lambda n: (folder / f"saved-{n}").rename(folder / f"moved-{n}"),
    }


def measure(caia: Mount, start: int) -> dict[str, list[float]]:
    """Return how long each of TIMES calls took, in seconds."""
    took: dict[str, list[float]] = {}
    for name, act in everyday(caia).items():
        for number in range(start, start + TIMES):
            began = time.perf_counter()
            act(number)
            took.setdefault(name, []).append(time.perf_counter() - began)
    return took


@pytest.mark.parametrize("silence", SILENCES)
def test_everything_answers_as_fast_as_with_a_healthy_service(
    behind: Mount, proxy: OutageProxy, silence: str
):
    healthy = measure(behind, 0)
    behind.sync()

    proxy.be(silence)
    (behind / "meanwhile").write_text("something to publish\n")
    wait_until(lambda: proxy.requests, "caiafs waits for an answer")
    silent = measure(behind, TIMES)

    fastest = {name: (min(healthy[name]), min(silent[name])) for name in healthy}
    late = {name: pair for name, pair in fastest.items() if pair[1] > GENEROUS * pair[0] + NOISE_S}
    assert late == {}, (
        "healthy and silent seconds, the fastest of each: other work adds to the rest"
    )
    waited = {name: max(took) for name, took in silent.items() if max(took) > 0.9 * WAIT_S}
    assert waited == {}, "nobody waits for an answer of govc, not once"
    proxy.be("pass")
    behind.sync()


@pytest.mark.parametrize("silence", ["hang", "headers"])
def test_unmount_ends_within_its_grace(behind: Mount, proxy: OutageProxy, silence: str):
    behind.unmount()
    behind.options = ("unmount_grace=3s",)
    behind.start()
    proxy.be(silence)
    (behind / "doc").write_text("what govc will not get now\n")
    wait_until(lambda: proxy.requests, "caiafs waits for an answer")

    began = time.monotonic()
    behind.unmount()

    slack_s = 30  # processes that end on a busy machine
    assert time.monotonic() - began < 3 + slack_s
    behind.start()  # in git by now, or kept: the grace may be shorter than one time-out
    assert (behind / "doc").read_text() == "what govc will not get now\n"


@pytest.mark.parametrize("outage", ["hang", "headers", "503", "down"])
def test_breaker_opens_after_the_failures_configured_and_closes_by_itself(
    mount_caia: MountFactory, proxy: OutageProxy, outage: str
):
    reset_s = 3.0
    options = ["breaker_failures=3", f"breaker_reset={reset_s:g}s", "operation_timeout=1s"]
    caia = mount_caia(env={"GOVC_SERVICE_URL": proxy.url}, options=[*options, "retry_max=1"])
    caia.expect_log("govc")
    (caia / "before").write_text("before\n")
    caia.sync()

    def breaker() -> str:
        return str(caia.stats()["storage_stats"]["govc"]["breaker"])

    wait_until(lambda: breaker() == "closed", "the breaker is closed")
    proxy.be(outage)
    (caia / "during").write_text("during\n")
    wait_until(lambda: breaker() == "open", "the breaker opens")
    failures = sum(
        operation["failure"]
        for operation in caia.stats()["storage_stats"]["govc"]["operations"].values()
    )
    assert failures >= 3
    asked, began = proxy.requests, time.monotonic()
    wait_until(lambda: breaker() != "open" or time.monotonic() - began > reset_s / 2, "a while")
    if breaker() == "open":
        assert proxy.requests - asked <= 1, "while it is open, govc is left alone"

    proxy.be("pass")

    wait_until(lambda: breaker() == "closed", "the breaker closes by itself")
    caia.wait_health("ok")
    caia.sync()
