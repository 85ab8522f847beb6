"""The client against servers that misbehave: on real sockets, from scripts."""

import gzip
import json
import logging
import ssl
import subprocess
import zlib

import pytest
import trio

from caiafs.backends.govc import GovcBackend, GovcSettings, client
from caiafs.backends.govc.client import GovcClient
from caiafs.backends.govc.dialects.v2 import V2
from caiafs.backends.govc.reader import Reader
from caiafs.backends.govc.wire import Request
from caiafs.core.errors import Corrupt, DeadlineExceeded, Misconfigured, Refused, Unreachable
from caiafs.core.types import DocPath
from tests.support.govc_documents import Contents
from tests.support.requirements import require_tool
from tests.support.scripted_server import ScriptedServer, http

GET = Request("GET", "/api/x", "read", path=DocPath(b"the/path"))
POST = Request("POST", "/api/x", "add", b'{"a":1}', path=DocPath(b"the/path"))


def code(status, name, **headers):
    return http(status, json.dumps({"error": "why", "code": name}).encode(), **headers)


@pytest.fixture
async def serve(nursery):
    """Return a function that starts a scripted server and gives it and a client of it."""
    made = []

    async def start(*script, **settings):
        server = ScriptedServer(*script)
        await nursery.start(server.run)
        made.append(GovcClient(GovcSettings(server.url, **settings)))
        return server, made[-1]

    yield start
    for each in made:
        await each.aclose()
    nursery.cancel_scope.cancel()


async def test_success_is_returned_as_parsed(serve):
    _, govc = await serve(http(200, b'{"a": [1]}'))

    assert (await govc.send(GET)).payload == {"a": [1]}


async def test_request_of_somebody_who_still_has_a_client_that_was_replaced_is_tried_again(serve):
    _, govc = await serve(http(200, b"{}"))
    await govc.aclose()

    with pytest.raises(Unreachable, match="replaced") as caught:
        await govc.send(GET)

    assert caught.value.retryable


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (code(500, "X"), Unreachable),
        (code(503, "X"), Unreachable),
        (code(429, "X"), Unreachable),
        (code(404, "REPO_NOT_FOUND"), Unreachable),
        (code(401, "X"), Misconfigured),
        (code(403, "X"), Misconfigured),
        (code(407, "X"), Misconfigured),
        (code(404, "ENDPOINT_NOT_FOUND"), Misconfigured),
        (code(400, "INVALID_FILE_PATH"), Refused),
        (http(404, b"<html>", Content_Type="text/html"), Misconfigured),
        (http(200, b"<html>", Content_Type="text/html"), Misconfigured),
        (http(301, b"", Location="http://elsewhere/"), Misconfigured),
        (http(307, b"", Location="/elsewhere"), Misconfigured),
        (http(502, b"<html>", Content_Type="text/html"), Unreachable),
        (http(200, b"{"), Corrupt),
        (http(200, b"\xff\xfe"), Corrupt),
        (http(200, b"[" * 100_000), Corrupt),
        (http(200, b"9" * 5000), Corrupt),
        (http(200, gzip.compress(b"{}")[:-9] + b"xxxxxxxxx", Content_Encoding="gzip"), Corrupt),
        (http(200, b"{}", Content_Encoding="br"), Corrupt),
        (b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n{}", Unreachable),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Unreachable),
        (b"", Unreachable),
    ],
)
async def test_every_misbehaviour_becomes_one_of_our_errors(serve, answer, kind):
    server = [answer, b""] if answer.endswith(b"{}") and b": 9" in answer else [answer]
    _, govc = await serve(*server, operation_timeout_s=2)

    with pytest.raises(kind) as caught:
        await govc.send(GET)

    assert caught.value.backend == "govc"


async def test_corrupt_answers_name_the_document(serve):
    _, govc = await serve(http(200, b"{"))

    with pytest.raises(Corrupt, match="the/path"):
        await govc.send(GET)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_answer_is_inflated_and_a_bomb_is_not(serve, monkeypatch, encoding):
    monkeypatch.setattr(client, "ANSWER_MAX_BYTES", 10_000)
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    small = http(200, pack(b'{"a":1}'), Content_Encoding=encoding)
    bomb = http(200, pack(b" " * 50_000_000), Content_Encoding=encoding)
    _, govc = await serve(small, bomb)

    assert (await govc.send(GET)).payload == {"a": 1}
    with pytest.raises(Corrupt, match="more than 10000 bytes"):
        await govc.send(GET)


