"""Two real mounts on one bare repository, one of them with the real govc: work, outages, deaths, and what status says."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.mount.agreement import check_agreement
from tests.semantics.test_git_remote import FAST, come_level, machine, shared, shown
from tests.support.git_remote import SharedRepository
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount, run_caiafs
from tests.support.waiting import wait_until

__all__ = ["shared"]

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.mark.govc
def test_what_one_machine_saves_is_in_the_govc_of_the_other(
    mount_caia: MountFactory, shared: SharedRepository, govc: GovcServer, tmp_path: Path
):
    env = {**govc_environment(govc), "CAIA_GIT_REMOTE": str(shared.path)}
    one = mount_caia("one", env=env, options=(FAST,))
    two = machine(mount_caia, shared, "two")
    (one / "documents").mkdir()
    (one / "documents" / "first.txt").write_text("1\n2\n3\n4\n5\n")
    wait_until((two / "documents" / "first.txt").exists, "it is on the other machine")

    (two / "documents" / "second.txt").write_text("second\n")
    (two / "documents" / "first.txt").write_text("1\n2\n3\n4\nfive\n")
    (one / "documents" / "first.txt").write_text("one\n2\n3\n4\n5\n")
    one.sync()
    two.sync()

    merged = "one\n2\n3\n4\nfive\n"
    wait_until(
        lambda: (
            (one / "documents" / "first.txt").read_text()
            == (two / "documents" / "first.txt").read_text()
            == merged
        ),
        "both have the merge",
    )
    wait_until((one / "documents" / "second.txt").exists, "two's document is on one")
    check_agreement(one, tmp_path, govc)


def test_an_rsync_of_many_documents_arrives_whole(
    mount_caia: MountFactory, shared: SharedRepository, tmp_path: Path
):
    one, two = (machine(mount_caia, shared, name) for name in ("one", "two"))
    source = tmp_path / "source"
    for number in range(300):
        file = source / f"d{number % 7}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"document {number}\n" * (number % 50))
    (source / "binary").write_bytes(os.urandom(3_000_000))
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("run")

    subprocess.run(["cp", "-a", f"{source}/.", one.path], check=True)
    one.sync()

    def arrived() -> bool:
        done = subprocess.run(["diff", "-r", "--no-dereference", source, two.path], check=False)
        return done.returncode == 0

    wait_until(arrived, "all of it is on the other machine", timeout_s=60)
    assert os.access(two / "run", os.X_OK)
    assert os.readlink(two / "link") == "run"


def test_deaths_lose_nothing_and_double_nothing(mount_caia: MountFactory, shared: SharedRepository):
    one, two = (machine(mount_caia, shared, name) for name in ("one", "two"))
    for caia in (one, two):
        caia.expect_log("store process")
    for turn in range(4):
        for name, caia in (("one", one), ("two", two)):
            for number in range(5):
                (caia / f"{name}-{turn}-{number}").write_text(f"{turn} {number}\n")
        (one if turn % 2 else two).kill9_store()
    one.kill9()
    (two / "while-dead").write_text("text\n")
    one.start()

    found = come_level(shared, one, two)

    assert len(found) == 41
    messages = shared.git("log", "--format=%B", "main").splitlines()
    operations = [line for line in messages if line.startswith("Caiafs-Operation: ")]
    assert len(operations) == len(set(operations))
    shared.git("fsck", "--strict")


def test_status_metrics_and_files_show_the_remote(
    mount_caia: MountFactory, shared: SharedRepository
):
    caia = machine(mount_caia, shared, "machine")
    (caia / "doc").write_text("text\n")
    come_level(shared, caia)
    wait_until(
        lambda: caia.health()["remote"]["last_push_s"] > 0, "health knows when it was pushed to"
    )

    health, stats = caia.health()["remote"], caia.stats()["storage_stats"]["git_remote"]
    metrics = caia.virtual("metrics").decode()
    status = run_caiafs("status", caia.path).stdout

    assert health["configured"]
    assert health["condition"] == "ok"
    assert health["url"] == str(shared.path)
    assert (health["ahead"], health["behind"]) == (0, 0)
    assert health["last_fetch_s"] > 0
    assert stats["head"] == shared.head()
    assert stats["operations"]["push"]["success"] == 1
    assert "caiafs_remote_up 1\n" in metrics
    assert "caiafs_remote_ahead_commits 0\n" in metrics
    assert 'caiafs_operations_total{backend="git_remote",operation="push",outcome="success"} 1' in (
        metrics
    )
    [line] = [line for line in status.splitlines() if line.startswith("remote:")]
    assert f"ok, main of {shared.path}, looked at" in line
    config = json.loads(caia.virtual("config.json"))
    assert config["git_remote"]["origin"] == "CAIA_GIT_REMOTE in the environment"


def test_a_password_shows_in_no_file_of_the_mount(mount_caia: MountFactory):
    env = {"CAIA_GIT_REMOTE": "http://ada:topsecret@127.0.0.1:1/docs.git"}
    caia = mount_caia(env=env, options=(FAST,))
    caia.expect_log("git remote|left to publish")
    (caia / "doc").write_text("text\n")
    wait_until(lambda: "127.0.0.1" in str(caia.health()["reasons"]), "health says it is away")

    for name in ("config.json", "health.json", "stats.json", "metrics"):
        assert b"topsecret" not in caia.virtual(name)
    assert "topsecret" not in caia.log()
    assert "topsecret" not in run_caiafs("status", caia.path).stdout
    for pid in (caia.pid, caia.store_pid):
        for name in ("cmdline", "environ"):
            assert b"topsecret" not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_unmount_while_the_remote_is_away_says_what_is_left(
    mount_caia: MountFactory, shared: SharedRepository
):
    caia = machine(mount_caia, shared, "machine", "git_remote_interval=1h")
    caia.expect_log("git remote|left to publish")
    away = shared.path.rename(shared.path.with_name("away.git"))
    (caia / "doc").write_text("text\n")

    done = run_caiafs("umount", caia.path)

    assert done.returncode == 3, done.stdout + done.stderr
    assert "1 for remote" in done.stdout
    caia.wait_ended()
    away.rename(shared.path)
    caia.start()
    assert come_level(shared, caia) == {"doc": "text\n"}


def test_an_open_file_keeps_its_content_while_another_machine_saves(
    mount_caia: MountFactory, shared: SharedRepository
):
    one, two = (machine(mount_caia, shared, name) for name in ("one", "two"))
    (one / "doc").write_text("first\n")
    come_level(shared, one, two)
    with (two / "doc").open() as reader:
        (one / "doc").write_text("second, and longer\n")

        wait_until(lambda: (two / "doc").read_text() == "second, and longer\n", "it arrives")

        assert reader.read() == "first\n"


def test_a_mount_of_a_folder_that_is_still_empty_begins_with_the_remote_s_documents(
    mount_caia: MountFactory, shared: SharedRepository
):
    shared.commit({"doc": "from the remote\n"})

    caia: Mount = machine(mount_caia, shared, "machine", "git_remote_interval=1h")

    assert shown(caia) == {"doc": "from the remote\n"}
