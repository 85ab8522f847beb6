"""One pooled HTTP client for the service: authentication, deadlines, bounds, and errors of `core.errors`.

Used by `backend` and `probe`, under trio. Several requests may run at once; the pool bounds them. Nothing here follows a redirect,
reads the environment, or puts the token anywhere but in the two headers it belongs to.
"""

import collections
import re
import ssl
import time
import zlib
from dataclasses import dataclass
from typing import Final

import httpx
import trio

from caiafs.backends.govc import failures
from caiafs.backends.govc.payload import LISTED_VALUES_MAX, VALUES_MAX, parse_json
from caiafs.backends.govc.settings import GovcSettings
from caiafs.backends.govc.wire import Answer, Request
from caiafs.core.errors import DeadlineExceeded, Misconfigured, StoreError, Unreachable

IN_FLIGHT = 4
MIB = 1 << 20
ANSWER_MAX_BYTES = 64 * MIB
LIST_MAX_BYTES = 128 * MIB
SLOWEST_BYTES_PER_S = 1 * MIB
"""A body is given this much time beyond the ordinary deadline."""
KEEPALIVE_S = 15.0
_HEADERS: Final = {
    "User-Agent": "caiafs",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}
_CSRF_HEADER: Final = "X-CSRF-Token"
_CSRF_TARGET: Final = "/api/v1/auth/csrf-token"
_CSRF_KEPT_S = 1800.0
_CSRF_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")


