"""A mount on the real govc server: saves, outages, what it cannot hold, and other clients."""

import json
import os
import signal
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.mount.agreement import check_agreement
from tests.support.govc_server import GovcServer, GovcServers, free_port
from tests.support.mount import Mount, git
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.govc, pytest.mark.slow]


def ask(server: GovcServer, route: str) -> dict[str, Any]:
    """Return what the server answers on `route`, as any HTTP client sees it."""
    url = f"{server.url}/api/v2/repos/caia-documents/{route}"
    with urllib.request.urlopen(url, timeout=30) as reply:
        return dict(json.load(reply))


def content(server: GovcServer, path: str) -> str:
    return str(ask(server, f"files?path={urllib.parse.quote(path)}")["content"])


def govc_stats(caia: Mount) -> dict[str, object]:
    """Return what stats.json says of govc."""
    return dict(caia.stats()["storage_stats"]["govc"])


def test_every_save_is_a_commit_in_govc_and_in_git(caia_on_govc: Mount, govc: GovcServer):
    caia = caia_on_govc
    for text in ("one\n", "two\n", "three\n"):
        (caia / "doc.txt").write_text(text)
        caia.sync()
        assert content(govc, "doc.txt") == text

    shown = ask(govc, "commits?limit=50")["commits"]
    saves = [commit for commit in shown if "Caiafs-Operation" in commit["message"]]
    assert len(saves) == 3
    assert all("doc.txt" in commit["message"] for commit in saves)
    assert len(caia.commits()) == 3
    assert caia.git("cat-file", "blob", "HEAD:doc.txt") == "three\n"


def test_another_govc_client_reads_a_text_as_it_is(caia_on_govc: Mount, govc: GovcServer):
    text = "Gr\u00fc\u00dfe,\n\ttabs \u0007 and \u20ac\n"

    (caia_on_govc / "documents").mkdir()
    (caia_on_govc / "documents" / "text.txt").write_text(text)
    caia_on_govc.sync()

    assert content(govc, "documents/text.txt") == text


def test_health_and_stats_say_that_govc_is_used(caia_on_govc: Mount):
    (caia_on_govc / "doc").write_text("text")
    caia_on_govc.sync()

    health = caia_on_govc.wait_health("ok")
    stats = wait_until(
        lambda: held if (held := govc_stats(caia_on_govc))["documents_in_memory"] else None,
        "govc's documents are counted",
    )
    assert health["mode"] == "hybrid"
    assert health["listing"] == "partial"
    assert stats["govc_integrated"] is True
    assert stats["implementation"] == "rest-v2"
    assert stats["documents_in_memory"] == 1


def test_old_architecture_lists_everything(mount_caia: MountFactory, govc_servers: GovcServers):
    caia = mount_caia(env=govc_environment(govc_servers(architecture="old")))
    (caia / "doc").write_text("text")
    caia.sync()

    assert caia.wait_health("ok")["listing"] == "complete"
    assert caia.stats()["storage_stats"]["govc"]["implementation"] == "rest-v1"


def test_what_govc_cannot_hold_comes_back_as_it_was(
    caia_on_govc: Mount, govc: GovcServer, tmp_path: Path
):
    caia = caia_on_govc
    contents = {
        b"empty": b"",
        b"binary": bytes(range(256)) * 300,
        b"nul": b"a\0b",
        b"large": os.urandom(9_000_000),
        b".hidden": b"first character is a dot",
        b"foo..": b"",
        b"a:b": b"colon second",
        b"not utf-8 \xff": b"name in bytes",
        b"like an envelope": b'{"caiafs": 1}',
    }
    for name, data in contents.items():
        with open(os.fsencode(caia.path) + b"/" + name, "wb") as handle:
            handle.write(data)
    (caia / "folder..").mkdir()
    (caia / "folder.." / "doc").write_text("folder that ends in dots")
    (caia / "run").write_text("#!/bin/sh\n")
    (caia / "run").chmod(0o755)
    (caia / "link").symlink_to("run")

    check_agreement(caia, tmp_path, govc)


def test_outage_changes_nothing_for_the_user_and_heals(
    caia_on_govc: Mount, govc: GovcServer, tmp_path: Path
):
    caia = caia_on_govc
    caia.expect_log(r"govc")
    (caia / "before").write_text("before")
    (caia / "deleted").write_text("deleted during the outage")
    caia.sync()

    govc.stop()
    (caia / "during").write_text("during")
    (caia / "deleted").unlink()
    (caia / "before").rename(caia / "renamed")
    assert "govc" in str(caia.wait_health("degraded")["reasons"])
    wait_until(
        lambda: caia.git("ls-tree", "--name-only", "HEAD").split() == ["during", "renamed"],
        "git has the saves of the outage",
    )

    govc.start()

    caia.wait_health("ok")
    check_agreement(caia, tmp_path, govc)


