"""pjdfstest passes whole on a real mount: 0 failed, group by group; rename, the longest, in parts.

The suite is looked for at $PJDFSTEST, then beside the project in ../shared/pjdfstest; scripts/conformance runs it on other file
systems too.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Mounts
from tests.posix.users import let_through
from tests.support.mount import PROJECT, Mount
from tests.support.requirements import require, require_fuse, require_root, require_tool

pytestmark = [pytest.mark.mount, pytest.mark.long, pytest.mark.timeout(900)]

# fmt: off
GROUPS = [
    "chmod", "chown", "ftruncate", "granular", "link", "mkdir", "mkfifo", "mknod", "open",
    "posix_fallocate", "rmdir", "symlink", "truncate", "unlink", "utimensat",
]
# fmt: on
RENAME = [f"rename/{number:02d}.t" for number in range(25)]

SUMMARY = re.compile(r"^pjdfstest: (\d+) passed, (\d+) failed$", re.MULTILINE)


def suite() -> Path:
    """Return the directory of the suite."""
    named = os.environ.get("PJDFSTEST")
    found = Path(named) if named else PROJECT.parent / "shared" / "pjdfstest"
    require((found / "run").is_file(), f"pjdfstest is not at {found}; set PJDFSTEST")
    return found


@pytest.fixture(scope="module")
def caia(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """Return a mount for all groups, as the suite wants it: every user let in, setuid and devices."""
    require_fuse()
    require_root()
    for tool in ("prove", "gcc"):
        require_tool(tool)
    base = tmp_path_factory.mktemp("pjdfstest")
    let_through(base / "mnt")  # the suite becomes other users
    mounts = Mounts(base)
    try:
        mount = mounts(options=["allow_other", "suid", "dev"])
        (mount.base).chmod(0o711)
        for part in RENAME:
            (base / "build" / part).parent.mkdir(parents=True, exist_ok=True)
        yield mount
    finally:
        mounts.close()
    mounts.check_logs()


@pytest.mark.parametrize("group", GROUPS + RENAME)
def test_no_assertion_of_pjdfstest_fails(caia: Mount, group: str):
    found = suite()
    if not (found / "tests" / group).exists():
        pytest.fail(f"pjdfstest has no {group}: the list above is out of date")

    done = subprocess.run(
        [found / "run", caia.path, group],
        env={**os.environ, "PJDFSTEST_BUILD": str(caia.base.parent / "build")},
        capture_output=True,
        text=True,
        check=False,
    )

    summary = SUMMARY.search(done.stdout)
    assert summary is not None, done.stdout + done.stderr
    assert summary[2] == "0", done.stdout
    assert int(summary[1]) > 0


def test_every_group_of_the_suite_is_run():
    tests = suite() / "tests"

    with_tests = {path.parent.name for path in tests.glob("*/*.t")} - {"chflags"}  # not on Linux
    assert with_tests == {*GROUPS, "rename"}
    assert {f"rename/{path.name}" for path in (tests / "rename").glob("*.t")} == set(RENAME)