class GovcClient:
    """Sends requests. Owns the connections; `aclose` ends them."""

    def __init__(self, settings: GovcSettings) -> None:
        self._settings = settings
        self._fault: str | None = None
        self._csrf: collections.deque[tuple[float, str]] = collections.deque(maxlen=64)
        self._wants_csrf = False
        self._http = httpx.AsyncClient(
            verify=self._tls_context(),
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(
                max_connections=IN_FLIGHT * 2,
                max_keepalive_connections=IN_FLIGHT * 2,
                keepalive_expiry=KEEPALIVE_S,
            ),
            timeout=httpx.Timeout(settings.request_timeout_s),
        )
        self._base = settings.url.rstrip("/")
        self._host: dict[str, str] = {}
        try:
            self._host["Host"] = httpx.URL(self._base).netloc.decode()
        except httpx.InvalidURL:
            self._fault = "the address of the govc service is not a URL"

    def _tls_context(self) -> ssl.SSLContext:
        """Return what verifies the server; a bad CA file is a fault told at the first request."""
        if self._settings.url.lower().startswith("https:"):
            try:
                return ssl.create_default_context(cafile=self._settings.ca_file)
            except (OSError, ssl.SSLError) as exc:
                self._fault = f"the CA file {self._settings.ca_file} cannot be used: {exc}"
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies and trusts nobody

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._http.aclose()

    async def send(self, request: Request) -> Answer:
        """Send `request` and return its answer.

        Raises:
            Unreachable: connection, deadline, 5xx, 429, repository gone.
            Misconfigured: token, TLS, redirect, or what answers is not govc.
            Refused: the server will not do it; `path` says for which document.
            Corrupt: the answer is govc's but makes no sense.
        """
        if self._fault is not None:
            raise Misconfigured(self._fault, backend=failures.GOVC, operation=request.operation)
        headers = self._authentication()
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        for attempt in (0, 1, 2):
            if request.method != "GET" and self._wants_csrf:
                headers[_CSRF_HEADER] = await self._take_csrf()
            status, code, answer = await self._exchange(request, headers)
            if code != "CSRF_TOKEN_INVALID" or attempt == 2:
                break
            self._wants_csrf = True
            self._csrf.clear()
        mixed = answer.is_garbled and status in {400, 404, 409}
        if 200 <= status < 300 or code in request.expected or mixed:
            return Answer(status, _payload(answer, request), code)
        raise failures.from_status(
            status,
            code,
            self._redact(_reason(answer)),
            operation=request.operation,
            path=request.path,
            retry_after_s=failures.parse_retry_after(answer.headers.get("Retry-After")),
        )

    def _authentication(self) -> dict[str, str]:
        token = self._settings.token
        if not token:
            return {}
        if token.startswith("govc_"):
            return {"X-API-Key": token}
        return {"Authorization": f"Bearer {token}"}

    async def _take_csrf(self) -> str:
        """Return a token good for one request: one that an answer brought, else a fresh one."""
        while self._csrf:
            born, token = self._csrf.popleft()
            if time.monotonic() - born < _CSRF_KEPT_S:
                return token
        request = Request("GET", _CSRF_TARGET, "csrf")
        status, _, raw = await self._exchange(request, self._authentication())
        token = str(raw.headers.get(_CSRF_HEADER, ""))
        if status != 200 or not _CSRF_TOKEN.fullmatch(token):
            raise failures.from_status(status, "", "no CSRF token", operation="csrf")
        self._csrf.pop()  # `_exchange` has just kept it
        return token

    async def _exchange(self, request: Request, headers: dict[str, str]) -> tuple[int, str, "_Raw"]:
        for last in (False, True):
            try:
                with trio.fail_after(self._deadline_s(request)) as scope:
                    raw = await self._stream(request, headers, scope)
                if last or not (raw.is_garbled and request.repeatable):
                    break
            except failures.STALE_CONNECTION as exc:
                if last or not request.repeatable:
                    raise self._failed(exc, request) from exc
            except trio.TooSlowError as exc:
                raise DeadlineExceeded(
                    f"govc did not answer within {self._deadline_s(request):g} s",
                    backend=failures.GOVC,
                    operation=request.operation,
                ) from exc
            except httpx.LocalProtocolError as exc:
                # Its text quotes the header, so it is not chained either.
                raise self._failed(exc, request) from None
            except (
                httpx.HTTPError,
                httpx.InvalidURL,
                httpx.StreamError,
                httpx.CookieConflict,
            ) as exc:
                raise self._failed(exc, request) from exc
        token = raw.headers.get(_CSRF_HEADER, "")
        if _CSRF_TOKEN.fullmatch(token) and request.method == "GET":
            self._csrf.append((time.monotonic(), token))
        return raw.status, raw.code, raw

    async def _stream(
        self, request: Request, headers: dict[str, str], scope: trio.CancelScope
    ) -> "_Raw":
        if self._http.is_closed:  # by whoever connected anew meanwhile
            raise Unreachable(
                "the connection to govc was replaced",
                backend=failures.GOVC,
                operation=request.operation,
            )
        response = await self._http.send(
            httpx.Request(
                request.method,
                self._base + request.target,
                headers=_HEADERS | self._host | headers | _length(request),
                stream=_Body(request.body or b""),
                extensions={"timeout": self._http.timeout.as_dict()},
            ),
            stream=True,
        )
        try:
            limit = LIST_MAX_BYTES if request.heavy else ANSWER_MAX_BYTES
            last = trio.current_time() + self._settings.request_timeout_s
            scope.deadline = min(
                scope.deadline + _announced(response, limit) / SLOWEST_BYTES_PER_S, last
            )
            body = await _read_bounded(response, limit, request)
            return _Raw.of(response, body, LISTED_VALUES_MAX if request.heavy else VALUES_MAX)
        finally:
            await response.aclose()

    def _deadline_s(self, request: Request) -> float:
        settings = self._settings
        if request.heavy:
            return settings.request_timeout_s
        body_s = len(request.body or b"") / SLOWEST_BYTES_PER_S
        return min(settings.operation_timeout_s + body_s, settings.request_timeout_s)

    def _failed(self, exc: Exception, request: Request) -> StoreError:
        error = failures.from_exception(exc, request.operation)
        error.args = (self._redact(str(error)),)
        return error

    def _redact(self, words: str) -> str:
        token = self._settings.token
        return words.replace(token, "***") if token else words


