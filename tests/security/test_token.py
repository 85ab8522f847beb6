"""Where the token goes: into the two headers it is for, and nowhere else."""

import json
import os
import shlex
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import govc_environment
from tests.security.conftest import TOKEN
from tests.support.govc_server import GovcServers
from tests.support.mount import Mount, children, run_caiafs
from tests.support.tls import TlsFront, make_certificate
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.govc, pytest.mark.slow]


@pytest.fixture
def guarded(govc_servers: GovcServers):
    return govc_servers(auth=True)


@pytest.fixture
def git_that_tells(tmp_path: Path) -> Path:
    """Return a directory for PATH whose git writes its environment and arguments down first."""
    real = shutil.which("git")
    folder = tmp_path / "bin"
    folder.mkdir()
    told = shlex.quote(str(tmp_path / "git.told"))
    (folder / "git").write_text(f'#!/bin/sh\n{{ env; echo "$@"; }} >> {told}\nexec {real} "$@"\n')
    (folder / "git").chmod(0o755)
    return folder


def processes_of(caia: Mount) -> list[int]:
    return [caia.pid, *children(caia.pid)]


def seen_in_proc(pid: int) -> bytes:
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def check_nowhere(caia: Mount, token: str) -> None:
    """Check everything that a mount says and leaves behind."""
    secret = token.encode()
    for pid in processes_of(caia):
        assert secret not in seen_in_proc(pid), pid
    for name in ("stats.json", "health.json", "metrics", "config.json"):
        assert secret not in caia.virtual(name), name
    assert token not in caia.log()
    for path in caia.repo.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path
    messages = caia.git("log", "--all", "--format=%an %ae %B")
    assert token not in messages


def test_token_is_in_no_log_no_file_no_process_and_no_message(
    mount_caia, guarded, git_that_tells: Path, tmp_path: Path
):
    token = guarded.login()
    env = {**govc_environment(guarded), "GOVC_AUTH_TOKEN": token, "CAIAFS_LOG_LEVEL": "DEBUG"}
    env["PATH"] = f"{git_that_tells}:{os.environ['PATH']}"
    caia = mount_caia(env=env)
    caia.expect_log("govc|store process")
    (caia / "doc").write_text("text")
    (caia / "large").write_bytes(os.urandom(3_000_000))
    caia.sync()
    check_nowhere(caia, token)

    guarded.stop()
    (caia / "doc").write_text("later")
    caia.wait_health("degraded")
    guarded.start()
    caia.wait_health("ok")
    check_nowhere(caia, token)
    caia.kill9_store()
    wait_until(lambda: caia.stats()["store_process"]["restarts"] == 1, "it is started again")
    check_nowhere(caia, token)
    assert json.loads(caia.virtual("config.json"))["govc_auth_token"]["value"] == "********"


def test_git_is_started_without_the_token(
    mount_caia, guarded, git_that_tells: Path, tmp_path: Path
):
    token = guarded.login()
    env = {**govc_environment(guarded), "GOVC_AUTH_TOKEN": token}
    env["PATH"] = f"{git_that_tells}:{os.environ['PATH']}"
    guarded.stop()
    caia = mount_caia(env=env)
    caia.expect_log("govc")
    (caia / "large").write_bytes(os.urandom(3_000_000))
    wait_until(lambda: caia.commits(), "git has it")
    guarded.start()
    told = tmp_path / "git.told"

    wait_until(lambda: "cat-file" in (told.read_text() if told.exists() else ""), "git is asked")

    assert token not in told.read_text()


def test_background_mount_shows_no_token_in_its_environment(tmp_path: Path, guarded):
    repo, mnt = tmp_path / "repo", tmp_path / "mnt"
    mnt.mkdir()
    env = {**govc_environment(guarded), "GOVC_AUTH_TOKEN": TOKEN}
    done = run_caiafs(repo, mnt, env=env)
    try:
        assert done.returncode == 0, done.stderr
        pid = json.loads((mnt / ".caia" / "stats.json").read_text())["mount"]["pid"]

        assert TOKEN.encode() not in seen_in_proc(pid)
        assert b"GOVC_AUTH_TOKEN=***" in seen_in_proc(pid)
        assert TOKEN not in done.stdout + done.stderr
    finally:
        run_caiafs("umount", mnt, "--timeout", "1s")


