"""From httpx and HTTP to the errors of core.errors."""

import inspect
import ssl
import time
from email.utils import formatdate

import httpx
import pytest

from caiafs.backends.govc import failures
from caiafs.core.errors import DeadlineExceeded, Misconfigured, Refused, Unreachable
from caiafs.core.types import DocPath

EXCEPTIONS = [
    kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)
]


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_exception_of_httpx_is_mapped(kind):
    assert any(issubclass(kind, known) for known, _ in failures.RAISED)


def test_no_row_of_the_table_hides_behind_another():
    for index, (kind, _) in enumerate(failures.RAISED):
        assert not any(issubclass(kind, earlier) for earlier, _ in failures.RAISED[:index])


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (httpx.ConnectError("refused"), Unreachable),
        (httpx.ReadTimeout("slow"), DeadlineExceeded),
        (httpx.PoolTimeout("full"), DeadlineExceeded),
        (httpx.RemoteProtocolError("hung up"), Unreachable),
        (httpx.UnsupportedProtocol("ftp"), Misconfigured),
        (httpx.InvalidURL("?"), Misconfigured),
    ],
)
def test_an_exception_becomes_its_error(exc, kind):
    error = failures.from_exception(exc, "read")

    assert type(error) is kind
    assert (error.backend, error.operation) == ("govc", "read")


def test_a_bad_certificate_is_no_outage():
    exc = httpx.ConnectError("ssl")
    exc.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")

    assert type(failures.from_exception(exc, "read")) is Misconfigured


def test_a_tls_connection_that_ends_is_an_outage():
    exc = httpx.ConnectError("eof")
    exc.__cause__ = ssl.SSLEOFError("unexpected eof")

    assert type(failures.from_exception(exc, "read")) is Unreachable


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "COMMIT_FAILED", Unreachable),
        (503, "", Unreachable),
        (429, "RATE_LIMITED", Unreachable),
        (404, "REPO_NOT_FOUND", Unreachable),
        (401, "UNAUTHORIZED", Misconfigured),
        (403, "CSRF_TOKEN_INVALID", Misconfigured),
        (407, "", Misconfigured),
        (404, "ENDPOINT_NOT_FOUND", Misconfigured),
        (404, "", Misconfigured),
        (302, "", Misconfigured),
        (405, "METHOD_NOT_ALLOWED", Misconfigured),
        (400, "INVALID_FILE_PATH", Refused),
        (413, "REQUEST_TOO_LARGE", Refused),
    ],
)
def test_a_status_becomes_its_error(status, code, kind):
    error = failures.from_status(status, code, "why", operation="add", path=DocPath(b"a"))

    assert type(error) is kind
    assert "why" in str(error)


def test_a_refusal_names_its_document():
    error = failures.from_status(400, "X", "why", operation="add", path=DocPath(b"a\xff"))

    assert isinstance(error, Refused)
    assert error.path == b"a\xff"
    assert error.reason == "400 X why"


def test_retry_after_is_read_as_seconds_or_as_a_date():
    soon = failures.parse_retry_after(formatdate(time.time() + 100, usegmt=True))

    assert failures.parse_retry_after("7") == 7
    assert soon is not None
    assert 90 < soon <= 100
    assert failures.parse_retry_after(formatdate(0, usegmt=True)) == 0
    assert failures.parse_retry_after("99999999") == failures.RETRY_AFTER_MAX_S
    assert failures.parse_retry_after("soon") is None
    assert failures.parse_retry_after(None) is None
