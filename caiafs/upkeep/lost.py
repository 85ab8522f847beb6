"""Where a repair puts what it takes from its place: lost/<time>/ in the state directory. Nothing is removed for good.

Used by the repairs. `moved.txt` in it says what came from where.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote_from_bytes

from caiafs.core.durable import sync_path

_NAME_MAX = 180


class Lost:
    """The place of one repair, made when the first thing comes."""

    def __init__(self, state_dir: Path) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.directory = state_dir / "lost" / stamp
        number = 1
        while self.directory.exists():
            number += 1
            self.directory = state_dir / "lost" / f"{stamp}-{number}"
        self.notes: list[str] = []

    @property
    def is_used(self) -> bool:
        """Whether anything came here."""
        return self.directory.exists()

    def keep(self, file: Path, below: str = "") -> Path:
        """Move a file or directory here; return where it is now."""
        target = self._free(self._made(below) / file.name)
        _move(file, target)
        sync_path(target.parent)
        sync_path(file.parent)
        self.note(f"{target.relative_to(self.directory)} was {file}")
        return target

    def keep_content(self, path: bytes, pieces: Iterable[bytes]) -> Path:
        """Write a content here, called after the document's path."""
        name = quote_from_bytes(path, safe=" ,+=@").replace("%2F", "_")[:_NAME_MAX] or "document"
        target = self._free(self._made("documents") / name)
        with target.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        sync_path(target.parent)
        self.note(
            f"{target.relative_to(self.directory)} is what was saved as {quote_from_bytes(path)}"
        )
        return target

    def note(self, line: str) -> None:
        """Write down what was done, here and for the caller."""
        self.notes.append(line)
        with (self._made() / "moved.txt").open("a", encoding="utf-8", errors="replace") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _made(self, below: str = "") -> Path:
        directory = self.directory / below if below else self.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    @staticmethod
    def _free(target: Path) -> Path:
        number, free = 1, target
        while free.exists():
            number += 1
            free = target.with_name(f"{target.name}.{number}")
        return free


def _move(file: Path, target: Path) -> None:
    """Rename `file`; with --state-dir a reference may come from another file system."""
    try:
        file.rename(target)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        shutil.copy2(file, target, follow_symlinks=False)
        sync_path(target)
        file.unlink()
