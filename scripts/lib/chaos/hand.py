"""What somebody does in a mount that others edit too, and which versions of it have to be kept."""

import contextlib
import time
from pathlib import Path

from hypothesis import strategies as st

from caiafs.core.types import blob_id

NAMES = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "s.txt", "é\n", "x.json"]
KINDS = ["put", "put", "put", "remove", "move", "replace", "mode", "link", "mkdir"]
OF_THE_EXISTING = {"remove", "move", "replace", "mode"}

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
