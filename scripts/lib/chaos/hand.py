"""What somebody does in a mount that others edit too, and which versions of it have to be kept.

Each saved text has a line of its own, its mark: as long as nobody who saw a version saved over it or removed it, its mark is in some
document, merged or in a conflict copy.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import strategies as st

from caiafs.core.types import blob_id

NAMES = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "s.txt", "é\n", "x.json"]
KINDS = ["put", "put", "put", "remove", "move", "replace", "mode", "link", "mkdir"]
OF_THE_EXISTING = {"remove", "move", "replace", "mode"}

MARK = re.compile(r"hand\d \d+ [0-9a-f]+$", re.MULTILINE)

Plan = list[tuple[int, list[tuple[str, int, int]], int]]
"""Turns: who, what, and which pause comes after it."""

plans = st.lists(
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
    """Somebody who works through one mount.

    Attributes:
        versions: those that have to be in the history: what was saved, and where.
        marks: of what was saved, with its path.
        seen: marks of what this hand saw before it wrote over it or removed it.
        unseen: paths where it did so without knowing for certain what was there, and the mark it left.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._count = 0
        self._shown: dict[Path, str] = {}
        self.versions: dict[str, str] = {}
        self.marks: dict[str, Path] = {}
        self.seen: set[str] = set()
        self.unseen: list[tuple[Path, str]] = []

    def do(self, kind: str, first: int, second: int) -> bool:
        """Do one step; return whether the file system let us."""
        path, other = self._root / NAMES[first], self._root / NAMES[second]
        if kind in OF_THE_EXISTING:
            there = sorted(self._root.rglob("*"))
            path = there[first % len(there)] if there else path
        seen, unseen = set(self.seen), list(self.unseen)
        try:
            getattr(self, f"_{kind}")(path, other)
        except OSError:
            self.seen, self.unseen = seen, unseen
            return False
        return True

    def _text(self) -> tuple[bytes, str]:
        self._count += 1
        mark = f"{self._name} {self._count} {time.monotonic_ns():x}"
        lines = [f"line {number}" for number in range(6)]
        lines[self._count % 6] = mark
        return ("\n".join(lines) + "\n").encode(), mark

    def _look(self, path: Path) -> None:
        """See what is about to go; somebody else's may come between."""
        self.unseen.append((path.relative_to(self._root), ""))
        for file in (path, *path.rglob("*")):
            if file.is_file() and not file.is_symlink():
                self.seen |= marks_in(file.read_bytes())

    def _saved(self, path: Path, text: bytes, mark: str) -> None:
        self.marks[mark] = path.relative_to(self._root)
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
            self._look(path)
            self._bury(path)
            path.unlink()
        text, mark = self._text()
        if self._count % 2:
            self._write_over(path, text)
        else:
            self.unseen.append((path.relative_to(self._root), mark))
            path.write_bytes(text)
        self._saved(path, text, mark)

    def _write_over(self, path: Path, text: bytes) -> None:
        """Read and write through one handle: what others do meanwhile is not written over."""
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+b") as file:
            self.seen |= marks_in(file.read())
            file.seek(0)
            file.write(text)
            file.truncate()

    def _remove(self, path: Path, _other: Path) -> None:
        self._look(path)
        path.unlink()
        self._bury(path)

    def _move(self, path: Path, other: Path) -> None:
        self._look(path)
        self._look(other)
        path.rename(other)
        self._bury(other)
        for known in [*self._shown]:
            if known == path or path in known.parents:
                # Moved within the same commit, it is in the history under its new name only.
                self._shown[other / known.relative_to(path)] = self._shown.pop(known)

    def _replace(self, path: Path, _other: Path) -> None:
        if path.is_dir():
            return
        self._look(path)
        text, mark = self._text()
        beside = path.with_name(f".{path.name}.swp")
        beside.write_bytes(text)
        beside.rename(path)
        self._bury(path)
        self._saved(path, text, mark)

    def _mode(self, path: Path, _other: Path) -> None:
        if path.is_file():
            path.chmod(path.stat().st_mode ^ 0o111)

    def _link(self, path: Path, other: Path) -> None:
        path.symlink_to(other.name)

    def _mkdir(self, path: Path, _other: Path) -> None:
        path.mkdir()


def marks_in(content: bytes) -> set[str]:
    """Return the marks in a document."""
    return {*MARK.findall(content.decode())}


def lost_marks(hands: Sequence[Hand], root: Path) -> Iterator[str]:
    """Yield the marks that are in no document below `root` although nobody can have meant them to go."""
    there: set[str] = set()
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            there |= marks_in(path.read_bytes())
    seen = {mark for hand in hands for mark in hand.seen}
    unseen = [one for hand in hands for one in hand.unseen]
    for hand in hands:
        for mark, path in hand.marks.items():
            if mark not in there | seen and not _is_touched(path, mark, unseen):
                yield f"{path}: {mark}"


def _is_touched(path: Path, mark: str, unseen: Sequence[tuple[Path, str]]) -> bool:
    return any(left != mark and (at == path or at in path.parents) for at, left in unseen)
