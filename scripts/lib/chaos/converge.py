"""Two and three mounts on one govc, or on one git remote, edited at the same time: they come to the same tree, and no version is lost.

hypothesis makes the plans. The mounts live on from example to example, each in a folder of its own, so that an example costs
about a second; hence nothing is shrunk, and --seed repeats the whole run.
"""

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import hypothesis

from chaos.hand import Hand, Plan, lost_marks, plans
from chaos.oracle import CONFLICT, Tree, tree_of
from chaos.places import GovcPlace, Place, RemotePlace
from chaos.report import Figures
from chaos.world import FAST, START_TIMEOUT_S, Lost, check_repository
from tests.support.mount import Mount

PAUSES_S = (0, 0, 0.02, 0.15)
LEVEL_TIMEOUT_S = 90.0
EXAMPLES_OF_A_MEETING = 20


class Meeting:
    """Some mounts in one place."""

    def __init__(self, base: Path, place: Place, count: int, figures: Figures) -> None:
        self.base = base
        self._figures = figures
        self._place = place
        env = FAST | place.env
        self.mounts = [Mount(base / f"mount{number}", env=env) for number in range(count)]
        self._examples = 0

    def start(self) -> None:
        for mount in self.mounts:
            mount.start(timeout_s=START_TIMEOUT_S)

    def play(self, plan: Plan) -> None:
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
            self._figures.add("versions that nobody replaced", len(hand.marks.keys() - hand.seen))
        if lost := [*lost_marks(hands, roots[0])]:
            raise Lost(f"{folder}: replaced by nobody, and in no document: {lost}")
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
            heads = [self._head(mount) for mount in self.mounts]
            now = [self._trees(folder), heads]
            steady, before = now == before and self._place.is_level(heads), now
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
        return mount.git("rev-parse", "HEAD").strip()

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
            self._place.supervise(self._figures)
            time.sleep(0.05)

    def _holds(self, condition: Callable[[], bool]) -> bool:
        with contextlib.suppress(FileNotFoundError, AssertionError):
            return condition()  # a tree that changes while it is read is read again
        return False

    def check(self) -> None:
        """Compare everything once more, the place with a new reader too."""
        trees = [tree_of(mount.path) for mount in self.mounts]
        if any(tree != trees[0] for tree in trees):
            raise Lost("the mounts differ in the end")
        for mount in self.mounts:
            mount.sync(timeout_s=120)
        self._place.check(trees[0])
        for mount in self.mounts:
            check_repository(mount, set())

    def close(self, *, keep: bool = False) -> None:
        del keep  # what is left is small
        for mount in self.mounts:
            mount.close()
        self._place.close()


def run(
    base: Path,
    figures: Figures,
    *,
    count: int,
    seed: int,
    place: Callable[[Path], Place] = GovcPlace,
) -> None:
    """Play `count` plans, by turns on two and on three mounts; raise Lost where they do not meet."""
    done = 0
    while done < count:
        many = min(EXAMPLES_OF_A_MEETING, count - done)
        mounts = 2 + (done // EXAMPLES_OF_A_MEETING) % 2
        room = base / f"{figures.kind}{done}"
        with figures.world(Meeting(room, place(room), mounts, figures)) as meeting:
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
    @hypothesis.given(plans)
    def play(plan: Plan) -> None:
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


def run_remotes(base: Path, figures: Figures, *, count: int, seed: int) -> None:
    """As `run`, on a git remote."""
    run(base, figures, count=count, seed=seed, place=RemotePlace)
