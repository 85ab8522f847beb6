"""A few things at once, with the first error as it is instead of in a group. Used by `reader` and the writers."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from caiafs.core.errors import CaiaError

T = TypeVar("T")


async def for_each(items: Iterable[T], act: Callable[[T], Awaitable[None]], *, width: int) -> None:
    """Await `act(item)` for every item, at most `width` at once.

    The first CaiaError cancels the others and is raised once they have ended.
    """
    waiting = iter(items)
    failed: list[CaiaError] = []

    async def work(scope: trio.CancelScope) -> None:
        for item in waiting:
            try:
                await act(item)
            except CaiaError as exc:
                failed.append(exc)
                scope.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(width):
            nursery.start_soon(work, nursery.cancel_scope)
    if failed:
        raise failed[0]
