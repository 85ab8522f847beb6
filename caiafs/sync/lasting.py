"""Keeps a task of the store process going whatever breaks in it: a bug in one part must not stop saves.

Used by `sync.assembly` and `sync.attributes`. Only the link's end gets through: it ends the process.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from caiafs.link.channel import LinkError

log = logging.getLogger(__name__)

PAUSE_S = 10.0


async def run_lasting(run: Callable[[], Awaitable[None]], what: str) -> None:
    """Run `run`, for ever; what it raises is logged, and it begins again after a pause."""
    while True:
        try:
            await run()
        except LinkError:
            raise
        except Exception:
            log.exception("%s broke", what)
        await trio.sleep(PAUSE_S)
