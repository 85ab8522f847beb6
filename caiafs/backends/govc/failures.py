"""From what httpx raises and what a server answers to the errors of `core.errors`.

Pure. Used by `client`. `RAISED` names every exception class of httpx, or a base of it; a test fails when one is missing.
"""

import email.utils
import ssl
import time

import httpx

from caiafs.core.errors import (
    Corrupt,
    DeadlineExceeded,
    Misconfigured,
    Refused,
    StoreError,
    Unreachable,
)
from caiafs.core.types import DocPath, display

GOVC = "govc"
REASON_CHARS = 300
RETRY_AFTER_MAX_S = 3600.0

RAISED: tuple[tuple[type[Exception], type[StoreError]], ...] = (
    # First match wins: subclasses stand before their bases.
    (httpx.TimeoutException, DeadlineExceeded),
    (httpx.NetworkError, Unreachable),
    (httpx.RemoteProtocolError, Unreachable),
    (httpx.LocalProtocolError, Misconfigured),
    (httpx.ProtocolError, Unreachable),
    (httpx.ProxyError, Misconfigured),
    (httpx.UnsupportedProtocol, Misconfigured),
    (httpx.TransportError, Unreachable),
    (httpx.DecodingError, Corrupt),
    (httpx.TooManyRedirects, Misconfigured),
    (httpx.RequestError, Unreachable),
    (httpx.HTTPStatusError, Unreachable),
    (httpx.HTTPError, Unreachable),
    (httpx.InvalidURL, Misconfigured),
    (httpx.CookieConflict, Misconfigured),
    (httpx.StreamError, Unreachable),
)
"""Every exception of httpx, with what it means here. None is a refusal of a document."""

STALE_CONNECTION = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.CloseError)
"""What a pooled connection gives that died while nobody looked (suspend, server restart)."""


def from_exception(exc: Exception, operation: str) -> StoreError:
    """Return what `exc`, raised by httpx during `operation`, means.

    The text of httpx's exception is left out where it can quote a header, hence the token.
    """
    kind = next((ours for theirs, ours in RAISED if isinstance(exc, theirs)), Unreachable)
    tls = _tls_fault(exc)
    if tls is not None:
        return Misconfigured(
            f"TLS with the govc service failed: {tls}", backend=GOVC, operation=operation
        )
    words = type(exc).__name__ if kind is Misconfigured else f"{type(exc).__name__}: {exc}"
    return kind(
        f"govc did not answer ({shorten(words.rstrip(': '))})", backend=GOVC, operation=operation
    )


def _tls_fault(exc: BaseException | None) -> str | None:
    seen = 0
    while exc is not None and seen < 10:
        if isinstance(exc, ssl.SSLError):
            # A connection that just ends is an outage, whatever layer says so.
            ended = isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError)
            return None if ended else shorten(str(exc))
        exc = exc.__cause__ or exc.__context__
        seen += 1
    return None


def from_status(
    status: int,
    code: str,
    reason: str,
    *,
    operation: str,
    path: DocPath | None = None,
    retry_after_s: float | None = None,
) -> StoreError:
    """Return what an answer that is no success means.

    Args:
        status: HTTP status.
        code: govc's own code, "" where the answer is not govc's JSON.
        reason: the server's words, shortened.
        operation: what was asked.
        path: the document that it was asked for.
        retry_after_s: as the server said.
    """
    told = f"{status} {code} {reason}".strip()
    if status >= 500 or status in {408, 425, 429}:
        return Unreachable(
            f"govc answered {told}", backend=GOVC, operation=operation, retry_after_s=retry_after_s
        )
    if code == "REPO_NOT_FOUND":
        return Unreachable(
            f"govc has lost the repository ({told})", backend=GOVC, operation=operation
        )
    if status in {401, 403, 407}:
        return Misconfigured(
            f"govc does not accept us: {told}; check the token", backend=GOVC, operation=operation
        )
    if not code or code == "ENDPOINT_NOT_FOUND" or status < 400 or status == 405:
        return Misconfigured(
            f"what answers is not govc as we know it: {told}", backend=GOVC, operation=operation
        )
    name = f" {display(path)}" if path is not None else ""
    return Refused(
        f"govc refused{name}: {told}", path=path, reason=told, backend=GOVC, operation=operation
    )


def corrupt(words: str, *, operation: str, path: bytes | None = None) -> Corrupt:
    """Return the error for an answer that makes no sense; `path` is named where it is known."""
    name = f"{display(path)}: " if path is not None else ""
    return Corrupt(f"{name}{words}", backend=GOVC, operation=operation)


def parse_retry_after(value: str | None) -> float | None:
    """Return seconds from a Retry-After header (a number or an HTTP date), at most an hour."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return min(float(value), RETRY_AFTER_MAX_S)
    try:
        wait_s = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):  # a zone or a year that no calendar has
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)


def shorten(words: str) -> str:
    """Return `words` on one printable line of bounded length."""
    line = "".join(char if char.isprintable() else " " for char in words[: REASON_CHARS * 2])
    return line if len(line) <= REASON_CHARS else line[: REASON_CHARS - 1] + "…"
