"""Two and three mounts on one govc, edited at the same time: they come to the same tree, and no version is lost.

hypothesis makes the plans. The mounts live on from example to example, each in a folder of its own, so that an example costs
about a second; hence nothing is shrunk, and --seed repeats the whole run.
"""

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from caiafs.core.types import blob_id
from chaos.oracle import CONFLICT, Tree, tree_of
from chaos.report import Figures
from chaos.world import FAST, START_TIMEOUT_S, Lost, check_repository
from tests.support.fresh_reader import read_govc
from tests.support.govc_server import GovcServer
from tests.support.mount import Mount

NAMES = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "s.txt", "é\n", "x.json"]
KINDS = ["put", "put", "put", "remove", "move", "replace", "mode", "link", "mkdir"]
OF_THE_EXISTING = {"remove", "move", "replace", "mode"}
PAUSES_S = (0, 0, 0.02, 0.15)
LEVEL_TIMEOUT_S = 90.0
EXAMPLES_OF_A_MEETING = 40

turns = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(
            st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9)),
            min_size=1,
            max_size=3,
        ),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=8,
)


class Hand:
    """Somebody who works through one mount; `versions` are those that have to be in the history: what was saved, and where."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._count = 0
        self._shown: dict[Path, str] = {}
        self.versions: dict[str, str] = {}

    def do(self, kind: str, first: int, second: int) -> bool:
        """Do one step; return whether the file system let us."""
        path, other = self._root / NAMES[first], self._root / NAMES[second]
        if kind in OF_THE_EXISTING:
            there = sorted(self._root.rglob("*"))
            path = there[first % len(there)] if there else path
        try:
            getattr(self, f"_{kind}")(path, other)
        except OSError:
            return False
        return True

    def _text(self) -> bytes:
        self._count += 1
        lines = [f"line {number}" for number in range(6)]
        lines[self._count % 6] = f"{self._name} {self._count} {time.monotonic_ns():x}"
        return ("\n".join(lines) + "\n").encode()

    def _saved(self, path: Path, text: bytes) -> None:
        self._shown[path] = str(blob_id(text))
        self.versions[f"{path.relative_to(self._root)} {self._count}"] = self._shown[path]

    def _bury(self, path: Path) -> None:
        """What one hand makes and takes away again within one commit need not be in the history."""
        for known in [*self._shown]:
            if known == path or path in known.parents:
                gone = self._shown.pop(known)
                self.versions = {at: blob for at, blob in self.versions.items() if blob != gone}

    def _put(self, path: Path, _other: Path) -> None:
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            self._bury(path)
            path.unlink()
        text = self._text()
        path.write_bytes(text)
        self._saved(path, text)

    def _remove(self, path: Path, _other: Path) -> None:
        path.unlink()
        self._bury(path)

    def _move(self, path: Path, other: Path) -> None:
        path.rename(other)
        self._bury(other)
        for known in [*self._shown]:
            if known == path or path in known.parents:
                # Moved within the same commit, it is in the history under its new name only.
                self._shown[other / known.relative_to(path)] = self._shown.pop(known)

    def _replace(self, path: Path, _other: Path) -> None:
        if path.is_dir():
            return
        text = self._text()
        beside = path.with_name(f".{path.name}.swp")
        beside.write_bytes(text)
        beside.rename(path)
        self._bury(path)
        self._saved(path, text)

    def _mode(self, path: Path, _other: Path) -> None:
        if path.is_file():
            path.chmod(path.stat().st_mode ^ 0o111)

    def _link(self, path: Path, other: Path) -> None:
        path.symlink_to(other.name)

    def _mkdir(self, path: Path, _other: Path) -> None:
        path.mkdir()


class Meeting:
    """Some mounts on one govc; it is started again when it dies, as a supervisor would."""

    def __init__(self, base: Path, count: int, figures: Figures) -> None:
        self.base = base
        self._figures = figures
        self.govc = GovcServer(base / "govc").start()
        env = FAST | {"GOVC_SERVICE_URL": self.govc.url}
        self.mounts = [Mount(base / f"mount{number}", env=env) for number in range(count)]
        self._examples = 0

    def start(self) -> None:
        for mount in self.mounts:
            mount.start(timeout_s=START_TIMEOUT_S)

    def play(self, plan: list[tuple[int, list[tuple[str, int, int]], int]]) -> None:
        """Play one plan in a new folder and see that all come level."""
        self._examples += 1
        folder = f"example-{self._examples}"
        self._figures.note(folder)
        roots = [mount.path / folder for mount in self.mounts]
        roots[0].mkdir()
        (roots[0] / "a").write_text(f"base {folder}\n1\n2\n3\n4\n5\n6\n")
        self._wait(lambda: all((root / "a").exists() for root in roots), "all have the first")
        hands = [Hand(root, f"hand{number}") for number, root in enumerate(roots)]
        for who, steps, pause in plan:
            hand = hands[who % len(hands)]
            for step in steps:
                self._figures.add("edits" if hand.do(*step) else "edits refused (EEXIST, ...)")
            time.sleep(PAUSES_S[pause])
        self._come_level(folder)
        for hand in hands:
            self._figures.add("versions checked in the histories", len(hand.versions))
            self._check_history(hand.versions, folder)
        here = tree_of(roots[0])
        self._figures.add("conflict copies", sum(1 for path in here if CONFLICT.search(path)))
        self._figures.add("examples")

    def _come_level(self, folder: str) -> None:
        before: list[object] = []

        def level() -> bool:
            nonlocal before
            for mount in self.mounts:
                with contextlib.suppress(AssertionError):
                    mount.sync(timeout_s=30)
            now = [self._trees(folder), [self._head(mount) for mount in self.mounts]]
            steady, before = now == before, now
            trees = self._trees(folder)
            return steady and all(tree == trees[0] for tree in trees)

        try:
            self._wait(level, f"all mounts and repositories hold the same of {folder}")
        except AssertionError as exc:
            raise Lost(f"{exc}: {self._odd(folder)}") from exc

    def _trees(self, folder: str) -> list[Tree]:
        trees = []
        for mount in self.mounts:
            trees += [tree_of(mount.path / folder), self._committed(mount, folder)]
        return trees

    def _committed(self, mount: Mount, folder: str) -> Tree:
        found = {}
        for entry in mount.git("ls-tree", "-r", "-z", "HEAD", f"{folder}/").split("\0")[:-1]:
            fields, _, path = entry.partition("\t")
            found[path.removeprefix(f"{folder}/")] = fields.split()[2]
        return found

    def _head(self, mount: Mount) -> str:
        return mount.git("rev-parse", "HEAD")

    def _odd(self, folder: str) -> list[tuple[str, list[str]]]:
        trees = self._trees(folder)
        paths = sorted({path for tree in trees for path in tree})
        rows = [(path, [tree.get(path, "-")[:7] for tree in trees]) for path in paths]
        return [(path, row) for path, row in rows if len(set(row)) > 1]

    def _check_history(self, versions: dict[str, str], folder: str) -> None:
        """Check that some mount's repository has each version: govc shows others the newest only."""
        # Without --full-history git leaves out a side of a merge that did not prevail.
        command = ("log", "--full-history", "--raw", "--no-abbrev", "--format=", "-m", "HEAD", "--")
        raw = "".join(mount.git(*command, folder) for mount in self.mounts)
        if missing := {path: blob for path, blob in versions.items() if blob not in raw}:
            raise Lost(f"{folder}: in no history: {missing}")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + LEVEL_TIMEOUT_S
        while not self._holds(condition):
            if time.monotonic() > end:
                raise AssertionError(f"waited {LEVEL_TIMEOUT_S:g} s in vain: {what}")
            self._supervise()
            time.sleep(0.05)

    def _holds(self, condition: Callable[[], bool]) -> bool:
        with contextlib.suppress(FileNotFoundError, AssertionError):
            return condition()  # a tree that changes while it is read is read again
        return False

    def _supervise(self) -> None:
        if Path(f"/proc/{self.govc.pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
            self._figures.add("govc died by itself")
            self.govc.restart()

    def check(self) -> None:
        """Compare everything once more, govc with a new reader too."""
        trees = [tree_of(mount.path) for mount in self.mounts]
        if any(tree != trees[0] for tree in trees):
            raise Lost("the mounts differ in the end")
        for mount in self.mounts:
            mount.sync(timeout_s=120)
        read = read_govc(self.govc.url, map(os.fsencode, trees[0]), self.base / "read")
        if tree_of(read) != trees[0]:
            raise Lost("govc differs in the end")
        for mount in self.mounts:
            check_repository(mount, set())

    def close(self, *, keep: bool = False) -> None:
        del keep  # what is left is small
        for mount in self.mounts:
            mount.close()
        self.govc.stop()


def run(base: Path, figures: Figures, *, count: int, seed: int) -> None:
    """Play `count` plans, by turns on two and on three mounts; raise Lost where they do not meet."""
    done = 0
    while done < count:
        many = min(EXAMPLES_OF_A_MEETING, count - done)
        mounts = 2 + (done // EXAMPLES_OF_A_MEETING) % 2
        with figures.world(Meeting(base / f"meeting{done}", mounts, figures)) as meeting:
            meeting.start()
            figures.note(f"{mounts} mounts")
            _play(meeting, many, random.Random(f"{seed} {done}").randrange(2**32))
            meeting.check()
        figures.add(f"examples on {mounts} mounts", many)
        done += many


def _play(meeting: Meeting, count: int, seed: int) -> None:
    failed: Lost | None = None

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(turns)
    def play(plan: list[tuple[int, list[tuple[str, int, int]], int]]) -> None:
        nonlocal failed
        # Mounts that went astray can't be asked again: hypothesis gets the same answer.
        if failed is None:
            try:
                meeting.play(plan)
            except AssertionError as exc:
                failed = Lost(f"{exc}\nplan: {plan}")
        if failed is not None:
            raise failed

    play()
