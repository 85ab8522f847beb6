"""What `caiafs` ends with and says where something goes wrong before any mount is asked."""

import sys
from pathlib import Path

import pytest

from caiafs.cli import fsck, main
from caiafs.cli.exits import ExitCode
from caiafs.cli.fsck import FsckCode


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs `caiafs ARGS` here and returns its code and what it said."""

    def run_main(*args: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["caiafs", *map(str, args)])
        code = main.main()
        return code, capsys.readouterr().err

    return run_main


@pytest.fixture(params=["long", "loop", "gone"])
def unusable(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a path that the system takes for nothing: too long, a link to itself, in a directory that is gone."""
    if request.param == "long":
        return tmp_path / ("x" * 300)
    if request.param == "gone":
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        return Path("repo")
    link = tmp_path / "loop"
    link.symlink_to(link)
    return link


@pytest.mark.parametrize(
    "args", [("{}", "mnt"), ("backup", "{}", "file"), ("migrate", "{}", "x")], ids=lambda a: a[0]
)
def test_a_path_that_the_system_refuses_is_one_line(run, unusable: Path, args: tuple[str, ...]):
    code, said = run(*(unusable if arg == "{}" else arg for arg in args))

    assert code in {ExitCode.FAILURE, ExitCode.REPOSITORY, ExitCode.MOUNTPOINT}
    assert len(said.splitlines()) == 1
    assert said.startswith("caiafs: ")


def test_fsck_that_cannot_look_does_not_say_corrected(run, unusable: Path):
    code, said = run("fsck", unusable)

    assert code == FsckCode.OPERATIONAL
    assert len(said.splitlines()) == 1


def test_fsck_that_breaks_does_not_say_corrected(run, monkeypatch: pytest.MonkeyPatch):
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(fsck, "_check", break_down)

    code, said = run("fsck", "repo")

    assert code == FsckCode.OPERATIONAL
    assert "a bug" in said


@pytest.mark.parametrize(("word", "meant"), [("unmount", "umount"), ("stats", "status")])
def test_a_misspelt_command_is_no_repository(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, meant: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnt").mkdir()

    code, said = run(word, "mnt")

    assert code == ExitCode.USAGE
    assert f"did you mean {meant}?" in said
    assert not (tmp_path / word).exists()


def test_help_has_each_command_on_a_line_of_its_own():
    lines = main.help_text().splitlines()

    for name, (_, what) in main.COMMANDS.items():
        assert name == "mount" or any(f"caiafs {name} " in x and f"  {what}" in x for x in lines)
