"""How git is run for a remote: as the user who mounts, asking nobody, showing no password, obeying no strange configuration."""

import logging
import os
import stat
from pathlib import Path

import pytest
import trio

from caiafs.backends.git import remote as git_remote
from tests.store.test_git_remote import a_reason, a_repository, level, remote_of, shared
from tests.support.git_http import GitHttpServer
from tests.support.git_remote import SharedRepository, come_level, remote_settings
from tests.support.sync_world import SyncWorld, a_sync_world
from tests.sync.test_publishing import until

__all__ = ["shared"]

SECRET = "topsecret"


@pytest.fixture
def host(tmp_path):
    """Return a git host that speaks http and has the repository docs.git."""
    root = tmp_path / "host"
    root.mkdir()
    repository = SharedRepository(root / "docs.git")
    repository.git("config", "http.receivepack", "true")
    server = GitHttpServer(root)
    server.repository = repository
    yield server
    server.close()


def a_script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def command_lines():
    """Return the command lines of all processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return found


async def test_two_machines_share_a_repository_over_http(tmp_path, host):
    settings = remote_settings(host.url("docs.git", f"ada:{SECRET}"))
    async with (
        a_sync_world(tmp_path / "one", **settings) as one,
        a_sync_world(tmp_path / "two", writer="feedf00d", **settings) as two,
    ):
        one.put("f", "1\n")
        await come_level([one, two], host.repository)
        two.put("g", "2\n" * 100_000)

        await come_level([one, two], host.repository)

        assert set(host.repository.tree()) == {b"f", b"g"}


async def test_a_password_shows_nowhere(tmp_path, host, caplog):
    settings = remote_settings(host.url("docs.git", f"ada:{SECRET}"))
    host.hold.clear()
    with caplog.at_level(logging.DEBUG):
        async with a_sync_world(tmp_path / "world", **settings) as world:
            await trio.to_thread.run_sync(host.held.wait, 20)
            assert any(f":{host.port}/docs.git" in line for line in command_lines())
            assert not [line for line in command_lines() if SECRET in line]
            host.hold.set()
            world.put("f", "1\n")
            await level(world, host.repository)
            host.repository.path.rename(tmp_path / "gone")
            await a_reason(world, "***@127.0.0.1", "no repository")

            assert SECRET not in str(world.report)
            assert remote_of(world)["url"] == host.url("docs.git", "***")
    assert SECRET not in caplog.text
    for file in (world.repo / "caiafs" / "remote.git").iterdir():
        if file.is_file() and SECRET.encode() in file.read_bytes():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_without_credentials_nobody_is_asked_and_the_reason_says_so(
    tmp_path, host, monkeypatch
):
    asked = tmp_path / "asked"
    script = str(a_script(tmp_path / "ask", f"touch {asked}; echo x"))
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, script)
    settings = remote_settings(host.url("docs.git"))
    async with a_sync_world(tmp_path / "world", **settings) as world:
        await a_reason(world, "refuses our credentials", "git ls-remote")

    assert not asked.exists()


async def test_the_user_s_own_credential_helper_is_asked(tmp_path, host, monkeypatch):
    helper = a_script(
        tmp_path / "helper", f'test "$1" != get || printf "username=ada\\npassword={SECRET}\\n"'
    )
    config = tmp_path / "gitconfig"
    config.write_text(f"[credential]\n\thelper = {helper}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    settings = remote_settings(host.url("docs.git"))
    async with a_sync_world(tmp_path / "world", **settings) as world:
        world.put("f", "1\n")

        await level(world, host.repository)


async def test_the_repository_s_configuration_starts_and_redirects_nothing(
    tmp_path, shared, monkeypatch
):
    started = tmp_path / "started"
    touch = f"touch {started}"
    other = SharedRepository(tmp_path / "other.git")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    world = SyncWorld(tmp_path / "world", **remote_settings("origin"))
    a_repository(world.repo, "--bare")
    hooks = a_repository(tmp_path / "hooks")
    for name in ("pre-push", "reference-transaction", "post-update", "post-checkout"):
        a_script(hooks / name, touch)
        a_script(world.repo / "hooks" / name, touch)
    for name, value in (
        ("remote.origin.url", shared.path),
        ("remote.origin.uploadpack", f"{touch}; git-upload-pack"),
        ("remote.origin.receivepack", f"{touch}; git-receive-pack"),
        ("remote.origin.vcs", "hostile"),
        (f"url.{other.path}.insteadOf", shared.path),
        (f"url.{other.path}.pushInsteadOf", shared.path),
        ("core.hooksPath", hooks),
        ("core.sshCommand", touch),
        ("core.fsmonitor", touch),
        ("core.alternateRefsCommand", touch),
        ("core.askPass", touch),
        ("credential.helper", f"!{touch}"),
        ("gpg.program", touch),
        ("push.gpgSign", "true"),
        ("protocol.ext.allow", "always"),
        ("uploadpack.packObjectsHook", touch),
        ("include.path", tmp_path / "nowhere"),
    ):
        world.git("config", name, str(value))
    async with world.running():
        shared.commit({"theirs": "1\n"})
        world.put("f", "1\n")
        await world.stored()
        await until(lambda: {b"f", b"theirs"} == set(world.tree()) == set(shared.tree()))
    world.close()

    assert not started.exists()
    assert other.head() is None
    assert world.stopped.left["remote"] == 0


async def test_a_url_that_runs_a_program_is_not_used(tmp_path, shared):
    started = tmp_path / "started"
    world = SyncWorld(tmp_path / "world", **remote_settings("origin"))
    a_repository(world.repo, "--bare")
    world.git("config", "remote.origin.url", f"ext::sh -c touch% {started}")
    async with world.running():
        await a_reason(world, "not used")
    world.close()

    assert not started.exists()


async def test_ssh_is_told_to_ask_nobody_and_has_no_terminal(tmp_path, shared, monkeypatch):
    said = tmp_path / "said"
    ssh = a_script(
        tmp_path / "ssh",
        f'echo "$@" >> {said}\n(: < /dev/tty) 2>/dev/null && echo TERMINAL >> {said}\n'
        'for last in "$@"; do :; done\nexec sh -c "$last"',
    )
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    settings = remote_settings(f"git@host.invalid:{shared.path}")
    async with a_sync_world(tmp_path / "world", **settings) as world:
        world.put("f", "1\n")

        await level(world, shared)

    assert "-o BatchMode=yes" in said.read_text()
    assert "TERMINAL" not in said.read_text()


async def test_what_git_started_ends_with_it(tmp_path, host, monkeypatch):
    monkeypatch.setattr(git_remote, "LOOK_SILENCE_S", 0.5)
    host.hold.clear()
    settings = remote_settings(host.url("docs.git", f"ada:{SECRET}"))
    async with a_sync_world(tmp_path / "world", **settings) as world:
        await a_reason(world, "does not answer")

    mine = f"127.0.0.1:{host.port}"
    await until(lambda: not [line for line in command_lines() if mine in line])


def test_the_user_s_environment_reaches_git_and_no_more(monkeypatch):
    from caiafs.backends.git.transport import _kept

    monkeypatch.setenv("GIT_TRACE_CURL", "/tmp/trace")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")

    kept = _kept()

    assert kept["SSH_AUTH_SOCK"] == "/run/agent"
    assert kept["PATH"] == os.environ["PATH"]
    assert not {"GIT_TRACE_CURL", "GIT_DIR"} & set(kept)
