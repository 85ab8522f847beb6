"""What a tree must hold after a crash, from the log that a load kept outside of the mount.

A load (`chaos.load`) writes a line before an operation and a line after it, so that this knows which calls had returned. Contents
are known by their git blob ids; ABSENT and EMPTY are contents too. Pure but for `tree_of`, which reads.

Each path has the list of its contents, oldest first, and a floor: what may have been lost lies below it, what is at or above it is allowed
to be found. A death of processes puts the floor at the newest content whose close returned; a power cut at the newest whose fsync
returned, or that `sync` confirmed.
"""

import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caiafs.core.types import blob_id

ABSENT = ""
EMPTY = blob_id(b"")
UNREADABLE = "unreadable"
CONFLICT = re.compile(r"\.conflict-\d")

Tree = dict[str, str]


def tree_of(root: Path) -> Tree:
    """Return the blob ids of all documents below `root`, git's own directory left out; links by their targets."""
    found = {}
    for folder, folders, names in os.walk(root):
        if ".git" in folders:
            folders.remove(".git")
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in [*names, *links]:
            path = here / name
            found[str(path.relative_to(root))] = _content_of(path)
    return found


def _content_of(path: Path) -> str:
    try:
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        return UNREADABLE
    return str(blob_id(content))


@dataclass
class Step:
    """One operation of a load.

    Attributes:
        after: contents of the paths that it changes, once it is done.
        also: further contents that these paths may have while it lasts.
        atomic: it is done whole or not at all.
        holds: while it lasts, one of these (path, content) is there.
        litter: pattern of names that it makes and removes by itself.
        saved: its contents must come to be in the history.
        synced: "all", or the paths that fsync(2) was called for.
    """

    name: str
    after: Tree
    also: dict[str, list[str]] = field(default_factory=dict)
    atomic: bool = False
    holds: list[tuple[str, str]] = field(default_factory=list)
    litter: str = ""
    saved: bool = False
    synced: str | list[str] = ""


def steps_of(lines: Iterable[str]) -> Iterator[tuple[Step, bool]]:
    """Return the steps of a log and whether each returned; a torn last line never began."""
    begun: Step | None = None
    for line in lines:
        if not line.endswith("\n"):
            break
        if line == "done\n":
            assert begun is not None
            yield begun, True
            begun = None
        else:
            begun = Step(**json.loads(line))
    if begun is not None:
        yield begun, False


class Oracle:
    """What the folder of one load may hold."""

    def __init__(self, found: Tree, *, power: bool = False) -> None:
        self._power = power
        self._contents: dict[str, list[str]] = {path: [blob] for path, blob in found.items()}
        self._now: Tree = dict(found)
        self._in_flight: Step | None = None
        self.saved: set[str] = set()
        self.steps = 0
        self.reads = 0
        self.set_aside: dict[str, list[str]] = {}
        """After `lost`: paths that a power cut made unreadable, as it may, and what the stores may have of them instead."""

    def take(self, lines: Iterable[str]) -> None:
        """Take a whole log in."""
        for step, returned in steps_of(lines):
            if not returned:
                self._in_flight = step
                return
            self.steps += 1
            self.reads += step.name == "read"
            if step.saved:
                self.saved.update(step.after.values())
            for path, blob in step.after.items():
                past = self._contents.setdefault(path, [ABSENT])
                past += [*step.also.get(path, []), blob] if self._power else [blob]
                self._now[path] = blob
            self._raise_floor(step)

    def _raise_floor(self, step: Step) -> None:
        if not self._power or step.synced == "all":
            self._contents = {path: [blob] for path, blob in self._now.items()}
            return
        for path in step.synced:
            self._contents[path] = [self._now[path]]

    def lost(self, found: Tree) -> list[str]:
        """Return a sentence for each thing that is not as it has to be."""
        step = self._in_flight
        litter = re.compile(step.litter) if step and step.litter else None
        wrong = []
        touched = step.after if step else {}
        for path in sorted(found.keys() | self._now.keys() | touched.keys()):
            if litter and litter.search(path) and path not in self._now:
                continue
            if self._power and CONFLICT.search(path):
                continue  # a store may have more than the disk: both versions stay
            allowed = self._allowed(path)
            blob = found.get(path, ABSENT)
            if blob == UNREADABLE and self._power and len(allowed) > 1:
                self.set_aside[path] = allowed
            elif blob not in allowed:
                wrong.append(
                    f"{path} is {_short(blob)}, not {' or '.join(map(_short, allowed))}"
                    f" (in flight: {step.name if step else 'nothing'})"
                )
        return wrong + (self._half_done(step, found) if step else [])

    def _allowed(self, path: str) -> list[str]:
        allowed = list(self._contents.get(path, [ABSENT]))
        step = self._in_flight
        if step and path in step.after:
            allowed += [step.after[path], *step.also.get(path, [])]
        return list(dict.fromkeys(allowed))

    def _half_done(self, step: Step, found: Tree) -> list[str]:
        """Return what is wrong with the step in flight as a whole."""
        held = {path for path, _ in step.holds} & self.set_aside.keys()
        if (
            step.holds
            and not held
            and not any(found.get(path) == blob for path, blob in step.holds)
        ):
            return [f"{step.name}: none of {step.holds} is there"]
        if not step.atomic or self._power:
            return []
        now = {path: found.get(path, ABSENT) for path in step.after}
        before = {path: self._now.get(path, ABSENT) for path in step.after}
        return [] if now in (before, step.after) else [f"{step.name} is half done: {now}"]

    def litter_in(self, found: Tree) -> list[str]:
        """Return what the step in flight left behind."""
        pattern = self._in_flight.litter if self._in_flight else ""
        return [path for path in found if pattern and re.search(pattern, path)]


def _short(blob: str) -> str:
    return {ABSENT: "absent", EMPTY: "empty"}.get(blob, blob[:8])
