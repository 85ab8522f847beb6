"""Proofs of caiafs-semantics(7): the stores."""

import os
import time
from pathlib import Path

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.mount.agreement import check_agreement
from tests.support.govc_server import GovcServer, GovcServers
from tests.support.mount import Mount
from tests.support.promises import promise
from tests.support.waiting import wait_until

OPERATION_TIMEOUT_S = 5
UNMOUNT_GRACE_S = 3

pytestmark = [pytest.mark.mount, pytest.mark.govc, pytest.mark.slow]


@promise("T1", "While govc is away, everything works as with it; health says degraded and why.")
def test_work_goes_on_without_govc(caia_on_govc: Mount, govc: GovcServer):
    caia = caia_on_govc
    caia.expect_log("govc")
    (caia / "doc").write_text("one")
    caia.sync()

    govc.stop()
    (caia / "doc").write_text("two")
    (caia / "new").write_text("new")
    (caia / "new").rename(caia / "renamed")

    assert (caia / "doc").read_text() == "two"
    assert caia.wait_health("degraded")["reasons"]
    wait_until(
        lambda: caia.git("ls-tree", "--name-only", "HEAD").split() == ["doc", "renamed"],
        "git has it all",
    )


@promise(
    "T2",
    "When govc is back, or comes back empty, it is given what it lacks; an empty govc is never"
    " taken for a deletion.",
)
def test_govc_that_comes_back_empty_is_filled(
    caia_on_govc: Mount, govc: GovcServer, tmp_path: Path
):
    caia = caia_on_govc
    caia.expect_log("govc")
    for i in range(30):
        (caia / f"doc-{i}").write_text(f"document {i}\n")
    caia.sync()

    govc.restart()
    (caia / "another").write_text("after the restart")

    check_agreement(caia, tmp_path, govc)
    assert len(os.listdir(caia.path)) == 31


@promise(
    "T3",
    "A document of govc has the bytes that were saved, whatever they are: empty, binary, or with"
    " any name.",
)
def test_govc_has_the_bytes_that_were_saved(caia_on_govc: Mount, govc: GovcServer, tmp_path: Path):
    for name, content in {
        b"empty": b"",
        b"binary": os.urandom(100_000),
        b"a:b": b"colon",
        b".dot": b"dot",
        b"\xff\xfe": b"bytes",
        b"dots..": b"dots",
    }.items():
        with open(os.fsencode(caia_on_govc.path) + b"/" + name, "wb") as handle:
            handle.write(content)

    check_agreement(caia_on_govc, tmp_path, govc)


@promise(
    "T4",
    "A wrong token or address does not keep a repository from being mounted: it is used on git,"
    " degraded.",
)
def test_wrong_token_is_no_obstacle(mount_caia: MountFactory, govc_servers: GovcServers):
    env = {**govc_environment(govc_servers(auth=True)), "GOVC_AUTH_TOKEN": "wrong"}
    caia = mount_caia(env=env)
    caia.expect_log("govc")

    (caia / "doc").write_text("text")

    assert caia.wait_health("degraded")["reasons"]
    wait_until(lambda: caia.commits(), "git has the save")


@promise(
    "T5",
    "A govc that hangs keeps nobody waiting: names, reads and saves answer as ever, git has what was saved when operation_timeout"
    " is over, and an unmount ends after unmount_grace; govc gets it with the next mount.",
)
def test_govc_that_hangs_keeps_nobody_waiting(
    mount_caia: MountFactory, govc: GovcServer, tmp_path: Path
):
    caia = mount_caia(
        env=govc_environment(govc),
        options=[f"operation_timeout={OPERATION_TIMEOUT_S}s", f"unmount_grace={UNMOUNT_GRACE_S}s"],
    )
    caia.expect_log("govc|left to publish")
    (caia / "doc").write_text("one")
    caia.sync()
    govc.pause()

    began = time.monotonic()
    (caia / "doc").write_text("two")
    (caia / "new").write_text("new")
    (caia / "new").rename(caia / "renamed")
    assert sorted(os.listdir(caia.path)) == ["doc", "renamed"]
    assert (caia / "doc").read_text() == "two"
    answered_s = time.monotonic() - began
    wait_until(
        lambda: caia.git("ls-tree", "--name-only", "HEAD").split() == ["doc", "renamed"],
        "git has it all",
        timeout_s=OPERATION_TIMEOUT_S + 15,
    )
    caia.wait_health("degraded")
    began = time.monotonic()
    caia.unmount()
    unmounted_s = time.monotonic() - began

    assert answered_s < OPERATION_TIMEOUT_S
    assert unmounted_s < UNMOUNT_GRACE_S + 20  # processes that end on a busy machine
    govc.resume()
    caia.start()
    check_agreement(caia, tmp_path, govc)
