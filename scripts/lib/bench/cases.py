"""What is measured: one function a case, each giving one figure with its unit.

A case prepares its files untimed, then times the one thing in its name. Counts come from `Scale`, so that --quick
is the same work on less. Every case leaves the directory as it found it, but for the shared sets of `Dataset`.
"""

import os
import random
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

KIB4 = bytes(range(256)) * 16
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Scale:
    """How much work a case does."""

    files: int
    listing: int
    sequential_mib: int
    random_file_mib: int
    random_ops: int
    synced_ops: int


FULL = Scale(1000, 10_000, 256, 64, 4000, 200)
QUICK = Scale(200, 2000, 32, 16, 500, 30)


@dataclass(slots=True)
class Dataset:
    """One target's directory with the sets of files that several cases read.

    Attributes:
        root: where to work.
        beside: a plain directory for what must not be on the target (archives, git directories).
    """

    root: Path
    beside: Path
    scale: Scale
    _made: set[str] = field(default_factory=set)

    def flat(self) -> list[str]:
        """Return the paths of the 4 KiB files in one directory, made at the first call."""
        return self._many("flat", self.scale.files, KIB4)

    def wide(self) -> list[str]:
        """Return the paths of the empty-ish files of the big directory, made at the first call."""
        return self._many("wide", self.scale.listing, b"x\n")

    def _many(self, name: str, count: int, content: bytes) -> list[str]:
        folder = self.root / name
        paths = [f"{folder}/document-{i:05d}.txt" for i in range(count)]
        if name not in self._made:
            self._made.add(name)
            folder.mkdir()
            for path in paths:
                write_file(path, content)
        return paths

    def big(self) -> str:
        """Return the path of the file for random access, made at the first call."""
        path = self.root / "big.bin"
        if "big" not in self._made:
            self._made.add("big")
            write_file(str(path), os.urandom(MIB) * self.scale.random_file_mib)
        return str(path)


def write_file(path: str, content: bytes) -> None:
    """Create and write a file with as few calls as there can be."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


class TooBusy(Exception):
    """The machine cannot do this case; the text says why."""


def drop_caches() -> None:
    """Make the kernel forget clean pages, names and inodes of everything."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as exc:
        raise TooBusy("cold figures need root, to drop the kernel's caches") from exc


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(count: int, work: Callable[[], object]) -> float:
    """Return how many of `count` steps `work` does in a second."""
    return count / timed(work)


def _fresh(data: Dataset, name: str) -> Path:
    folder = data.root / name
    folder.mkdir()
    return folder


def create(data: Dataset) -> float:
    folder = _fresh(data, "create")
    paths = [f"{folder}/{i:05d}" for i in range(data.scale.files)]
    figure = rate(len(paths), lambda: [write_file(p, KIB4) for p in paths])
    shutil.rmtree(folder)
    return figure


def read_all(paths: list[str]) -> None:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 65536)
        os.close(fd)


def read_warm(data: Dataset) -> float:
    paths = data.flat()
    read_all(paths)
    return rate(len(paths), lambda: read_all(paths))


def read_cold(data: Dataset) -> float:
    paths = data.flat()
    drop_caches()
    return rate(len(paths), lambda: read_all(paths))


def stat_warm(data: Dataset) -> float:
    paths = data.flat()
    [os.stat(p) for p in paths]
    return rate(len(paths), lambda: [os.stat(p) for p in paths])


def stat_cold(data: Dataset) -> float:
    paths = data.flat()
    drop_caches()
    return rate(len(paths), lambda: [os.stat(p) for p in paths])


def list_warm(data: Dataset) -> float:
    data.wide()
    os.listdir(data.root / "wide")
    return timed(lambda: os.listdir(data.root / "wide")) * 1000


def list_cold(data: Dataset) -> float:
    data.wide()
    drop_caches()
    return timed(lambda: os.listdir(data.root / "wide")) * 1000


def ls_l_cold(data: Dataset) -> float:
    data.wide()
    drop_caches()
    return timed(lambda: _run("ls", "-l", data.root / "wide")) * 1000


def rename(data: Dataset) -> float:
    folder = _fresh(data, "rename")
    pairs = [(f"{folder}/{i:05d}", f"{folder}/{i:05d}.new") for i in range(data.scale.files)]
    for old, _ in pairs:
        write_file(old, KIB4)
    figure = rate(len(pairs), lambda: [os.rename(old, new) for old, new in pairs])
    shutil.rmtree(folder)
    return figure


def unlink(data: Dataset) -> float:
    folder = _fresh(data, "unlink")
    paths = [f"{folder}/{i:05d}" for i in range(data.scale.files)]
    for path in paths:
        write_file(path, KIB4)
    figure = rate(len(paths), lambda: [os.unlink(p) for p in paths])
    folder.rmdir()
    return figure


def write_sequential(data: Dataset) -> float:
    path = str(data.root / "sequential")
    block = os.urandom(MIB)
    size_mib = data.scale.sequential_mib

    def write() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        for _ in range(size_mib):
            os.write(fd, block)
        os.fsync(fd)
        os.close(fd)

    figure = rate(size_mib, write)
    os.unlink(path)
    return figure


