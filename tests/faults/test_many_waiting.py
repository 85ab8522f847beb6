"""However many wait for a store, there is somebody left to answer."""

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.govc_server import GovcServer
from tests.support.outage_proxy import OutageProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.govc, pytest.mark.slow]

WAITING = 150


def test_health_and_reading_answer_while_hundreds_wait_for_a_store(
    mount_caia: MountFactory, govc: GovcServer
):
    proxy = OutageProxy(govc.port)
    env = {"GOVC_SERVICE_URL": proxy.url, "CAIAFS_OPERATION_TIMEOUT": "60s"}
    caia = mount_caia(env=env)
    caia.expect_log("govc")
    (caia / "f").write_text("content\n")
    caia.sync()
    proxy.be("hang")
    (caia / "f").write_text("something to publish\n")
    wait_until(lambda: proxy.requests, "caiafs waits for an answer")
    ended = threading.Event()

    def wait() -> None:
        with contextlib.suppress(OSError):  # it has no id before it is published
            os.getxattr(caia / "f", "user.caia.id")
        ended.set()

    def waiting() -> int:
        """Return how many of our threads are in the system call."""
        calls = Path("/proc/self/task").glob("*/wchan")
        return sum("request_wait_answer" in call.read_text() for call in calls)

    with ThreadPoolExecutor(WAITING) as threads:
        for _ in range(WAITING):
            threads.submit(wait)
        wait_until(lambda: waiting() >= WAITING or ended.is_set(), "all of them wait")
        assert not ended.is_set(), "this machine is too slow to have them wait all at once"

        assert caia.virtual("health.json")
        assert (caia / "f").read_text() == "something to publish\n"

        assert not ended.is_set(), "somebody answered only when others had their answer"
        proxy.be("pass")
    proxy.stop()
