"""Large documents both ways in bounded memory."""

import io
import json
import random
import subprocess
import sys

import pytest
import trio

from caiafs.backends.govc.paths import PARTS_DIR
from caiafs.core.errors import Corrupt
from caiafs.core.types import DocPath
from tests.govc.test_commits import post
from tests.support.govc_documents import a_change_set
from tests.support.govc_server import PROJECT

pytestmark = pytest.mark.govc

LARGE = 300 << 20


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("architecture", ["new", "old"])
async def test_a_large_document_takes_a_small_share_of_its_size_in_memory(
    govc_servers, tmp_path, architecture
):
    server = govc_servers(architecture=architecture)
    arguments = [server.url, str(LARGE), str(tmp_path / "fetched")]

    done = await trio.run_process(
        [sys.executable, "-m", "tests.support.govc_memory", *arguments],
        cwd=PROJECT,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )

    assert done.returncode == 0, done.stdout.decode()
    figures = json.loads(done.stdout)
    assert figures["sending"] - figures["before"] < LARGE // 8, figures
    assert figures["fetching"] - figures["before"] < LARGE // 8, figures


async def test_documents_are_written_to_a_file_where_it_stands(any_server, backends, contents):
    backend = backends(any_server)
    await backend.connect()
    entries = {b"text": contents.put(b"plain\n"), b"empty": contents.put(b"")}
    entries[b"binary"] = contents.put(random.Random(1).randbytes(70_000))
    await backend.commit(a_change_set(entries))

    for path, entry in entries.items():
        file = io.BytesIO(b"before")
        file.seek(0, io.SEEK_END)
        assert await backend.read_to(DocPath(path), file) == entry
        assert file.getvalue() == b"before" + contents.held[entry.oid]
    file = io.BytesIO(b"before")
    assert await backend.read_to(DocPath(b"not there"), file) is None
    assert file.getvalue() == b"before"


async def test_parts_are_written_to_a_file_in_order(govc_servers, backends, contents, tmp_path):
    backend = backends(govc_servers(max_request=100_000))
    await backend.connect()
    entry = contents.put(random.Random(2).randbytes(500_000))
    await backend.commit(a_change_set({b"a": entry}))

    with (tmp_path / "fetched").open("w+b") as file:
        found = await backend.read_to(DocPath(b"a"), file)
        file.seek(0)
        written = file.read()

    assert found == entry
    assert written == contents.held[entry.oid]


@pytest.mark.parametrize("damage", ["other bytes", "not base64", "missing"])
async def test_parts_that_do_not_add_up_leave_the_file_as_it_was(
    govc_servers, backends, contents, damage
):
    server = govc_servers(architecture="old", max_request=100_000)
    backend = backends(server)
    await backend.connect()
    entry = contents.put(random.Random(3).randbytes(200_000))
    await backend.commit(a_change_set({b"a": entry}))
    name = f"{PARTS_DIR}/{entry.oid}/65536/2"
    file = io.BytesIO(b"before")
    file.seek(0, io.SEEK_END)

    spoil(server, name, damage)
    with pytest.raises(Corrupt):
        await backend.read_to(DocPath(b"a"), file)

    assert file.getvalue() == b"before"
    assert file.tell() == len(b"before")


def spoil(server, name, damage):
    """Change one part as a broken disk or another client would."""
    target = "/api/v1/repos/docs/"
    if damage == "missing":
        post(server, target + "move", {"from": name, "to": "elsewhere"})
    else:
        text = "A" * (65536 // 3 * 4) + "AA==" if damage == "other bytes" else "!"
        post(server, target + "add", {"path": name, "content": text})
    post(server, target + "commit", {"message": "m", "author": "x", "email": "x@y.z"})