async def test_an_endless_answer_is_cut_off(serve, monkeypatch):
    monkeypatch.setattr(client, "ANSWER_MAX_BYTES", 10_000)
    _, govc = await serve(http(200, b" " * 1_000_000))

    with pytest.raises(Corrupt, match="more than"):
        await govc.send(GET)


async def test_silence_ends_at_the_deadline(serve, autojump_clock):
    _, govc = await serve(None, operation_timeout_s=5)
    began = trio.current_time()

    with pytest.raises(DeadlineExceeded, match="within 5 s"):
        await govc.send(GET)

    assert trio.current_time() - began == pytest.approx(5)


async def test_large_answer_has_the_time_that_a_slow_line_takes(serve, autojump_clock):
    body = b'"' + b"x" * (8 * client.MIB) + b'"'
    server, govc = await serve(http(200, body), operation_timeout_s=5)

    server.pause_s = 7.0
    assert len((await govc.send(GET)).payload) == 8 * client.MIB

    server.pause_s = 60.0
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await govc.send(GET)
    assert trio.current_time() - began < 14


async def test_retry_after_is_passed_on(serve):
    _, govc = await serve(code(429, "RATE_LIMITED", Retry_After="7"))

    with pytest.raises(Unreachable) as caught:
        await govc.send(GET)

    assert caught.value.retry_after_s == 7


async def test_a_dead_pooled_connection_is_no_outage(serve):
    server, govc = await serve(http(200), b"", http(200))
    await govc.send(GET)

    await govc.send(POST)

    assert len(server.requests) == 3


async def test_a_commit_is_never_sent_twice_by_itself(serve):
    server, govc = await serve(http(200), b"", http(200))
    await govc.send(GET)

    with pytest.raises(Unreachable):
        await govc.send(Request("POST", "/x", "commit", b"{}", repeatable=False))

    assert len(server.requests) == 2


async def test_a_csrf_token_is_fetched_once_it_is_wanted(serve):
    refusal = code(403, "CSRF_TOKEN_INVALID")
    server, govc = await serve(refusal, http(200, X_CSRF_Token="fresh"), http(201))

    assert (await govc.send(POST)).status == 201
    assert b"X-CSRF-Token: fresh" in server.requests[2]


async def test_a_csrf_token_that_is_never_right_is_no_loop(serve):
    server, govc = await serve(
        lambda request: (
            http(200, X_CSRF_Token="t")
            if request.startswith(b"GET")
            else code(403, "CSRF_TOKEN_INVALID")
        )
    )

    with pytest.raises(Misconfigured):
        await govc.send(POST)

    assert len(server.requests) <= 6


@pytest.mark.parametrize(
    ("token", "header"),
    [("govc_abc", b"X-API-Key: govc_abc"), ("a.b.c", b"Authorization: Bearer a.b.c")],
)
async def test_a_token_travels_in_its_header_and_nowhere_else(serve, token, header, caplog):
    caplog.set_level(logging.DEBUG)
    echo = http(400, json.dumps({"error": f"bad {token}", "code": "X"}).encode())
    server, govc = await serve(echo, token=token)

    with pytest.raises(Refused) as caught:
        await govc.send(POST)

    assert header in server.requests[0]
    assert server.requests[0].count(token.encode()) == 1
    assert token not in f"{caught.value} {caught.value!r} {caught.value.reason} {caplog.text}"


async def test_a_redirect_does_not_carry_the_token(serve):
    elsewhere, _ = await serve(http(200))
    _, govc = await serve(http(307, b"", Location=f"{elsewhere.url}/x"), token="secret")

    with pytest.raises(Misconfigured):
        await govc.send(GET)

    assert elsewhere.requests == []


