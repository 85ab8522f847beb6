"""The manual and the README say what the program does: settings, options, exit codes, commands."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from caiafs.cli.exits import ExitCode
from caiafs.cli.main import COMMANDS
from caiafs.cli.options import parse_options
from caiafs.cli.parser import Parser, mount_parser, settings_given
from caiafs.core.settings import defaults, from_toml
from caiafs.core.settings_table import SECTIONS, SETTINGS
from tests.support.requirements import require

PROJECT = Path(__file__).resolve().parents[2]
MAN = PROJECT / "man"
CONF = (MAN / "caiafs.conf.5").read_text()
MANUAL = (MAN / "caiafs.1").read_text()
README = (PROJECT / "README.md").read_text()


def entry(name: str) -> str:
    """Return the paragraph of caiafs.conf(5) about the setting `name`."""
    found = re.search(
        rf"^\.It Cm {name} = .*?(?=^\.It Cm \w+ = |^\.Ss |^\.Sh )", CONF, re.MULTILINE | re.DOTALL
    )
    assert found, f"{name} is not in caiafs.conf(5)"
    return found[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_in_the_manual_with_variable_and_default(name: str):
    text = entry(name)
    default = defaults()[name]

    assert f".Ev {SETTINGS[name].env} ." in text
    if default and name not in {"local_patterns", "use_govc"}:
        assert f".Ql {default} ;" in text


def test_the_manual_has_no_setting_that_does_not_exist():
    assert set(re.findall(r"^\.It Cm (\w+) = ", CONF, re.MULTILINE)) == set(SETTINGS)


def test_each_section_of_settings_has_its_heading():
    headings = re.findall(r"^\.Ss (\w+)", CONF, re.MULTILINE)

    assert [title.lower() for title in headings[1:]] == [title for title, _ in SECTIONS]


def test_each_option_of_mount_is_in_the_manual():
    flags = {
        flag
        for action in mount_parser()._actions
        if not str(action.dest).startswith("given:")
        for flag in action.option_strings
    }

    for flag in flags | {"--timeout", "--json", "--from", "--version"}:
        shown = flag.removeprefix("-")
        assert re.search(rf"^\.It Fl .*{re.escape(shown)}\b", MANUAL, re.MULTILINE), flag


class Asked(Exception):
    """Carries a parser out of the command that made it."""


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_of_a_command_is_in_the_manual(monkeypatch: pytest.MonkeyPatch, command: str):
    def parse(self: Parser, argv: list[str]) -> None:
        raise Asked(self)

    monkeypatch.setattr(Parser, "parse", parse)
    with pytest.raises(Asked) as caught:
        COMMANDS[command][0]([], {})
    (parser,) = caught.value.args
    synopsis = MANUAL.partition(".Sh SYNOPSIS")[2].partition(".Sh ")[0]
    own = [part for part in synopsis.split(".Nm") if f".Ic {command}\n" in part] or [synopsis]

    for action in parser._actions:
        if str(action.dest).startswith("given:") or action.dest == "help":
            continue
        for flag in action.option_strings:
            shown = re.escape(flag.removeprefix("-"))
            assert re.search(rf"^\.It (.* , )?Fl (.*, )?{shown}\b", MANUAL, re.MULTILINE), flag
            if command != "mount":
                assert any(re.search(rf"(?<![\w-]){shown}\b", part) for part in own), flag


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_in_the_manual_and_in_the_readme(command: str):
    assert f".It Ic {command} " in MANUAL
    assert command == "mount" or f"caiafs {command} " in README


def test_each_exit_code_is_in_the_manual():
    status = MANUAL.partition(".Sh EXIT STATUS")[2].partition(".Sh ")[0]

    codes = {int(code) for code in re.findall(r"^\.It (\d+)$", status, re.MULTILINE)}

    assert codes == {code.value for code in ExitCode}


def test_the_examples_of_the_manual_are_valid(tmp_path: Path):
    toml, fstab = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", CONF, re.MULTILINE | re.DOTALL)
    (tmp_path / "c.toml").write_text(toml)

    given, _ = from_toml(tmp_path / "c.toml")
    options = parse_options([fstab.split()[3]], tmp_path)

    for item in (*given, *options):
        if isinstance(item.text, str):
            SETTINGS[item.name].kind.parse(item.text)


@pytest.mark.parametrize("page", sorted(MAN.glob("*.[1-9]")), ids=lambda page: page.name)
def test_a_manual_page_formats_without_a_warning(page: Path):
    require(shutil.which("groff"), "the program groff is not installed")

    done = subprocess.run(
        ["groff", "-ww", "-mandoc", "-Tutf8", page], capture_output=True, text=True, check=True
    )

    assert done.stderr == ""


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.removeprefix("$ ").partition(" #")[0] for line in joined.splitlines()]


def test_each_caiafs_line_of_the_readme_is_a_command_that_exists(tmp_path: Path):
    seen = 0
    for line in shell_lines(README):
        words = [word for word in shlex.split(line) if "=" not in word or word.startswith("-")]
        if not words or Path(words[0]).name != "caiafs":
            continue
        seen += 1
        if words[1] not in COMMANDS and words[1] not in {"--version", "--help"}:
            settings_given(mount_parser().parse(words[1:]), tmp_path)
    assert seen >= 5


def test_each_script_that_the_readme_names_is_there_and_runs():
    named = set(re.findall(r"(?:\./)?(scripts/[\w-]+)", README))

    assert {"scripts/quickstart", "scripts/test"} <= named
    for script in named:
        assert (PROJECT / script).stat().st_mode & 0o111, script


def test_each_variable_that_the_readme_names_is_a_setting_s():
    known = {setting.env for setting in SETTINGS.values()}
    known |= {"CAIAFS_CONFIG", "GOVC_SERVER_BIN", "CAIAFS_REQUIRE_ALL", "CAIAFS_FAULTS"}

    named = set(re.findall(r"\b(?:CAIAFS?|GOVC)_[A-Z_]+\b", README))

    assert named <= known


def test_the_readme_s_toml_is_valid(tmp_path: Path):
    for block in re.findall(r"```toml\n(.*?)```", README, re.DOTALL):
        assert tomllib.loads(block)
        (tmp_path / "c.toml").write_text(block)
        from_toml(tmp_path / "c.toml")


def test_the_changelog_names_the_version_of_the_package():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (PROJECT / "CHANGELOG.md").read_text()

    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog


def test_no_machine_or_host_of_ours_is_named():
    for path in (PROJECT / "README.md", PROJECT / "CHANGELOG.md", *MAN.iterdir()):
        assert "/work/" not in path.read_text()


def test_help_of_mount_shows_defaults():
    shown = " ".join(mount_parser().format_help().split())

    assert "[256MiB]" in shown
    assert "[5s]" in shown
