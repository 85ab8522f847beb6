"""The scripts: strict shell, no argument needed, a clear line where something is missing."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.requirements import require_tool

PROJECT = Path(__file__).resolve().parents[2]
SCRIPTS = [path for path in sorted((PROJECT / "scripts").iterdir()) if path.is_file()]
SHELL = [path for path in SCRIPTS if b"python" not in path.read_bytes().partition(b"\n")[0]]
SHELL.append(PROJECT / ".ci" / "run")


def shell(commands: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `commands` after scripts/lib/setup.sh, as a script does."""
    setup = PROJECT / "scripts" / "lib" / "setup.sh"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f". {setup}\n{commands}", "scripts/example"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_a_script_is_strict_and_says_what_it_does(script: Path):
    lines = script.read_text().splitlines()

    assert script.stat().st_mode & 0o111
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert "set -euo pipefail" in lines


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_a_script_is_valid_shell(script: Path):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)

    assert done.stderr == ""


def test_without_root_a_missing_package_is_one_line_that_installs_it(tmp_path: Path):
    require_tool("dpkg-query")
    id_of_a_user = tmp_path / "id"
    id_of_a_user.write_text("#!/bin/sh\necho 1000\n")
    id_of_a_user.chmod(0o755)

    done = shell(
        "need_packages git no-such-package-1 no-such-package-2",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "example: packages are missing;"
        " run: sudo apt-get install -y no-such-package-1 no-such-package-2"
    ]


def test_a_python_that_is_named_and_unfit_is_passed_over():
    done = shell("find_python", PYTHON="/bin/false")

    assert done.returncode == 0
    assert done.stdout.strip() != "/bin/false"


def test_ci_requires_every_component():
    assert "export CAIAFS_REQUIRE_ALL=1" in (PROJECT / ".ci" / "run").read_text()
