"""The bounded form of scripts/chaos: kills, kills before every step, power cuts, mounts that meet, a soak."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.govc_server import find_server
from tests.support.mount import PROJECT, clean_environment
from tests.support.requirements import require_tool

pytestmark = [
    pytest.mark.mount,
    pytest.mark.govc,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
]

SEED = "20251122"


def chaos(tmp_path: Path, kind: str, *options: str) -> dict[str, Any]:
    """Run scripts/chaos and return its figures; fail with all it said where something was lost."""
    figures = tmp_path / "figures.json"
    environment = {"GOVC_SERVER_BIN": find_server()}
    paths = (str(PROJECT / "scripts" / "lib"), str(PROJECT))
    command = [sys.executable, "-m", "chaos", kind, *options, "--seed", SEED]
    done = subprocess.run(
        [*command, "--base", str(tmp_path), "--json", str(figures)],
        cwd=PROJECT,
        env=clean_environment(environment) | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return dict(json.loads(figures.read_text())[kind])


def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path):
    figures = chaos(tmp_path, "kills", "--count", "20")

    assert figures["kills"] == 20
    assert figures["steps of the loads"] > 50
    assert figures["checks of all stores"] == 1


def test_kills_before_single_system_calls_lose_and_double_nothing(tmp_path: Path):
    require_tool("strace")

    figures = chaos(tmp_path, "steps", "--count", "16")

    assert figures["kills"] >= 8
    assert figures["kills of mount"]
    assert figures["kills of store"]


def test_power_cuts_lose_nothing_that_was_synced(tmp_path: Path):
    figures = chaos(tmp_path, "power", "--count", "10")

    assert figures["cuts"] == 10


def test_mounts_that_edit_at_once_come_to_the_same_tree(tmp_path: Path):
    figures = chaos(tmp_path, "converge", "--count", "25")

    assert figures["examples on 2 mounts"] == 20
    assert figures["examples on 3 mounts"] == 5
    assert figures["versions that nobody replaced"] > 25


def test_mounts_on_a_git_remote_come_to_the_same_tree(tmp_path: Path):
    figures = chaos(tmp_path, "remotes", "--count", "6")

    assert figures["examples on 2 mounts"] == 6
    assert figures["versions that nobody replaced"] > 5


def test_soak_loses_nothing_and_leaks_nothing(tmp_path: Path):
    figures = chaos(tmp_path, "soak", "--minutes", "1")

    assert figures["lost"] == 0
    assert figures["restarts of govc"] >= 3
    assert figures["faults injected"] > 5
    assert figures["reads checked"] > 10
