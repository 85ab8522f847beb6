"""kill -9 at every step: just before the N-th fsync, rename, write or message of either process, by strace.

The program under test has no hook for this. A short piece of work is done again and again; before each, strace is attached to the
process and told to kill it at one call of one kind, counting on until the work is done unharmed.
"""

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caiafs.core.types import blob_id
from chaos.oracle import tree_of
from chaos.report import Figures
from chaos.world import Lost, World, wait_store_process
from tests.support.waiting import wait_until

CALLS = {
    "store": ("fsync", "rename", "openat", "write", "sendto", "unlink"),
    "mount": ("fdatasync", "pwrite64", "write", "writev", "sendto", "unlink", "pwritev"),
}
STRIDE = {"openat": 5, "write": 3, "pwrite64": 3, "writev": 3}
"""Of these there are many, most of them alike: every n-th is enough."""

MOST = 400


@dataclass
class Work:
    """A short piece of work in a folder of its own, and what has to be there afterwards."""

    root: Path

    def __post_init__(self) -> None:
        self.done: dict[str, str] = {}
        self.trying: dict[str, set[str]] = {}

    def do(self) -> bool:
        """Save, save over, patch, rename, remove; return whether nothing was refused."""
        try:
            self._do()
        except OSError:
            return False
        return True

    def _do(self) -> None:
        self._try({"": {""}})
        self.root.mkdir(exist_ok=True)
        for number in range(5):
            self._save(f"doc-{number}", b"first %d\n" % number)
        self._save("doc-0", b"second 0\n" * 20_000)
        self._save("large", os.urandom(1 << 20))
        self._try({"doc-1": {"", self.done["doc-1"]}, "moved": {"", self.done["doc-1"]}})
        (self.root / "doc-1").rename(self.root / "moved")
        self.done["moved"] = self.done.pop("doc-1")
        self._try({"doc-2": {"", self.done["doc-2"]}})
        (self.root / "doc-2").unlink()
        del self.done["doc-2"]
        self._try({})

    def _save(self, name: str, content: bytes) -> None:
        blob = str(blob_id(content))
        # A name that was not there before is made for good before it has content.
        self._try({name: {blob, self.done.get(name) or str(blob_id(b"")), self.done.get(name, "")}})
        fd = os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        self.done[name] = blob

    def _try(self, trying: dict[str, set[str]]) -> None:
        self.trying = trying

    def check(self) -> None:
        """Compare with what is there."""
        found = tree_of(self.root) if self.root.exists() else {}
        for path in found.keys() | self.done.keys():
            allowed = self.trying.get(path) or {self.done.get(path, "")}
            if found.get(path, "") not in allowed:
                raise Lost(f"{self.root.name}/{path} is {found.get(path)}, not one of {allowed}")


def run(base: Path, figures: Figures, *, count: int, seed: int) -> None:
    """Kill before `count` of all steps, chosen at random but each once; raise Lost where anything is missing."""
    with figures.world(World(base / "steps", kinds=())) as world:
        world.start_mount()
        steps = list(_steps(world, figures))
        figures.set("steps there are", len(steps))
        random.Random(seed).shuffle(steps)
        chosen = steps[: min(count, MOST)]
        for number, step in enumerate(chosen):
            figures.note(f"kill {number}: {step}")
            _kill_at(world, figures, number, step)
        world.check_stores()
        figures.add("commits", world.commits())


def _steps(world: World, figures: Figures) -> Iterator[tuple[str, str, int]]:
    """Return the steps of the work, found by doing it once under strace, counted by thread."""
    for process, calls in CALLS.items():
        trace = world.base / f"{process}.trace"
        with _traced(_pid(world, process), ["-e", f"trace={','.join(calls)}"], trace):
            Work(world.mount / f"counted-{process}").do()
            world.mount.sync(timeout_s=60)
        counts: dict[tuple[str, str], int] = {}
        for line in trace.read_text(errors="replace").splitlines():
            thread, _, said = line.partition(" ")
            call = said.strip().partition("(")[0]
            if call in calls:
                counts[thread, call] = counts.get((thread, call), 0) + 1
        for call in calls:
            most = max((n for (_, name), n in counts.items() if name == call), default=0)
            figures.set(f"most {call} by one thread of {process}", most)
            yield from ((process, call, n) for n in range(1, most + 1, STRIDE.get(call, 1)))


def _kill_at(world: World, figures: Figures, number: int, step: tuple[str, str, int]) -> None:
    process, call, when = step
    mount, pid = world.mount, _pid(world, process)
    work = Work(mount / f"step-{number}")
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"]
    with _traced(pid, inject, world.base / "inject.trace"):
        whole = work.do()
        if process == "store":
            mount.sync(timeout_s=60)
    died = not _is_alive(pid)
    figures.add(f"kills of {process}" if died else "not reached")
    figures.add("kills", int(died))
    if process == "store" and not whole:
        raise Lost(f"the store process died before {call} {when}, and a save was refused")
    if died and process == "store":
        wait_store_process(mount, pid)
    elif died:
        mount.wait_ended()
        world.start_mount()
    work.check()


def _pid(world: World, process: str) -> int:
    return world.mount.pid if process == "mount" else world.mount.store_pid


@contextlib.contextmanager
def _traced(pid: int, options: list[str], output: Path) -> Iterator[None]:
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", output, *options, "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_until(lambda: _all_traced(pid, strace), f"strace holds {pid}")
        yield
    finally:
        _let_go(pid, strace)


def _let_go(pid: int, strace: subprocess.Popen[bytes]) -> None:
    """End strace; the process goes on, unless it was killed."""
    # Told to end while the process is dying, strace waits for a thread that it has to bury itself.
    with contextlib.suppress(subprocess.TimeoutExpired):
        strace.wait(0.2 if _is_alive(pid) else 10)
    strace.terminate()
    try:
        strace.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        strace.kill()
        strace.communicate()


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def _all_traced(pid: int, strace: subprocess.Popen[bytes]) -> bool:
    if strace.poll() is not None:
        raise AssertionError(f"strace ended: {strace.communicate()[1]!r}")
    states = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all(f"TracerPid:\t{strace.pid}" in state for state in states)
