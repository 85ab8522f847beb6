"""When a document that govc refused is sent again: soon, for it may have been an accident, and then less and less.

Pure; used by `store.catchup`. Times are seconds on any steady clock. What is over a limit of ours is due once
in a process: that changes with the configuration only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from caiafs.backends.govc.limits import OVER_LIMIT
from caiafs.core.types import DocPath, ObjectId
from caiafs.store.cursors import RefusedContent

FIRST_S = 2.0
LONGEST_S = 3600.0
_FACTOR = 4


@dataclass(slots=True)
class _Wait:
    oid: ObjectId
    due: float
    pause_s: float = FIRST_S


class Refusals:
    """Remembers when each refused document is due."""

    def __init__(self) -> None:
        self._waits: dict[DocPath, _Wait] = {}
        self._old: set[DocPath] | None = None
        """What an earlier process was refused, as far as it was not tried since; None: that is not known yet."""

    def begin(self, refused: Iterable[DocPath]) -> None:
        """Make due once what an earlier process was refused, whatever for; later calls do nothing."""
        if self._old is None:
            self._old = set(refused)

    def begin_again(self) -> None:
        """Make all of them due: the server may be another one by now."""
        for wait in self._waits.values():
            wait.due = wait.pause_s = 0.0

    def due(self, refused: Mapping[DocPath, RefusedContent], now: float) -> list[DocPath]:
        """Return which of `refused` are to be sent again now."""
        for path in [path for path in self._waits if path not in refused]:
            del self._waits[path]
        for path, found in refused.items():
            wait = self._waits.get(path)
            if wait is None or wait.oid != found.oid:
                self._waits[path] = _Wait(found.oid, now + FIRST_S)
        return [
            path
            for path, wait in self._waits.items()
            if path in (self._old or ())
            or (wait.due <= now and not refused[path].reason.startswith(OVER_LIMIT))
        ]

    def tried(self, paths: Iterable[DocPath], now: float) -> None:
        """Note that `paths` were sent again, whatever came of it."""
        for path in paths:
            if self._old:
                self._old.discard(path)
            wait = self._waits.get(path)
            if wait is not None:
                wait.pause_s = min(max(_FACTOR * wait.pause_s, FIRST_S), LONGEST_S)
                wait.due = now + wait.pause_s
