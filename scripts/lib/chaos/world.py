"""A mount on real stores with loads at work in it, and the checks of all of them against each other.

Everything lies below one scratch directory; `close` ends what was started and leaves no mount.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from chaos.load import FAILED
from chaos.oracle import ABSENT, CONFLICT, Oracle, Tree, tree_of
from tests.support.fresh_reader import read_govc
from tests.support.govc_server import GovcServer
from tests.support.mount import PROJECT, Mount, clean_environment
from tests.support.waiting import wait_until

SYNC_TIMEOUT_S = 180.0
START_TIMEOUT_S = 90.0
FSCK_TRIES = (
    3  # one that runs while attributes are saved may miss an object that is younger than it
)
FAST = {
    "CAIAFS_POLL_INTERVAL": "200ms",
    "CAIAFS_HEALTH_INTERVAL": "300ms",
    "CAIAFS_BREAKER_RESET": "300ms",
    "CAIAFS_RETRY_BACKOFF_MAX": "500ms",
}
"""Settings that shorten the pauses of a mount, and no others."""

_BAD_LOG = re.compile(r"Traceback|CRITICAL|never awaited|Exception ignored")


class Lost(AssertionError):
    """Something that was promised is not there."""


class Worker:
    """One load, running in `folder`; it goes on with what is there when it is started again."""

    def __init__(
        self, kind: str, folder: Path, scratch: Path, *, power: bool = False, pause_s: float = 0.02
    ) -> None:
        self.kind, self.folder = kind, folder
        self._pause_s = pause_s
        self._scratch = scratch
        self._power = power
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._found: Tree = {}
        self.saved: set[str] = set()
        self.steps = 0
        self.reads = 0
        self.set_aside: dict[str, list[str]] = {}

    @property
    def _log(self) -> Path:
        return self._scratch / f"{self.kind}.{self._starts}.log"

    def start(self, seed: int) -> None:
        """Begin; what the folder holds now is what it has to hold."""
        self.folder.mkdir(exist_ok=True)
        self._starts += 1
        self._found = tree_of(self.folder)
        self._log.touch()
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "chaos.load", self.kind),
                    *map(str, (self.folder, self._log, seed, self._pause_s)),
                ],
                env=load_environment(),
                cwd=self._scratch,
                stdin=subprocess.DEVNULL,
                stderr=said,
            )

    @property
    def _said(self) -> Path:
        return self._scratch / f"{self.kind}.said"

    @property
    def has_ended(self) -> bool:
        """Whether it met an error."""
        return self._process is not None and self._process.poll() is not None

    def stop(self, *, may_fail: bool) -> None:
        """Let it end its present step, or meet a mount that died (`may_fail`)."""
        if self._process is None:
            return
        self._process.terminate()
        code = self._process.wait(120)
        self._process = None
        if code == -signal.SIGTERM or (may_fail and code == FAILED):
            return  # it had not begun, or the mount died under it
        if code:
            raise Lost(f"{self.kind} ended with {code}: {self._said.read_text()[-500:]}")

    def kill(self) -> None:
        """End it, whatever it does; for when the world ends."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self, folder: Path | None = None) -> None:
        """Compare the folder (or a copy of it) with the log; remove what the step in flight left lying."""
        oracle = Oracle(self._found, power=self._power)
        with self._log.open() as lines:
            oracle.take(lines)
        found = tree_of(folder or self.folder)
        if lost := oracle.lost(found):
            raise Lost(f"{self.kind}, log {self._log}: " + "; ".join(lost[:10]))
        self.set_aside = {f"{self.kind}/{path}": may for path, may in oracle.set_aside.items()}
        if folder is None:
            self.saved |= set() if self._power else oracle.saved
            self.steps += oracle.steps
            self.reads += oracle.reads
            for path in oracle.litter_in(found):
                (self.folder / path).unlink()


def load_environment() -> dict[str, str]:
    """Return the environment of a load: this package and the project can be imported."""
    paths = (str(PROJECT / "scripts" / "lib"), str(PROJECT))
    return clean_environment() | {"PYTHONPATH": os.pathsep.join(paths)}


