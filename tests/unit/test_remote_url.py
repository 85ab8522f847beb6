"""Addresses of git remotes: what is taken, and that no password shows."""

from pathlib import Path

import pytest

from caiafs.core.errors import ConfigError
from caiafs.core.remote_url import (
    anchored,
    mask,
    parse_remote,
    secrets_of,
    split_credentials,
)
from caiafs.core.settings import Given, describe, load

MNT = Path("/mnt/caia")


@pytest.mark.parametrize(
    "address",
    [
        "https://git.example.org/papers.git",
        "https://git.example.org:8443/papers.git",
        "https://user:password@git.example.org/papers.git",
        "ssh://git@git.example.org:2222/papers.git",
        "git@git.example.org:papers.git",
        "git.example.org:a/b.git",
        "git://git.example.org/papers",
        "file:///srv/papers.git",
        "/srv/papers.git",
        "../papers.git",
        "origin",
    ],
)
def test_forms_that_git_knows_are_taken_as_they_are(address: str):
    assert parse_remote(f" {address}\n") == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-u",
        "--upload-pack=touch x",
        "ext::sh -c touch% x",
        "fd::7",
        "ftp://host/x",
        "https://",
        "https://host/x y",
        "https://host:port/x",
        "https://host/x?token=1",
        "ssh://-oProxyCommand=x/y",
        "-oProxyCommand=x:y",
        "two words",
        "host:",
        "a\nb",
    ],
)
def test_what_could_run_a_program_or_means_nothing_is_refused(text: str):
    with pytest.raises(ValueError):
        parse_remote(text)


def test_a_relative_path_starts_where_it_was_written():
    assert anchored("./papers.git", Path("/etc/caiafs")) == "/etc/caiafs/papers.git"
    assert anchored("origin", Path("/etc/caiafs")) == "origin"
    assert anchored("https://host/x", Path("/etc/caiafs")) == "https://host/x"


@pytest.mark.parametrize(
    ("address", "shown", "secret"),
    [
        ("https://user:p%40ss@host/x", "https://***@host/x", ("p%40ss", "p@ss")),
        ("https://user:p@ss@host/x", "https://***@host/x", ("p@ss",)),
        ("https://token@host/x", "https://***@host/x", ("token",)),
        ("ssh://git@host/x", "ssh://git@host/x", ()),
        ("ssh://git:word@host/x", "ssh://git:***@host/x", ("word",)),
        ("git@host:x", "git@host:x", ()),
        ("/srv/a@b", "/srv/a@b", ()),
    ],
)
def test_what_is_secret_is_masked(address: str, shown: str, secret: tuple[str, ...]):
    assert mask(address) == shown
    assert (
        mask(f"fatal: unable to access '{address}': no") == f"fatal: unable to access '{shown}': no"
    )
    assert secrets_of(address) == secret


def test_an_http_url_is_split_from_its_credentials():
    assert split_credentials("https://us%65r:p%40ss@host:1/x") == (
        "https://host:1/x",
        ("user", "p@ss"),
    )
    assert split_credentials("ssh://git@host/x") == ("ssh://git@host/x", ("", ""))


def test_a_password_is_masked_in_the_configuration_that_the_mount_shows():
    environ = {"CAIA_GIT_REMOTE": "https://user:topsecret@host/x"}

    settings = load(MNT, [], environ, cwd=Path("/work"))

    assert settings.config.git_remote == environ["CAIA_GIT_REMOTE"]
    assert "topsecret" not in str(describe(settings.config, settings.origins))
    assert "topsecret" not in repr(settings.config)


def test_a_password_on_the_command_line_is_refused_and_not_repeated():
    given = Given(
        "git_remote", "https://user:topsecret@host/x", "--git-remote", Path("/work"), private=False
    )

    with pytest.raises(ConfigError, match="CAIA_GIT_REMOTE") as caught:
        load(MNT, [given], {}, cwd=Path("/work"))

    assert "topsecret" not in str(caught.value)


def test_a_wrong_address_is_shown_masked():
    environ = {"CAIA_GIT_REMOTE": "ftp://user:topsecret@host/x"}

    with pytest.raises(ConfigError, match="git_remote") as caught:
        load(MNT, [], environ, cwd=Path("/work"))

    assert "topsecret" not in str(caught.value)
