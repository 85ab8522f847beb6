"""Tells the mount how the store process is, a few times a second at most, and always the latest.

One task of the store process.
"""

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from caiafs.link.codec import to_json
from caiafs.link.messages import Message, Report
from caiafs.link.report import StoreReport

INTERVAL_S = 0.2
IDLE_INTERVAL_S = 2.0
_STARTED_S = time.monotonic()


class Reporter:
    """Sends reports when something changed."""

    def __init__(
        self, compose: Callable[[], StoreReport], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self._compose = compose
        self._send = send
        self._wake = trio.Event()
        self._sent = ""

    def changed(self) -> None:
        """Something in the report changed; never waits."""
        self._wake.set()

    async def run(self) -> None:
        """Send reports, for ever."""
        while True:
            self._wake = trio.Event()
            await self.send_now()
            await trio.sleep(INTERVAL_S)
            with trio.move_on_after(IDLE_INTERVAL_S):
                await self._wake.wait()

    async def send_now(self) -> None:
        """Send the report as it is."""
        text = json.dumps(to_json(self._compose()), separators=(",", ":"))
        if text != self._sent:
            self._sent = text
            await self._send(Report(text))


def uptime_s() -> float:
    """Return how long this process has been running."""
    return time.monotonic() - _STARTED_S


def rss_bytes() -> int:
    """Return this process's resident memory."""
    fields = Path("/proc/self/statm").read_bytes().split()
    return int(fields[1]) * 4096