class World:
    """A mount, its govc (None: git alone) and the loads in it."""

    def __init__(
        self,
        base: Path,
        *,
        govc: bool = True,
        kinds: tuple[str, ...] = ("editor", "files", "folders", "large"),
        repo: Path | None = None,
        env: dict[str, str] | None = None,
        power: bool = False,
        pauses_s: dict[str, float] | None = None,
    ) -> None:
        self.base = base
        self._scratch = base / "scratch"
        self._scratch.mkdir(parents=True)
        self._power = power
        self.govc = GovcServer(base / "govc").start() if govc else None
        url = {"GOVC_SERVICE_URL": self.govc.url} if self.govc else {}
        self.mount = Mount(base / "caia", repo=repo, env=FAST | url | (env or {}))
        folders = {kind: self.mount.path / kind for kind in kinds}
        self.workers = [
            Worker(
                kind,
                folder,
                self._scratch,
                power=power,
                pause_s=(pauses_s or {}).get(kind, 0.02),
            )
            for kind, folder in folders.items()
        ]
        self._readings = 0

    def start_mount(self) -> None:
        """Mount, patiently."""
        self.mount.start(timeout_s=START_TIMEOUT_S)

    def start_loads(self, seed: int) -> None:
        for number, worker in enumerate(self.workers):
            worker.start(seed * 10 + number)

    def stop_loads(self, *, may_fail: bool = False) -> None:
        for worker in self.workers:
            worker.stop(may_fail=may_fail)

    def check_loads(self) -> None:
        for worker in self.workers:
            worker.check()

    def check_stores(self) -> None:
        """Check, with the loads at rest, that mount, clone and govc agree and the repository is sound."""
        try:
            self.mount.sync(timeout_s=SYNC_TIMEOUT_S)
        except AssertionError as exc:
            raise Lost(str(exc)) from exc
        set_aside: dict[str, list[str]] = {}
        for worker in self.workers:
            set_aside |= worker.set_aside
        here = published(tree_of(self.mount.path))
        self._readings += 1
        copies = self._scratch / f"copies{self._readings}"
        copies.mkdir()
        clone = tree_of(self.mount.clone(copies / "clone"))
        for path, may in set_aside.items():
            here.pop(path)
            if (blob := clone.pop(path, ABSENT)) not in may:
                raise Lost(f"instead of the damaged {path} the stores have {blob}, not {may}")
        _agree(here, clone, "the clone")
        if self.govc is not None:
            documents = [os.fsencode(path) for path in here]
            try:
                read = read_govc(self.govc.url, documents, copies / "govc")
            except AssertionError as exc:
                raise Lost(f"a new reader of govc: {exc}") from exc
            _agree(here, tree_of(read), "govc")
        shutil.rmtree(copies)
        copies_made = [path for path in here if CONFLICT.search(path)]
        if copies_made and not self._power:
            raise Lost(f"nobody else wrote, yet there are conflicts: {copies_made}")
        check_repository(self.mount, {blob for worker in self.workers for blob in worker.saved})
        for path in set_aside:
            (self.mount / path).unlink()  # so that the next load does not meet it
        bad = [line for line in self.mount.log().splitlines() if _BAD_LOG.search(line)]
        if bad and not self._power:  # on a disk that has gone they are right
            raise Lost(f"in the log: {bad[:5]}")

    def commits(self) -> int:
        return len(self.mount.commits())

    def supervise_govc(self) -> bool:
        """Start govc where it died by itself; return whether it did."""
        govc = self.govc
        if govc is None or Path(f"/proc/{govc.pid}/stat").read_text().split(") ")[1][0] != "Z":
            return False
        govc.restart()
        return True

    def close(self, *, keep: bool = False) -> None:
        """End everything; with `keep` the files stay."""
        for worker in self.workers:
            worker.kill()
        self.mount.close()
        if self.govc is not None:
            self.govc.stop()
        if not keep:
            shutil.rmtree(self.base, ignore_errors=True)


def published(tree: Tree) -> Tree:
    """Return what of a mount's tree is published: not what editors left lying."""
    local = re.compile(r"(~|\.sw.)$")
    return {path: blob for path, blob in tree.items() if not local.search(path)}


def _agree(here: Tree, there: Tree, what: str) -> None:
    odd = [path for path in here.keys() | there.keys() if here.get(path) != there.get(path)]
    if odd:
        shown = [f"{path}: {here.get(path)} and {there.get(path)}" for path in sorted(odd)[:5]]
        raise Lost(f"the mount and {what} differ in {len(odd)} documents: {shown}")


def check_repository(mount: Mount, saved: set[str]) -> None:
    """Check that git is content, that no operation came twice, and that each saved version is in the history."""
    said = ""
    for _ in range(FSCK_TRIES):
        done = subprocess.run(
            ["git", "fsck", "--strict", "--no-dangling", "--no-progress"],
            cwd=mount.repo,
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"{done.stdout[-500:]}{done.stderr[-500:]}" if done.returncode else done.stdout
        if not said.strip():
            break
    else:
        raise Lost(f"git fsck: {said}")
    operations = mount.git("log", "--format=%(trailers:key=Caiafs-Operation,valueonly)").split()
    if twice := [operation for operation, many in Counter(operations).items() if many > 1]:
        raise Lost(f"published twice: {twice[:5]}")
    # Unreachable objects don't count: the next gc takes them.
    history = set(
        re.findall(r"^[0-9a-f]{40}", mount.git("rev-list", "--objects", "HEAD"), re.MULTILINE)
    )
    if missing := saved - history - {""}:
        raise Lost(f"{len(missing)} saved versions are not in the history: {sorted(missing)[:5]}")


def wait_store_process(mount: Mount, dead: int) -> None:
    """Wait until a store process other than `dead` lives."""

    def renewed() -> bool:
        with contextlib.suppress(AssertionError):
            return mount.store_pid != dead
        return False

    wait_until(renewed, "another store process lives", timeout_s=30)
