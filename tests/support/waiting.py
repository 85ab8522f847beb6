"""Waiting for a condition instead of sleeping for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.01
PATIENCE_S = 60.0
"""For what has to come, however much else the machine has to do."""


def wait_until(condition: Callable[[], T], what: str, *, timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of `condition`; raise AssertionError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what} (last: {value!r})")
        time.sleep(POLL_S)
