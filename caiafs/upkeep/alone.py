"""Runs one async function as a command does: to its end, with its one error unwrapped and Ctrl-C let through."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from caiafs.core.errors import CaiaError, leaf

T = TypeVar("T")


def run_alone(function: Callable[[], Awaitable[T]]) -> T:
    """Run `function` under trio and return its result.

    Raises:
        CaiaError: the first one, without the groups that nurseries put round it.
        KeyboardInterrupt: likewise; what was begun has been cleaned up.
    """
    try:
        return trio.run(function)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    for kind in (KeyboardInterrupt, CaiaError):
        found = group.subgroup(kind)
        if found is not None:
            return leaf(found)
    return leaf(group)
