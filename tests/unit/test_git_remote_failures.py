"""What git says of a remote becomes an error that says what to do; the words are git's, of the versions from 2.39 on."""

import pytest

from caiafs.backends.git.remote_failures import failure, push_failure
from caiafs.core.errors import Misconfigured, Refused, RevisionConflict, Unreachable

URL = "https://git.example.org/papers.git"

SAID = [
    (
        "fatal: could not read Username for 'https://git.example.org': terminal prompts disabled",
        Misconfigured,
        "git ls-remote",
    ),
    (
        "fatal: Authentication failed for 'https://git.example.org/papers.git/'",
        Misconfigured,
        "credentials",
    ),
    (
        "remote: Invalid username or password.\nfatal: Authentication failed",
        Misconfigured,
        "refuses",
    ),
    (
        "git@git.example.org: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\n"
        "Please make sure you have the correct access rights\nand the repository exists.",
        Misconfigured,
        "Permission denied (publickey)",
    ),
    (
        "Host key verification failed.\nfatal: Could not read from remote repository.",
        Misconfigured,
        "by hand once",
    ),
    (
        "fatal: unable to access 'https://x/': SSL certificate problem: self-signed certificate",
        Misconfigured,
        "http.sslCAInfo",
    ),
    (
        "remote: Repository not found.\nfatal: repository 'x' not found",
        Misconfigured,
        "git init --bare",
    ),
    ("fatal: '/srv/x' does not appear to be a git repository", Misconfigured, "git init --bare"),
    (
        "fatal: unable to access 'https://x/': The requested URL returned error: 403",
        Misconfigured,
        "credentials",
    ),
    (
        "fatal: detected dubious ownership in repository at '/srv/x'",
        Misconfigured,
        "safe.directory",
    ),
    ("fatal: transport 'ext' not allowed", Misconfigured, "not used"),
    (
        "fatal: unable to access 'https://x/': Could not resolve host: git.example.org",
        Unreachable,
        "resolve host",
    ),
    (
        "fatal: unable to access 'https://x/': The requested URL returned error: 503",
        Unreachable,
        "503",
    ),
    ("ssh: connect to host x port 22: Connection refused", Unreachable, "Connection refused"),
    ("error: RPC failed; curl 92\nfatal: early EOF", Unreachable, "early EOF"),
    ("", Unreachable, "git failed"),
]


@pytest.mark.parametrize(("said", "kind", "words"), SAID)
def test_each_kind_of_failure_says_what_to_do(said: str, kind: type, words: str):
    error = failure("look", said, URL)

    assert type(error) is kind
    assert words in str(error)
    assert URL in str(error)


def test_a_full_disk_here_is_no_fault_of_the_remote():
    said = "fatal: write error: No space left on device\nfatal: index-pack failed"

    assert "the disk of the repository is full" in str(failure("fetch", said, URL))


def test_a_password_in_git_s_words_is_masked():
    said = "fatal: unable to access 'https://user:secret@host/x/': no"

    assert "secret" not in str(failure("look", said, URL))


@pytest.mark.parametrize(
    "summary",
    [
        "[rejected] (fetch first)",
        "[rejected] (non-fast-forward)",
        "[remote rejected] (cannot lock ref 'refs/heads/main': is at 1 but expected 2)",
        "[remote rejected] (failed to update ref)",
        "[remote rejected] (incorrect old value provided)",
    ],
)
def test_a_push_that_was_overtaken_comes_again(summary: str):
    said = f"To x\n!\tabc:refs/heads/main\t{summary}\nDone\n"

    assert isinstance(push_failure(said, "", URL, "main"), RevisionConflict)


@pytest.mark.parametrize(
    ("summary", "stderr", "words"),
    [
        (
            "[remote rejected] (pre-receive hook declined)",
            "remote: Only signed commits.\n",
            "Only signed commits.",
        ),
        (
            "[remote rejected] (protected branch hook declined)",
            "remote: error: GH006: Protected branch update failed\n",
            "GH006",
        ),
        ("[remote rejected] (branch is currently checked out)", "", "bare repository"),
        ("[remote rejected] (unpacker error)", "", "space"),
    ],
)
def test_a_push_that_the_host_declines_names_its_words(summary: str, stderr: str, words: str):
    said = f"To x\n!\tabc:refs/heads/main\t{summary}\nDone\n"

    error = push_failure(said, stderr, URL, "main")

    assert isinstance(error, Refused)
    assert words in str(error)
    assert "main" in str(error)


def test_a_push_that_met_nobody_is_an_outage():
    said = "fatal: unable to access 'https://x/': Failed to connect"

    assert isinstance(push_failure("", said, URL, "main"), Unreachable)