def read_sequential(data: Dataset) -> float:
    path = data.big()
    drop_caches()

    def read() -> None:
        fd = os.open(path, os.O_RDONLY)
        while os.read(fd, MIB):
            pass
        os.close(fd)

    return rate(data.scale.random_file_mib, read)


def _offsets(data: Dataset) -> list[int]:
    pages = data.scale.random_file_mib * MIB // 4096
    chosen = random.Random(1)
    return [chosen.randrange(pages) * 4096 for _ in range(data.scale.random_ops)]


def read_random(data: Dataset) -> float:
    path, offsets = data.big(), _offsets(data)
    drop_caches()
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    figure = rate(len(offsets), lambda: [os.pread(fd, 4096, o) for o in offsets])
    os.close(fd)
    return figure


def write_random(data: Dataset) -> float:
    path, offsets = data.big(), _offsets(data)
    fd = os.open(path, os.O_RDWR)

    def write() -> None:
        for offset in offsets:
            os.pwrite(fd, KIB4, offset)
        os.fsync(fd)

    figure = rate(len(offsets), write)
    os.close(fd)
    return figure


def untar(data: Dataset) -> float:
    archive = data.beside / "tree.tar"
    if not archive.exists():
        _make_archive(archive, data)
    folder = _fresh(data, "untar")
    figure = timed(lambda: _run("tar", "-xf", archive, "-C", folder)) * 1000
    shutil.rmtree(folder)
    return figure


def _make_archive(archive: Path, data: Dataset) -> None:
    source = data.beside / "tree"
    for i in range(data.scale.files):
        folder = source / f"{i % 20:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"document-{i:05d}.txt").write_bytes(KIB4)
    with tarfile.open(archive, "w") as tar:
        tar.add(source, "tree")
    shutil.rmtree(source)


def git_status(data: Dataset) -> float:
    data.flat()
    repository = data.beside / f"status-{data.root.name}.git"
    git = ["git", f"--git-dir={repository}", f"--work-tree={data.root / 'flat'}"]
    if not repository.exists():
        _run(*git, "init", "-q")
        _run(*git, "add", "-A", ".")
    drop_caches()
    return timed(lambda: _run(*git, "status", "--short")) * 1000


def grep_r(data: Dataset) -> float:
    data.flat()
    drop_caches()
    words = ["grep", "-r", "-c", "no such text", data.root / "flat"]
    return timed(lambda: _run(*words, ok=(1,))) * 1000


def save_fsync(data: Dataset) -> float:
    folder = _fresh(data, "fsync")

    def save() -> None:
        for i in range(data.scale.synced_ops):
            fd = os.open(f"{folder}/{i:05d}", os.O_WRONLY | os.O_CREAT)
            os.write(fd, KIB4)
            os.fsync(fd)
            os.close(fd)

    figure = timed(save) / data.scale.synced_ops * 1000
    shutil.rmtree(folder)
    return figure


def append_fsync(data: Dataset) -> float:
    path = str(data.root / "journal")
    write_file(path, KIB4 * 256)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)

    def append() -> None:
        for _ in range(data.scale.synced_ops):
            os.write(fd, b"one more line of the journal\n")
            os.fsync(fd)

    figure = timed(append) / data.scale.synced_ops * 1000
    os.close(fd)
    os.unlink(path)
    return figure


def _run(*args: str | Path, ok: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(
        list(map(str, args)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode not in ok:
        raise RuntimeError(f"{args[0]} ended with {done.returncode}: {done.stderr.decode()}")


@dataclass(frozen=True, slots=True)
class Case:
    """One figure: what it is called, its unit, which way is better, how it is taken.

    Attributes:
        base: the target that ratios refer to, where it is not the run's.
    """

    name: str
    unit: str
    higher_is_better: bool
    measure: Callable[[Dataset], float]
    base: str | None = None


CASES = (
    Case("create", "files/s", True, create),
    Case("read-warm", "files/s", True, read_warm),
    Case("read-cold", "files/s", True, read_cold),
    Case("stat-warm", "stats/s", True, stat_warm),
    Case("stat-cold", "stats/s", True, stat_cold),
    Case("list-warm", "ms", False, list_warm),
    Case("list-cold", "ms", False, list_cold),
    Case("ls-l-cold", "ms", False, ls_l_cold),
    Case("rename", "files/s", True, rename),
    Case("unlink", "files/s", True, unlink),
    Case("write-seq", "MiB/s", True, write_sequential),
    Case("read-seq-cold", "MiB/s", True, read_sequential),
    Case("read-random-cold", "IOPS", True, read_random),
    Case("write-random", "IOPS", True, write_random),
    Case("untar", "ms", False, untar),
    Case("git-status-cold", "ms", False, git_status),
    Case("grep-r-cold", "ms", False, grep_r),
    Case("save-fsync", "ms", False, save_fsync),
    Case("append-fsync", "ms", False, append_fsync),
)
