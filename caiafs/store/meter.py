"""Counts what a store is asked and how it answers.

Used by `store.hybrid` around every call of a backend. One trio loop.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from caiafs.core.errors import CaiaError
from caiafs.core.metrics import OperationMetrics, OperationStatistics


class Meter:
    """Latencies and outcomes of one store's operations."""

    def __init__(self) -> None:
        self._operations: dict[str, OperationMetrics] = {}
        self._last_error = ""
        self._last_error_s = 0.0

    @asynccontextmanager
    async def measure(self, operation: str) -> AsyncIterator[None]:
        """Count the body as one call; an error of ours is a failure, a cancelled call is none at all."""
        began = time.perf_counter()
        try:
            yield
        except CaiaError as exc:
            self._last_error = str(exc)
            self._last_error_s = time.monotonic()
            self._of(operation).record(time.perf_counter() - began, self._last_error or repr(exc))
            raise
        self._of(operation).record(time.perf_counter() - began)

    def _of(self, operation: str) -> OperationMetrics:
        return self._operations.setdefault(operation, OperationMetrics())

    def statistics(self) -> dict[str, OperationStatistics]:
        """Return the figures per operation."""
        return {name: metrics.statistics() for name, metrics in sorted(self._operations.items())}

    @property
    def last_error(self) -> str:
        """The newest error's text, empty without."""
        return self._last_error

    @property
    def last_error_age_s(self) -> float | None:
        """Its age, None without."""
        return time.monotonic() - self._last_error_s if self._last_error else None

    def reset(self) -> None:
        """Forget the figures."""
        self._operations.clear()
        self._last_error = ""
