"""What is wrong with settings before anything is sent."""

import pytest

from caiafs.backends.govc import GovcSettings
from caiafs.backends.govc.settings import find_fault

LOCAL = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    "settings",
    [
        GovcSettings(LOCAL),
        GovcSettings("https://govc.example.org/prefix", token="t"),
        GovcSettings("http://localhost:1", token="t"),
        GovcSettings("http://[::1]:1", token="t"),
        GovcSettings("http://govc.example.org"),
        GovcSettings("http://govc.example.org", token="t", allow_insecure_token=True),
        GovcSettings(LOCAL, repo_name="a" * 64),
    ],
)
def test_good_settings_have_no_fault(settings):
    assert find_fault(settings) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (GovcSettings(""), "http://host:port"),
        (GovcSettings("localhost:8080"), "http://host:port"),
        (GovcSettings("ftp://x"), "http://host:port"),
        (GovcSettings("http://"), "http://host:port"),
        (GovcSettings("http://x:port"), "not a URL"),
        (GovcSettings("http://x:0"), "http://host:port"),
        (GovcSettings("http://me:secret@x"), "user or password"),
        (GovcSettings("http://x/?a=b"), "query"),
        (GovcSettings(LOCAL, repo_name=""), "1 to 64"),
        (GovcSettings(LOCAL, repo_name="-x"), "1 to 64"),
        (GovcSettings(LOCAL, repo_name="login-notes"), "begin with 'login'"),
        (GovcSettings(LOCAL, repo_name="a/b"), "1 to 64"),
        (GovcSettings(LOCAL, repo_name="a" * 65), "1 to 64"),
        (GovcSettings(LOCAL, repo_name="docs\n"), "1 to 64"),
        (GovcSettings(LOCAL, repo_name="admin"), "reserved"),
        (GovcSettings(LOCAL, token="two words"), "printable ASCII"),
        (GovcSettings(LOCAL, token="line\n"), "printable ASCII"),
        (GovcSettings("http://govc.example.org", token="s3cret"), "plain HTTP"),
        (GovcSettings("http://127.0.0.1.example.org", token="s3cret"), "plain HTTP"),
    ],
)
def test_a_bad_setting_is_named_in_one_sentence(settings, words):
    fault = find_fault(settings)

    assert fault is not None
    assert words in fault
    assert "\n" not in fault


def test_a_token_shows_in_no_repr_and_no_fault():
    settings = GovcSettings("http://govc.example.org", token="s3cret")

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(find_fault(settings))
