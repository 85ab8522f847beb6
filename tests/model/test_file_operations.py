"""Random file operations on a real mount give what an ordinary directory gives; crashes and remounts are operations.

CAIAFS_MODEL_EXAMPLES sets how many runs; HYPOTHESIS_PROFILE=explore looks for new ones.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import Mounts
from tests.model.oracle import Twin
from tests.support.mount import Mount

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = int(os.environ.get("CAIAFS_MODEL_EXAMPLES", "100"))

NAMES = ["a", "b", "c", "d/a", "d/b", "d/e/a"]
FOLDERS = ["d", "d/e"]
FLAGS = [
    os.O_RDONLY,
    os.O_WRONLY,
    os.O_RDWR,
    os.O_RDWR | os.O_CREAT,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_RDWR | os.O_CREAT | os.O_TRUNC,
]

names = st.sampled_from(NAMES)
anything = st.sampled_from([*NAMES, *FOLDERS])
slots = st.integers(0, 2)
offsets = st.one_of(st.integers(0, 100), st.sampled_from([4095, 4096, 65_535, 70_000, 200_000]))
contents = st.one_of(
    st.binary(min_size=0, max_size=20),
    st.builds(
        lambda byte, size: bytes([byte]) * size,
        st.integers(1, 255),
        st.sampled_from([4096, 5000, 65_536, 65_537, 150_000]),
    ),
)

Step = tuple[str, tuple[object, ...]]


def step(name: str, *parts: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.tuples(*parts))


file_steps = [
    step("write", names, contents),
    step("append", names, contents),
    step("map_write", names, offsets, contents),
    step("map_read", names, offsets, st.sampled_from([1, 4096, 200_000])),
    step("truncate", names, offsets),
    step("read", names),
    step("stat", anything),
    step("rename", anything, anything),
    step("link", names, names),
    step("unlink", names),
    step("listing", st.sampled_from(FOLDERS)),
]
handle_steps = [
    step("open", slots, names, st.sampled_from(FLAGS)),
    step("pwrite", slots, offsets, contents),
    step("map_pwrite", slots, offsets, contents),
    step("pread", slots, offsets, st.sampled_from([1, 100, 4096, 200_000])),
    step("ftruncate", slots, offsets),
    step("fsync", slots),
    step("close", slots),
]
restarts = [step("remount"), step("crash")]

without_restart = st.lists(st.one_of(*file_steps, *handle_steps, *handle_steps), max_size=40)
with_restart = st.lists(
    st.one_of(*file_steps, *handle_steps, *handle_steps, *restarts), max_size=40
)

_numbers = itertools.count()
TwinFactory = Callable[[], Twin]


@pytest.fixture(scope="module")
def a_twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwinFactory]:
    """Return a function that makes an empty pair of directories, one in the module's mount."""
    base = tmp_path_factory.mktemp("model")
    mounts = Mounts(base)
    try:
        mount = mounts()

        def make() -> Twin:
            name = f"run-{next(_numbers)}"
            twin = Twin(mount, mount / name, base / "oracle" / name)
            for root in (twin.real, twin.model):
                for folder in FOLDERS:
                    (root / folder).mkdir(parents=True)
            return twin

        yield make
        check_clone(mount, base)
    finally:
        mounts.close()
    mounts.check_logs()


def check_clone(mount: Mount, base: Path) -> None:
    """Check that after all runs git has what the mount has."""
    mount.sync()
    clone = mount.clone(base / "clone")
    for oracle in (base / "oracle").iterdir():
        for path in (path for path in oracle.rglob("*") if path.is_file()):
            cloned = clone / path.relative_to(base / "oracle")
            assert cloned.read_bytes() == path.read_bytes(), path.name


def run(twin: Twin, steps: list[Step]) -> None:
    try:
        for name, arguments in steps:
            getattr(twin, name)(*arguments)
        twin.compare()
    finally:
        twin.close_all()
    twin.compare()


@given(steps=without_restart)
@settings(max_examples=EXAMPLES)
def test_file_operations_give_what_a_directory_gives(a_twin: TwinFactory, steps: list[Step]):
    run(a_twin(), steps)


@given(steps=with_restart)
@settings(max_examples=max(EXAMPLES // 10, 5))
@example(
    steps=[
        ("write", ("a", b"old")),
        ("open", (0, "a", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
        ("crash", ()),
        ("read", ("a",)),
    ]
)
@example(
    steps=[
        ("open", (0, "a", os.O_RDWR | os.O_CREAT)),
        ("pwrite", (0, 70_000, b"far")),
        ("fsync", (0,)),
        ("unlink", ("a",)),
        ("open", (1, "a", os.O_RDWR | os.O_CREAT)),
        ("pwrite", (1, 0, b"another")),
        ("close", (1,)),
        ("pread", (0, 69_999, 100)),
        ("crash", ()),
        ("read", ("a",)),
        ("remount", ()),
        ("read", ("a",)),
    ]
)
def test_file_operations_survive_crashes_and_remounts(a_twin: TwinFactory, steps: list[Step]):
    run(a_twin(), steps)
