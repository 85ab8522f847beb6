"""The code keeps its own house rules: sizes of modules and functions, who may print, who may read the environment."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MODULES = sorted((PROJECT / "caiafs").rglob("*.py"))
MODULE_MAX_LINES = 400
FUNCTION_MAX_LINES = 60

READERS_OF_THE_ENVIRONMENT = {
    "caiafs/cli/main.py",
    "caiafs/backends/git/transport.py",  # the same, as the user who mounts
    "caiafs/backends/git/command.py",  # passes it on to git, with what git must not obey taken out
}


def relative(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node)


def test_there_is_something_to_check():
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_has_at_most_400_lines(path: Path):
    assert len(path.read_text().splitlines()) <= MODULE_MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_function_has_at_most_60_lines(path: Path):
    long = {
        f"{node.name}: {length}"
        for node in functions(path)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_MAX_LINES
    }

    assert not long


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_says_in_its_first_line_what_it_is_for(path: Path):
    tree = parsed(path)

    assert not tree.body or ast.get_docstring(tree)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_the_environment_is_read_in_one_place(path: Path):
    used = {name for name in calls(path) if name in {"os.environ", "os.getenv", "environ.get"}}

    assert not used - {"environ.get"} or relative(path) in READERS_OF_THE_ENVIRONMENT


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_module_brings_in_threads_or_another_event_loop(path: Path):
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import)
        for name in node.names
    }

    # A command is a short program of its own; its one thread waits for a write in the kernel.
    allowed = {"threading"} if relative(path) == "caiafs/cli/sync.py" else set()
    assert not imported & {"asyncio", "threading", "multiprocessing"} - allowed
