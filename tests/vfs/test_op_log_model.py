"""Whatever programs do, the op log makes of the published tree what the mount shows."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.vfs_program import TRUNCATE, WRITE, Program

FILES = [b"a", b"b", b"x~", b".x.swp", b"d/b", b"d/big", b"d/n", b"d/x~", b"e/c", b"t~/b", b"t~/x~"]
DIRECTORIES = [b"d", b"e", b"t~", b"n", b"d/s", b"t~/s"]
paths = st.sampled_from(FILES)
directories = st.sampled_from(DIRECTORIES)
any_paths = st.one_of(paths, directories)
contents = st.sampled_from([b"", b"x", b"small", b"other", b"L" * 100, b"M" * 150, b"initial a"])
which = st.integers(0, 3)


def step(name, *arguments):
    return st.tuples(st.just(name), *arguments)


steps = st.lists(
    st.one_of(
        step("create", paths),
        step("open", paths, st.sampled_from([os.O_RDONLY, WRITE, TRUNCATE])),
        step("write", which, st.sampled_from([0, 3, 70, 120]), contents),
        step("read", which),
        step("flush", which),
        step("fsync", which),
        step("release", which),
        step("save", paths, contents),
        step("truncate", paths, st.sampled_from([0, 2, 80, 300])),
        step("chmod", paths, st.sampled_from([0o644, 0o755])),
        step("touch", paths),
        step("mkdir", directories),
        step("rmdir", directories),
        step("symlink", paths, st.sampled_from([b"a", b"nowhere"])),
        step("unlink", paths),
        step("link", paths, paths),
        step("rename", paths, paths),
        step("rename", any_paths, any_paths),
        step("rename_noreplace", any_paths, any_paths),
        step("exchange", any_paths, any_paths),
        step("hash"),
        step("settle", st.integers(1, 5)),
        step("age"),
        step("forget"),
        step("remount"),
        step("kill"),
    ),
    max_size=25,
)


async def run(program_steps, **config):
    with tempfile.TemporaryDirectory() as root:
        program = Program(Path(root), config)
        try:
            await program.run(program_steps)
            await program.check()
        finally:
            program.end()


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("CAIAFS_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(steps)
async def test_replaying_the_op_log_gives_what_the_mount_shows(program_steps):
    await run(program_steps)
