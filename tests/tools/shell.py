"""Running a program as a person does: it ends with 0 or the test fails with what it said."""

import subprocess
from pathlib import Path

from tests.support.mount import AUTHOR, clean_environment


def run(*command: str | Path, cwd: Path, timeout_s: float = 100.0) -> str:
    """Run a command and return its output."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        check=False,
        env=clean_environment({**AUTHOR, "TERM": "xterm", "LC_ALL": "C.UTF-8"}),
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {said}"
    return done.stdout.decode("utf-8", "surrogateescape")


def shell(line: str, *, cwd: Path, timeout_s: float = 100.0) -> str:
    """Run a line of bash and return its output."""
    return run("bash", "-euo", "pipefail", "-c", line, cwd=cwd, timeout_s=timeout_s)