async def test_a_token_is_not_sent_in_the_clear_to_another_host():
    settings = GovcSettings("http://govc.example.org", token="secret")
    backend = GovcBackend(settings, Contents())

    with pytest.raises(Misconfigured, match="plain HTTP"):
        await backend.connect()


async def test_a_proxy_in_the_environment_is_not_used(serve, monkeypatch):
    proxy, _ = await serve(http(200))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    server, govc = await serve(http(200))

    await govc.send(GET)

    assert len(server.requests) == 1
    assert proxy.requests == []


async def test_a_ca_file_that_cannot_be_read_is_a_misconfiguration(tmp_path):
    settings = GovcSettings("https://127.0.0.1:1", ca_file=tmp_path / "missing.pem")
    govc = GovcClient(settings)

    with pytest.raises(Misconfigured, match=r"missing\.pem"):
        await govc.send(GET)

    await govc.aclose()


def file(**changes):
    fields = {"path": "a/b", "content": "hi", "encoding": "utf-8", "size": 2} | changes
    return http(200, json.dumps(fields).encode())


@pytest.mark.parametrize(
    "answer",
    [
        file(path="a/c"),
        file(path="../../etc/passwd"),
        file(path=None),
        file(content=["hi"]),
        file(content="\ud800"),
        file(encoding="rot13"),
        file(encoding="base64", content="!"),
        file(size=10**30),
        file(size="2"),
        file(content='{"caiafs-envelope":1,"path":"a/c","deleted":true}', size=None),
        http(200, b"[]"),
        http(200, b"null"),
        http(200, b'"text"'),
    ],
)
async def test_a_hostile_document_is_refused_by_name(serve, answer):
    _, govc = await serve(answer)

    with pytest.raises(Corrupt, match="a/b"):
        await Reader(govc, V2("docs")).read(DocPath(b"a/b"))


async def test_parts_that_are_not_the_blob_are_refused(serve):
    oid = "a" * 40
    head = (
        f'{{"caiafs-envelope":1,"blob":"{oid}","encoding":"parts","mode":"100644",'
        '"part_bytes":4096,"size":3}'
    )
    part = file(path=f"caiafs-parts/{oid}/4096/0", content="YWJj", size=4)
    gone = code(404, "FILE_NOT_FOUND")
    _, govc = await serve(file(content=head, size=None), part, file(content=head, size=None), gone)
    reader = Reader(govc, V2("docs"))

    with pytest.raises(Corrupt, match="a/b: the parts do not add up"):
        await reader.read(DocPath(b"a/b"))
    with pytest.raises(Corrupt, match="a/b: part 0 is missing"):
        await reader.read(DocPath(b"a/b"))


@pytest.mark.parametrize(
    "body",
    [
        b'{"commits": {}}',
        b'{"commits": [{}]}',
        b'{"commits": [{"hash": "../../x"}]}',
        b'{"commits": [{"hash": "a", "message": 1}]}',
        b"[]",
    ],
)
async def test_a_log_that_makes_no_sense_is_refused(serve, body):
    _, govc = await serve(http(200, body))

    with pytest.raises(Corrupt):
        await Reader(govc, V2("docs")).log(5)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a self-signed certificate of 127.0.0.1 with its key, in one file."""
    require_tool("openssl")
    where = tmp_path_factory.mktemp("tls") / "server.pem"
    options = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", where, "-out", f"{where}.crt"]
    subprocess.run(["openssl", *options.split(), *names, *files], check=True, capture_output=True)
    where.write_bytes(where.read_bytes() + where.with_name("server.pem.crt").read_bytes())
    return where


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_server_is_believed_only_with_a_certificate_of_our_authority(
    nursery, certificate, trusted
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ScriptedServer(http(200), tls=context)
    await nursery.start(server.run)
    url = server.url.replace("http:", "https:")
    govc = GovcClient(GovcSettings(url, token="t", ca_file=certificate if trusted else None))

    if trusted:
        assert (await govc.send(GET)).status == 200
    else:
        with pytest.raises(Misconfigured, match="TLS"):
            await govc.send(GET)
        assert server.requests == []

    await govc.aclose()
    nursery.cancel_scope.cancel()
