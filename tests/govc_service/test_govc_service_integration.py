"""Integration with the govc service: every kind of document through a real mount, and what other clients see and do."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.govc_service.conftest import URL, Service
from tests.support.govc_server import GovcServers
from tests.support.mount import Mount
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.govc, pytest.mark.slow]

KINDS = {
    "text": b"Plain text.\n",
    "unicode": "Grüße, 文書, \N{GRINNING FACE}\n".encode(),
    "control characters": b"a\tb\rc\x07d\x00e",
    "one byte": b"x",
    "empty": b"",
    "binary": bytes(range(256)) * 64,
    "not UTF-8": b"\xff\xfe caf\xe9",
    "a quote and a backslash": b'"\\"\\u0000\n',
    "JSON": b'{"a": [1, 2, {"b": null}]}',
    "like an envelope": b'{"caiafs-envelope":1,"deleted":true}',
    "a megabyte": b"0123456789abcdef" * 65_536,
    "above the request limit": os.urandom(1 << 20) * 12,
}

NAMES = [
    b"plain.txt", b"with blanks in it", "Grüße-文書".encode(), b".hidden", b"..two dots", b"ends in dots..",
    b"a:b", b"C:\\path", b"back\\slash", b"percent %41", b"question?mark#hash&amp", b"new\nline", b"-rf",
    b"not utf-8 \xff\xfe", b"n" * 255, b"files", b"caiafs-escaped", b"'quotes\"", b"+plus=",
]  # fmt: skip


def write(path: bytes | Path, content: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(content)


def test_contents_of_every_kind_are_in_govc_as_they_were_saved(
    caia: Mount, service: Service, tmp_path: Path
):
    for kind, content in KINDS.items():
        write(caia / kind, content)

    service.check_agreement(caia, tmp_path)


def test_names_of_every_kind_are_in_govc_and_come_back(
    caia: Mount, service: Service, tmp_path: Path
):
    top = os.fsencode(caia.path)
    for name in NAMES:
        write(top + b"/" + name, b"content of " + name)
    deep = top + b"/" + b"/".join([b"d" * 40] * 20)
    os.makedirs(deep)
    write(deep + b"/leaf", b"deep")

    service.check_agreement(caia, tmp_path)


def test_executables_and_links_are_in_govc_as_such(caia: Mount, service: Service, tmp_path: Path):
    write(caia / "run", b"#!/bin/sh\n")
    (caia / "run").chmod(0o755)
    (caia / "link").symlink_to("run")
    (caia / "dangling").symlink_to("/nowhere/at/all")

    service.check_agreement(caia, tmp_path)


def test_caia_library_layout_is_readable_for_every_other_client(
    caia: Mount, service: Service, tmp_path: Path
):
    for kind, year, month, number in (
        ("article", 2024, 1, 1),
        ("article", 2024, 12, 2),
        ("pdf", 2025, 3, 3),
    ):
        folder = caia.path / "documents" / kind / str(year) / f"{month:02d}" / f"id-{number}"
        folder.mkdir(parents=True)
        metadata = {
            "id": f"id-{number}",
            "type": kind,
            "title": f"Document {number}",
            "tags": ["a", "b"],
        }
        (folder / "metadata.json").write_text(json.dumps(metadata, indent=2))
        (folder / ("content.txt" if kind == "pdf" else "text.txt")).write_text(f"Text {number}\n")
        write(folder / "raw", b"%PDF-1.7\n\xe2\xe3\xcf\xd3" if kind == "pdf" else b"<html></html>")

    service.check_agreement(caia, tmp_path)

    root = "documents/article/2024/01/id-1"
    assert json.loads(service.text(f"{root}/metadata.json"))["title"] == "Document 1"
    assert service.text(f"{root}/text.txt") == "Text 1\n"


def test_every_save_is_a_commit_that_says_who_what_and_by_which_operation(
    caia: Mount, service: Service
):
    for text in ("first\n", "second\n", "third\n"):
        (caia / "doc.txt").write_text(text)
        caia.sync()
        assert service.text("doc.txt") == text

    commits = [commit for commit in service.log() if "Caiafs-Operation" in commit["message"]]
    author = caia.git("log", "-1", "--format=%an").strip()
    assert len(commits) == 3
    assert all("doc.txt" in commit["message"] for commit in commits)
    assert {commit["author"] for commit in commits} == {author}
    in_git = caia.git("log", "--format=%(trailers:key=Caiafs-Operation,valueonly)").split()
    in_govc = [line.partition(": ")[2] for line in service.operations()]
    assert in_govc == in_git


def test_changes_removals_and_renames_reach_govc(caia: Mount, service: Service, tmp_path: Path):
    (caia / "folder").mkdir()
    for number in range(5):
        (caia / "folder" / f"doc-{number}").write_text(f"{number}\n")
    (caia / "gone").write_text("gone\n")
    caia.sync()

    (caia / "gone").unlink()
    (caia / "folder").rename(caia / "moved")
    (caia / "moved" / "doc-0").rename(caia / "moved" / "renamed")
    (caia / "moved" / "doc-1").write_text("changed\n")
    (caia / "moved" / "doc-2").chmod(0o755)

    service.check_agreement(caia, tmp_path)
    assert service.text("moved/doc-1") == "changed\n"
    again = mounted_names(caia)
    assert again == ["doc-1", "doc-2", "doc-3", "doc-4", "renamed"]


def mounted_names(caia: Mount) -> list[str]:
    return sorted(os.listdir(caia / "moved"))


def test_commit_of_another_client_is_seen_in_the_mount(
    caia: Mount, service: Service, tmp_path: Path
):
    (caia / "ours").write_text("ours\n")
    caia.sync()

    service.write("theirs.txt", "theirs\n")

    wait_until(lambda: (caia / "theirs.txt").exists(), "their document is seen")
    assert (caia / "theirs.txt").read_text() == "theirs\n"
    service.check_agreement(caia, tmp_path)


def test_two_mounts_on_one_service_see_each_other(
    mount_caia: MountFactory, service: Service, tmp_path: Path
):
    one = mount_caia("one", env=service.environment())
    (one / "from-one").write_text("one\n")
    one.sync()
    two = mount_caia("two", env=service.environment())
    wait_until(lambda: (two / "from-one").exists(), "the second one has the first one's")

    (two / "from-two").write_text("two\n")
    two.sync()

    wait_until(lambda: (one / "from-two").exists(), "the first one has the second one's")
    assert (one / "from-two").read_text() == "two\n"


def test_health_and_statistics_tell_of_the_service(caia: Mount, service: Service):
    for number in range(3):
        (caia / f"doc-{number}").write_text(f"{number}\n")
    caia.sync()

    health = caia.wait_health("ok")
    told = wait_until(
        lambda: (
            found
            if (found := caia.stats()["storage_stats"]["govc"])["documents_in_memory"] == 3
            else None
        ),
        "the three documents are counted",
    )
    assert health["mode"] == "hybrid"
    assert told["govc_integrated"] is True
    assert told["implementation"] in {"rest-v1", "rest-v2", "contract"}
    assert told["operations"]["commit"]["success"] >= 1


@pytest.mark.skipif(bool(URL), reason="your server's authentication is used as it is")
@pytest.mark.parametrize("kind", ["login", "api_key"])
def test_token_of_either_kind_is_taken(
    mount_caia: MountFactory, govc_servers: GovcServers, tmp_path: Path, kind: str
):
    server = govc_servers(auth=True)
    service = Service(server.url, server, token=getattr(server, kind)())
    caia = mount_caia(env=service.environment())

    (caia / "doc").write_text("text\n")

    service.check_agreement(caia, tmp_path)
    caia.wait_health("ok")