def test_hanging_govc_delays_nobody(caia_on_govc: Mount, govc: GovcServer, tmp_path: Path):
    caia = caia_on_govc
    caia.expect_log(r"govc")
    (caia / "before").write_text("before")
    caia.sync()

    govc.pause()
    try:
        for i in range(50):
            (caia / f"doc-{i}").write_text(f"document {i}")
        assert (caia / "before").read_text() == "before"
        assert len(os.listdir(caia.path)) == 51
        caia.wait_health("degraded")
        wait_until(
            lambda: len(caia.git("ls-tree", "--name-only", "HEAD").split()) == 51,
            "git has what govc does not answer for",
        )
    finally:
        govc.resume()

    check_agreement(caia, tmp_path, govc)


def test_mount_without_a_server_works_and_catches_up(
    mount_caia: MountFactory, govc_servers: GovcServers, tmp_path: Path
):
    govc = govc_servers()
    govc.stop()
    caia = mount_caia(env=govc_environment(govc))
    caia.expect_log(r"govc")
    (caia / "doc").write_text("saved before the server was there")
    caia.wait_health("degraded")

    govc.start()

    caia.wait_health("ok")
    check_agreement(caia, tmp_path, govc)


def test_nobody_at_the_address_is_degraded_and_never_in_the_way(mount_caia: MountFactory):
    caia = mount_caia(env={"GOVC_SERVICE_URL": f"http://127.0.0.1:{free_port()}"})
    caia.expect_log(r"govc")

    (caia / "doc").write_text("text")

    assert caia.wait_health("degraded")["reasons"]
    wait_until(lambda: caia.commits(), "the save is in git")
    assert caia.git("cat-file", "blob", "HEAD:doc") == "text"


def test_wrong_token_mounts_degraded_with_the_reason(
    mount_caia: MountFactory, govc_servers: GovcServers
):
    govc = govc_servers(auth=True)
    env = {**govc_environment(govc), "GOVC_AUTH_TOKEN": "not-a-token"}
    caia = mount_caia(env=env)
    caia.expect_log(r"govc")

    (caia / "doc").write_text("text")

    caia.wait_health("degraded")
    wait_until(lambda: "token" in str(caia.health()["reasons"]), "health names the token")
    wait_until(lambda: caia.commits(), "the save is in git")
    assert "not-a-token" not in caia.log()


def test_right_token_is_taken(mount_caia: MountFactory, govc_servers: GovcServers, tmp_path: Path):
    govc = govc_servers(auth=True)
    caia = mount_caia(env={**govc_environment(govc), "GOVC_AUTH_TOKEN": govc.login()})

    (caia / "doc").write_text("text")
    caia.sync()

    caia.wait_health("ok")
    assert caia.git("cat-file", "blob", "HEAD:doc") == "text"


@pytest.mark.parametrize("saves", [10, 60])
def test_closed_files_reach_both_stores_after_both_processes_were_killed(
    caia_on_govc: Mount, govc: GovcServer, tmp_path: Path, saves: int
):
    caia = caia_on_govc
    caia.expect_log(r"store process")
    for i in range(saves):
        (caia / f"doc-{i}").write_bytes(os.urandom(i * 300))
    os.kill(caia.store_pid, signal.SIGKILL)
    caia.kill9()

    caia.start()

    assert len(os.listdir(caia.path)) == saves
    check_agreement(caia, tmp_path, govc)
    messages = [commit["message"] for commit in ask(govc, "commits?limit=500")["commits"]]
    operations = [
        line
        for message in messages
        for line in message.splitlines()
        if line.startswith("Caiafs-Operation")
    ]
    assert len(operations) == len(set(operations))


def test_existing_repository_is_given_to_an_empty_govc(
    mount_caia: MountFactory, govc: GovcServer, tmp_path: Path
):
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    for i in range(20):
        (work / f"doc-{i}").write_text(f"document {i}\n")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)
    git("clone", "-q", "--bare", work, tmp_path / "bare", cwd=tmp_path)

    caia = mount_caia(repo=tmp_path / "bare", env=govc_environment(govc))

    check_agreement(caia, tmp_path, govc)


def test_unmount_during_an_outage_keeps_what_govc_lacks_for_the_next_mount(
    caia_on_govc: Mount, govc: GovcServer, tmp_path: Path
):
    caia = caia_on_govc
    caia.expect_log(r"govc")
    govc.stop()
    (caia / "doc").write_text("text")
    caia.options = ("unmount_grace=1s",)
    caia.unmount()
    govc.start()

    caia.start()

    check_agreement(caia, tmp_path, govc)