@dataclass(frozen=True, slots=True)
class _Raw:
    """An answer before anybody looked at it; `fields` is None where the body is not JSON."""

    status: int
    code: str
    headers: httpx.Headers
    payload: object
    is_json: bool
    says_json: bool

    @property
    def is_garbled(self) -> bool:
        """Whether it calls itself JSON and is not.

        A proxy does that, and so does the real server's default form: the answer of a request whose client went away can land in
        somebody else's, which then holds two.
        """
        return self.says_json and not self.is_json

    @classmethod
    def of(cls, response: httpx.Response, body: bytearray, values_max: int) -> "_Raw":
        says_json = "json" in response.headers.get("Content-Type", "")
        payload: object = None
        is_json = True
        try:
            payload = parse_json(body, values_max=values_max)
        except ValueError:
            is_json = False
        code = payload.get("code") if isinstance(payload, dict) else None
        told = code if isinstance(code, str) and response.status_code >= 300 else ""
        return cls(response.status_code, told[:64], response.headers, payload, is_json, says_json)


class _Body(httpx.AsyncByteStream):
    """A request's body in one piece.

    httpx's own is an async generator, which is left unfinished where a server answers 413 before it has read all.
    """

    def __init__(self, body: bytes) -> None:
        self._waiting = [body] if body else []

    def __aiter__(self) -> "_Body":
        return self

    async def __anext__(self) -> bytes:
        if not self._waiting:
            raise StopAsyncIteration
        return self._waiting.pop()


def _length(request: Request) -> dict[str, str]:
    """Return the header that frames the body."""
    if request.body is None and request.method == "GET":
        return {}
    return {"Content-Length": str(len(request.body or b""))}


def _announced(response: httpx.Response, limit: int) -> int:
    """Return how many bytes of body the server says will come, at most `limit`."""
    length = str(response.headers.get("Content-Length", ""))
    return min(int(length[:20]), limit) if length.isdecimal() else 0


async def _read_bounded(response: httpx.Response, limit: int, request: Request) -> bytearray:
    """Return the body, decoded, never holding more than `limit` bytes of it: a gzip bomb ends here."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    fault = _find_fault(encoding, response.headers.get("Content-Length", ""), limit)
    inflater = None if encoding == "identity" else zlib.decompressobj(wbits=47)
    body = bytearray()
    # Cancelling ends httpx's nested generators; leaving the loop would abandon them.
    with trio.CancelScope() as scope:
        if fault:
            scope.cancel()
        async for chunk in response.aiter_raw():
            fault = fault or _take_in(body, chunk, inflater, limit)
            if fault:
                scope.cancel()
    if fault:
        raise failures.corrupt(fault, operation=request.operation, path=request.path)
    return body


def _find_fault(encoding: str, length: str, limit: int) -> str:
    """Return what an answer's headers make impossible, "" for nothing."""
    if encoding not in {"identity", "gzip", "deflate"}:
        return f"answer in an encoding nobody asked for: {failures.shorten(encoding)}"
    if length.isdecimal() and int(length[:20]) > limit:
        return f"answer of more than {limit} bytes"
    return ""


def _take_in(body: bytearray, chunk: bytes, inflater: "zlib._Decompress | None", limit: int) -> str:
    """Add `chunk` to `body`; return what is wrong with it, "" for nothing."""
    try:
        body += chunk if inflater is None else inflater.decompress(chunk, limit + 1 - len(body))
    except zlib.error:
        return "answer that does not inflate"
    return f"answer of more than {limit} bytes" if len(body) > limit else ""


def _payload(raw: _Raw, request: Request) -> object:
    if raw.is_json:
        return raw.payload
    if raw.is_garbled:
        raise failures.corrupt(
            "answer that is not JSON", operation=request.operation, path=request.path
        )
    raise failures.from_status(
        raw.status, "", "a body that is not JSON", operation=request.operation
    )


def _reason(raw: _Raw) -> str:
    words = raw.payload.get("error") if isinstance(raw.payload, dict) else None
    return failures.shorten(words) if isinstance(words, str) else ""