def test_token_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path):
    (tmp_path / "mnt").mkdir()
    for arguments in (["--govc-auth-token", TOKEN], ["-o", f"govc_auth_token={TOKEN}"]):
        done = run_caiafs(tmp_path / "repo", tmp_path / "mnt", *arguments)

        assert done.returncode == 2
        assert TOKEN not in done.stdout + done.stderr


def test_renewed_token_is_masked_too(mount_caia, guarded, tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("aaa.bbb.ccc\n")
    env = {**govc_environment(guarded), "CAIAFS_GOVC_AUTH_TOKEN_FILE": str(file)}
    caia = mount_caia(env={**env, "CAIAFS_LOG_LEVEL": "DEBUG"})
    caia.expect_log("govc")
    caia.wait_health("degraded")

    token = guarded.login()
    file.write_text(token)

    caia.wait_health("ok", timeout_s=60)
    check_nowhere(caia, token)


class Listener:
    """Takes connections of a plain HTTP client, writes down what comes, and answers 404."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self.heard += client.recv(65536)
                client.sendall(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.stop()


def test_token_is_not_sent_over_plain_http_to_another_host_unless_told_so(
    mount_caia, listener: Listener
):
    # "127.1" is this machine to the resolver, and any host to whoever reads it.
    env = {"GOVC_SERVICE_URL": f"http://127.1:{listener.port}", "GOVC_AUTH_TOKEN": TOKEN}
    caia = mount_caia("refused", env=env)
    caia.expect_log("govc")
    caia.wait_health("degraded")
    wait_until(lambda: "plain HTTP" in str(caia.health()["reasons"]), "health says why")
    assert listener.heard == b""

    allowed = mount_caia("allowed", env={**env, "CAIAFS_GOVC_ALLOW_INSECURE_TOKEN": "true"})
    allowed.expect_log("govc")
    wait_until(lambda: TOKEN.encode() in listener.heard, "it is sent where that is allowed")


@pytest.fixture
def tls(guarded, tmp_path: Path) -> Iterator[tuple[TlsFront, Path]]:
    certificate = make_certificate(tmp_path)
    front = TlsFront(guarded.port, certificate)
    yield front, certificate
    front.stop()


def test_server_with_a_certificate_of_our_authority_is_used(mount_caia, guarded, tls):
    front, certificate = tls
    token = guarded.login()
    env = {"GOVC_SERVICE_URL": front.url, "GOVC_AUTH_TOKEN": token}
    caia = mount_caia(env={**env, "CAIAFS_GOVC_CA_FILE": str(certificate)})

    (caia / "doc").write_text("text")
    caia.sync()

    caia.wait_health("ok")
    assert token.encode() in front.heard


def test_server_with_a_certificate_of_nobody_we_know_gets_neither_token_nor_document(
    mount_caia, tls
):
    front, _ = tls
    caia = mount_caia(env={"GOVC_SERVICE_URL": front.url, "GOVC_AUTH_TOKEN": TOKEN})
    caia.expect_log("govc")

    (caia / "doc").write_text("text")

    caia.wait_health("degraded")
    wait_until(lambda: "TLS" in str(caia.health()["reasons"]), "health names TLS")
    wait_until(lambda: caia.commits(), "the save is in git")
    assert bytes(front.heard) == b""


def test_certificate_of_another_host_is_refused(mount_caia, tls):
    front, certificate = tls
    url = front.url.replace("127.0.0.1", "localhost")
    env = {"GOVC_SERVICE_URL": url, "GOVC_AUTH_TOKEN": TOKEN}
    caia = mount_caia(env={**env, "CAIAFS_GOVC_CA_FILE": str(certificate)})
    caia.expect_log("govc")

    caia.wait_health("degraded")
    wait_until(lambda: "TLS" in str(caia.health()["reasons"]), "health names TLS")
    assert bytes(front.heard) == b""
