"""A program that saves documents until it is told to stop or the file system goes away.

usage: python -m tests.support.writer DIRECTORY SEED. Prints `start PATH SHA256` before and `done PATH` after each save, so that a test
knows what close(2) returned for. It creates, overwrites and replaces by rename, in a few sizes.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.mount import PROJECT, clean_environment
from tests.support.waiting import wait_until

SIZES = (0, 10, 4096, 20_000, 70_000, 300_000)


def save(path: Path, content: bytes, chosen: random.Random) -> None:
    if chosen.random() < 0.2:
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(content)
        beside.rename(path)
        return
    path.write_bytes(content)


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    chosen = random.Random(seed)
    count = 0
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    while not stopping:
        again = count and chosen.random() < 0.3
        number = chosen.randrange(count) if again else count
        path = folder / f"doc-{seed}-{number:05d}"
        content = b"%d:%d " % (seed, count) + os.urandom(chosen.choice(SIZES))
        count += 1
        digest = hashlib.sha256(content).hexdigest()
        tell(f"start {path.name} {digest}")
        try:
            save(path, content, chosen)
        except OSError:  # the file system went away
            return
        tell(f"done {path.name}")


class Writer:
    """The program above, running; `closed` and `begun` say what it did."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.writer", str(folder), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=clean_environment(),
        )
        self.versions: dict[str, list[str]] = {}
        self.closed: dict[str, str] = {}
        self.done = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.split()
            if words[0] == "start":
                self.versions.setdefault(words[1], []).append(words[2])
            else:
                self.closed[words[1]] = self.versions[words[1]][-1]
                self.done += 1

    def wait_done(self, count: int) -> None:
        """Return when `count` saves have been closed."""
        wait_until(lambda: self.done >= count, f"{count} saves", timeout_s=60)

    def stop(self) -> None:
        """Let the program end its present save; afterwards `closed` and `versions` are final."""
        self._process.terminate()
        self._process.wait(60)
        self._reader.join(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def check(self, folder: Path) -> None:
        """Check that `folder` holds every closed save, and nothing that was never written."""
        for name, digest in self.closed.items():
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            begun_later = self.versions[name][-1]
            assert found in {digest, begun_later}, f"{name} holds what was never closed"
        if folder.joinpath(".git").exists():
            return
        extra = {p.name for p in folder.glob("doc-*")} - {*self.versions}
        assert all(name.endswith(".new") for name in extra), extra


if __name__ == "__main__":
    main()
