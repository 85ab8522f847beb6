"""-o as mount(8) knows it, operands, and the command line's own errors."""

from pathlib import Path

import pytest

from caiafs.cli.exits import ExitCode, exit_code
from caiafs.cli.main import COMMANDS, dispatch
from caiafs.cli.options import parse_options, split_options
from caiafs.cli.parser import mount_parser, settings_given
from caiafs.core.errors import ConfigError, StateBusy, StateCorrupt, Unreachable
from caiafs.core.settings_table import SETTINGS

CWD = Path("/work")


def chosen(*texts: str) -> dict[str, str]:
    """Return setting and text as -o with `texts` gives them."""
    return {given.name: str(given.text) for given in parse_options(list(texts), CWD)}


def given(*argv: str) -> tuple[Path, dict[str, str]]:
    """Return mount point and settings of a command line."""
    mountpoint, settings = settings_given(mount_parser().parse(list(argv)), CWD)
    return mountpoint, {item.name: str(item.text) for item in settings}


def test_commas_split_and_a_backslash_keeps_them():
    assert split_options(r"ro,,repository=/a\,b\\c,uid=1") == ["ro", r"repository=/a,b\c", "uid=1"]


def test_standard_options_become_settings():
    assert chosen("ro,suid,dev,noexec") == {
        "read_only": "true",
        "suid": "true",
        "dev": "true",
        "noexec": "true",
    }


def test_the_last_of_two_wins():
    assert chosen("ro", "rw") == {"read_only": "false"}


def test_what_fstab_brings_along_is_ignored():
    ignored = "defaults,_netdev,user,noauto,nofail,x-systemd.automount,relatime,noatime,comment=x"

    assert chosen(ignored) == {}


def test_a_boolean_needs_no_value_and_takes_one():
    assert chosen("allow_other,enable_fallback=false") == {
        "allow_other": "true",
        "enable_fallback": "false",
    }


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("cache_byte=1", "did you mean cache_bytes"),
        ("fsname=x", "always caiafs:"),
        ("subtype=x", "always fuse.caiafs"),
        ("uid", "needs a value"),
        ("zzzzzz", "unknown option -o zzzzzz"),
        ("ro=1", "unknown option -o ro"),
    ],
)
def test_a_wrong_option_is_one_clear_line(option: str, says: str):
    with pytest.raises(ConfigError, match=says) as caught:
        chosen(option)

    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_one_operand_is_the_mount_point():
    assert given("/mnt") == (Path("/mnt"), {})


def test_two_operands_are_repository_and_mount_point():
    assert given("repo", "/mnt") == (Path("/mnt"), {"repository": "repo"})


def test_flags_beat_options_and_operands_beat_flags():
    _, settings = given(
        "repo", "/mnt", "-o", "poll_interval=2s", "--poll-interval", "3s", "--repository", "x"
    )

    assert settings == {"poll_interval": "3s", "repository": "repo"}


def test_options_may_stand_anywhere():
    assert given("-f", "repo", "-o", "ro", "/mnt")[1] == {
        "foreground": "true",
        "read_only": "true",
        "repository": "repo",
    }


def test_a_boolean_flag_has_its_opposite():
    assert given("/mnt", "--no-enable-sync")[1] == {"enable_sync": "false"}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_has_a_flag(setting):
    action = mount_parser()._option_string_actions[setting.flag]

    assert action.dest == f"given:{setting.name}"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "which mount point"),
        (["a", "b", "c"], "too many operands"),
        (["--govc-ulr", "x", "/mnt"], "did you mean --govc-url"),
        (["/mnt", "--poll-interval"], "expected one argument"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(argv: list[str], says: str):
    with pytest.raises(ConfigError, match=says) as caught:
        given(*argv)

    assert "\n" not in str(caught.value)


def test_a_token_never_comes_from_the_command_line():
    from caiafs.core.settings import load

    mountpoint, settings = settings_given(
        mount_parser().parse(["/mnt", "--govc-auth-token=s3cr3t"]), CWD
    )

    with pytest.raises(ConfigError, match="GOVC_AUTH_TOKEN"):
        load(mountpoint, settings, {}, cwd=CWD)


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]):
    assert dispatch(["--help"], {}) == ExitCode.OK

    shown = capsys.readouterr().out
    assert all(f"caiafs {name}" in shown for name in COMMANDS)
    assert all(f"{code.value} " in shown for code in ExitCode)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]):
    from caiafs import __version__

    assert dispatch(["--version"], {}) == ExitCode.OK
    assert capsys.readouterr().out == f"caiafs {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        dispatch([command, "--help"], {})

    assert caught.value.code == 0
    assert f"caiafs {command}" in capsys.readouterr().out.replace("[mount]", "mount")


def test_nothing_said_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert dispatch([], {}) == ExitCode.USAGE
    assert "caiafs umount" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x", exit_code=7), 7),
        (StateBusy("x"), ExitCode.BUSY),
        (StateCorrupt("x"), ExitCode.REPOSITORY),
        (Unreachable("x"), ExitCode.FAILURE),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int):
    assert exit_code(error) == code
