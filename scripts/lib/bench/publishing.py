"""What publishing costs and gives: rates while the publisher works, and how fast each store takes documents.

For caiafs targets only. `caiafs-idle` does the same work and publishes nothing: the ratio to it is the price of publishing.
"""

import shutil
import time
from pathlib import Path

from bench.cases import KIB4, Case, Dataset, rate, read_all, timed, write_file
from bench.targets import Caiafs, CaiafsGovc, CaiafsIdle
from tests.support.waiting import wait_until

BURST = 3
SAVES = 20


class Publishing:
    """The publishing cases of one target; `target` is mounted."""

    def __init__(self, target: Caiafs, data: Dataset) -> None:
        self._target = target
        self._data = data
        self._count = 0

    def cases(self) -> tuple[Case, ...]:
        """Return what can be measured on this target."""
        idle = CaiafsIdle.name
        busy = (
            Case("create-publishing", "files/s", True, lambda _: self._create_busy(), idle),
            Case("read-publishing", "files/s", True, lambda _: self._read_busy(), idle),
        )
        if isinstance(self._target, CaiafsIdle):
            return busy
        return (
            *busy,
            Case("publish-burst", "docs/s", True, lambda _: self._publish_burst()),
            Case("save-to-commit", "ms", False, lambda _: self._save_to_commit()),
        )

    def _fresh(self) -> Path:
        self._count += 1
        folder = self._data.root / f"publish-{self._count}"
        folder.mkdir()
        return folder

    def _write_burst(self, folder: Path) -> int:
        paths = [f"{folder}/{i:05d}" for i in range(self._data.scale.files * BURST)]
        for i, path in enumerate(paths):  # each content once, as documents are
            write_file(path, b"%16d" % (self._count * 1_000_000 + i) + KIB4[16:])
        return len(paths)

    def _create_busy(self) -> float:
        folder = self._fresh()
        figure = rate(self._data.scale.files * BURST, lambda: self._write_burst(folder))
        shutil.rmtree(folder)
        return figure

    def _read_busy(self) -> float:
        paths = self._data.flat()
        folder = self._fresh()
        self._write_burst(folder)  # what the publisher has to do while we read
        figure = rate(len(paths), lambda: read_all(paths))
        shutil.rmtree(folder)
        return figure

    def _publish_burst(self) -> float:
        folder = self._fresh()

        def publish() -> None:
            self._write_burst(folder)
            self._target.sync()

        figure = self._data.scale.files * BURST / timed(publish)
        shutil.rmtree(folder)
        return figure

    def _save_to_commit(self) -> float:
        """Median time from close(2) to the store's ref on disk, one document at a time."""
        folder = self._fresh()
        took = []
        for i in range(SAVES):
            before = self._stored()
            start = time.perf_counter()
            write_file(f"{folder}/document", b"save %d\n" % i + KIB4)
            wait_until(lambda before=before: self._stored() != before, "the save is stored")
            took.append((time.perf_counter() - start) * 1000)
        shutil.rmtree(folder)
        return sorted(took)[len(took) // 2]

    def _stored(self) -> dict[str, bytes]:
        kind = "caia/govc" if isinstance(self._target, CaiafsGovc) else "heads"
        refs = (self._target.repo / "refs" / kind).glob("*")
        return {ref.name: ref.read_bytes() for ref in refs}
