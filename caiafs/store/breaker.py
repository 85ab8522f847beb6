"""A circuit breaker: leaves a store alone that keeps failing, and tries it again by itself.

Used by `store.govc_store`. Pure: time is passed in, in seconds on any steady clock.

    closed --failures in a row--> open --reset_s--> half-open --success--> closed
                                   ^                    |
                                   +------failure-------+
"""

import enum


class BreakerState(enum.StrEnum):
    """What a breaker lets through: everything, nothing, one call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Counts failures in a row."""

    def __init__(self, *, failures: int, reset_s: float) -> None:
        self._limit = max(failures, 1)
        self._reset_s = reset_s
        self._failures = 0
        self._open_until: float | None = None
        self._trying = False

    def state(self, now: float) -> BreakerState:
        """Return the state at `now`."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def admit(self, now: float) -> bool:
        """Whether a call may go out now; in the half-open state one may, until its outcome is recorded."""
        state = self.state(now)
        if state is BreakerState.HALF_OPEN and not self._trying:
            self._trying = True
            return True
        return state is BreakerState.CLOSED

    def record_success(self) -> None:
        """A call came through."""
        self._failures = 0
        self._open_until = None
        self._trying = False

    def record_failure(self, now: float, retry_after_s: float | None = None) -> None:
        """A call failed; a store that says when to come back is left alone until then."""
        self._failures += 1
        tried, self._trying = self._trying, False
        if tried or retry_after_s or self._failures >= self._limit:
            self._open_until = now + max(self._reset_s, retry_after_s or 0.0)

    def record_nothing(self) -> None:
        """A call ended without telling anything: it was cancelled."""
        self._trying = False

    def wait_s(self, now: float) -> float:
        """Return how long it stays open."""
        return max(0.0, self._open_until - now) if self._open_until is not None else 0.0
