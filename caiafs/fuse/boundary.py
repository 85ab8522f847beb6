"""Where our errors become errnos: the decorator that every handler wears.

pyfuse3 ends the mount on anything but FUSEError (tried), so nothing else passes: an error of ours
becomes its errno, a deadline ETIMEDOUT, a bug EIO for this one request, counted and logged with its
traceback. `Cancelled` passes: it is no Exception.
"""

import errno
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from caiafs.core.errors import CaiaError, FsError
from caiafs.core.metrics import OperationMetrics

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Measured(Protocol):
    """Operations that count what happens to them."""

    requests: dict[str, OperationMetrics]
    broken_requests: int


S = TypeVar("S", bound=Measured)


def handler(method: Callable[Concatenate[S, P], Awaitable[T]]) -> Any:  # pyfuse3 calls it from C
    """Make `method` a handler: it raises FUSEError or returns, and is measured."""
    name = method.__name__

    @functools.wraps(method)
    async def answer(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        error = ""
        try:
            return await method(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except FsError as exc:
            # A caller's mistake is an answer, not a failure of ours.
            log.debug("%s: %s", name, exc)
            raise pyfuse3.FUSEError(exc.errno) from exc
        except CaiaError as exc:
            error = str(exc) or type(exc).__name__
            log.warning("%s: %s", name, error)
            raise pyfuse3.FUSEError(exc.errno) from exc
        except trio.TooSlowError as exc:
            error = "deadline passed"
            raise pyfuse3.FUSEError(errno.ETIMEDOUT) from exc
        except Exception as exc:
            error = f"bug: {exc!r}"
            self.broken_requests += 1
            log.exception("%s broke", name)
            raise pyfuse3.FUSEError(errno.EIO) from exc
        finally:
            self.requests[name].record(time.perf_counter() - began, error)

    return answer
