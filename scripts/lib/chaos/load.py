"""A program that works in a folder of a mount until it is told to stop or the file system goes away.

usage: python -m chaos.load KIND FOLDER LOG SEED PAUSE_S. Before each operation it appends a line to LOG that says what will be
(`chaos.oracle.Step`), after it "done"; LOG lies outside of the mount. PAUSE_S is the longest pause between two operations. SIGTERM
ends it after its present operation, with 0; an error ends it with 3; a document that reads otherwise than it was saved, with 4.

Kinds: editor (echo, sed -i, saves as vim makes them), files (saves, appends with fsync, stores through a mapping), folders (cp -a, mv,
rm), large (streams and patches of a few MiB), synced (what fsync promises: the load for power cuts).
"""

import contextlib
import dataclasses
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from caiafs.core.types import blob_id
from chaos.oracle import ABSENT, EMPTY, Step, Tree, tree_of

SIZES = (1, 80, 4096, 20_000, 70_000, 300_000)
LARGE_SIZES = (1_100_000, 2_000_000, 5_000_000)
FAILED = 3
MISREAD = 4


class Misread(Exception):
    """A document is not what this program saved."""


class Load:
    """The operations; `now` is what the folder holds."""

    def __init__(self, folder: Path, log: Path, seed: int) -> None:
        self.folder = folder
        self.chosen = random.Random(seed)
        self._log = log.open("a")
        self.now: Tree = tree_of(folder)
        self._count = 0
        self._mark = f"{seed:x}"

    @contextlib.contextmanager
    def step(self, name: str, after: Tree, **more) -> Iterator[None]:
        """Log an operation round the block that does it."""
        step = Step(name, after, **more)
        self._tell(json.dumps(dataclasses.asdict(step)))
        yield
        self._tell("done")
        self.now.update(after)
        self.now = {path: blob for path, blob in self.now.items() if blob != ABSENT}

    def _tell(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()

    def text(self, size: int = 0) -> bytes:
        """Return a content that never was before."""
        self._count += 1
        head = f"{self._mark} {self._count} {time.monotonic_ns():x} x\n".encode()
        return head + os.urandom(size // 2).hex().encode()

    def pick(self, pattern: str) -> str | None:
        """Return one of the documents whose name begins so."""
        found = sorted(path for path in self.now if path.startswith(pattern) and path[-1] != "~")
        return self.chosen.choice(found) if found else None

    def name(self, prefix: str, count: int) -> str:
        return f"{prefix}-{self.chosen.randrange(count)}"

    def new_also(self, path: str) -> dict[str, list[str]]:
        """Creating a name is for good at once, so it may be found empty; a content that is replaced may not."""
        return {} if path in self.now else {path: [EMPTY]}

    def read_back(self) -> None:
        path = self.pick("")
        if path is None:
            return
        with self.step("read", {}):
            content = (self.folder / path).read_bytes()
        if _id(content) != self.now[path]:
            raise Misread(f"{path} reads as {_id(content)}, saved was {self.now[path]}")

    # --- editor

    def echo(self) -> None:
        path, text = self.name("echo", 8), self.text()
        # The shell closes the descriptor of the truncated file before echo writes: that close returned, too.
        with self.step("echo >", {path: _id(text)}, also={path: [EMPTY]}, saved=True):
            shell = 'printf %s "$1" >"$2"'
            _run("sh", "-c", shell, "sh", text.decode(), self.folder / path)
            # The shell does not look at what close returned: it did, if the mount answers still.
            (self.folder.parent / ".caia" / "version").read_bytes()

    def sed(self) -> None:
        path = self.pick("echo")
        if path is None:
            return
        text = (self.folder / path).read_bytes()
        new = text.replace(b"x\n", b"xx\n")
        with self.step("sed -i", {path: _id(new)}, atomic=True, litter=r"(^|/)sed\w{6}$"):
            _run("sed", "-i", "s/x$/xx/", self.folder / path)

    def vim(self) -> None:
        path, text = self.name("vim", 4), self.text(4096)
        place, backup = self.folder / path, self.folder / f"{path}~"
        old = self.now.get(path, ABSENT)
        after = {path: _id(text), f"{path}~": ABSENT}
        also = {path: [ABSENT, EMPTY], f"{path}~": [old]}
        holds = [(path, _id(text)), (path, old), (f"{path}~", old)] if old else []
        with self.step("vim :w", after, also=also, holds=holds, saved=False, synced=[path]):
            if old:
                place.rename(backup)
            _write(place, [text], sync=True)
            backup.unlink(missing_ok=True)

    # --- files

    def save(self) -> None:
        path, text = self.name("save", 12), self.text(self.chosen.choice(SIZES))
        cut = self.chosen.randrange(len(text) + 1)
        with self.step("save", {path: _id(text)}, also=self.new_also(path), saved=True):
            _write(self.folder / path, [text[:cut], text[cut:]])

    def append(self) -> None:
        path, text = self.name("append", 3), self.text(200)
        place = self.folder / path
        old = place.read_bytes() if path in self.now else b""
        if len(old) > 200_000:
            old = b""
        also = self.new_also(path)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if old else os.O_TRUNC)
        with self.step("append", {path: _id(old + text)}, also=also, saved=True, synced=[path]):
            _write(place, [text], flags=flags, sync=True)

    def mapped(self) -> None:
        path = self.name("mapped", 2)
        place = self.folder / path
        if path not in self.now:
            text = self.text(60_000)
            with self.step("save", {path: _id(text)}, also=self.new_also(path), saved=True):
                _write(place, [text])
            return
        text = bytearray(place.read_bytes())
        at = self.chosen.randrange(len(text) - 8)
        text[at : at + 8] = os.urandom(4).hex().encode()
        # Two pages may come in one by one.
        also = {path: [_id(half) for half in _halves(place.read_bytes(), bytes(text), at)]}
        with (
            self.step("store mapped", {path: _id(bytes(text))}, also=also, synced=[path]),
            place.open("r+b") as file,
            mmap.mmap(file.fileno(), 0) as mapping,
        ):
            mapping[at : at + 8] = bytes(text[at : at + 8])
            mapping.flush()

    # --- folders

    def copy(self) -> None:
        source = self._source()
        target = f"copy-{self._mark}-{self._count}"
        after = {f"{target}/{path}": blob for path, blob in tree_of(source).items()}
        with self.step("cp -a", after, also={path: [EMPTY] for path in after}):
            _run("cp", "-a", source, self.folder / target)

    def _source(self) -> Path:
        source = Path(f"{self._log.name}.source")
        _run("rm", "-rf", source)
        for number in range(6):
            place = source / f"d{number % 3}" / f"f{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.text(self.chosen.choice(SIZES[:5])))
        return source

    def move(self) -> None:
        path = self.pick("copy")
        if path is None:
            return
        top, _, rest = path.partition("/")
        old, new = self.chosen.choice(((top, f"{top}m"), (path, f"{top}/moved-{len(rest)}")))
        after = {}
        for known, blob in self.now.items():
            if known == old or known.startswith(f"{old}/"):
                after |= {known: ABSENT, new + known[len(old) :]: blob}
        if old == new or (self.folder / new).is_dir():
            return
        with self.step("mv", after, atomic=True):
            _run("mv", self.folder / old, self.folder / new)

    def remove(self) -> None:
        path = self.pick("copy")
        if path is None:
            return
        if len([path for path in self.now if path.startswith("copy")]) > 60:
            path = path.partition("/")[0]
        gone = [known for known in self.now if known == path or known.startswith(f"{path}/")]
        with self.step("rm", dict.fromkeys(gone, ABSENT)):
            _run("rm", "-r", self.folder / path)

    # --- large

    def stream(self) -> None:
        path, size = self.name("large", 3), self.chosen.choice(LARGE_SIZES)
        text = self.text(size)
        pieces = [text[at : at + (1 << 20)] for at in range(0, len(text), 1 << 20)]
        with self.step("stream", {path: _id(text)}, also=self.new_also(path), saved=True):
            _write(self.folder / path, pieces)

    def patch(self) -> None:
        path = self.pick("large")
        if path is None:
            return
        text = bytearray((self.folder / path).read_bytes())
        new = self.text()
        at = self.chosen.randrange(max(1, len(text) - len(new)))
        text[at : at + len(new)] = new
        with self.step("patch", {path: _id(bytes(text))}, saved=True, synced=[path]):
            fd = os.open(self.folder / path, os.O_WRONLY)
            with contextlib.closing(os.fdopen(fd, "wb", buffering=0)) as file:
                os.pwrite(fd, new, at)
                os.fsync(file.fileno())

    # --- synced

    def save_synced(self) -> None:
        path, text = self.name("synced", 8), self.text(self.chosen.choice(SIZES))
        with self.step("save, fsync", {path: _id(text)}, also=self.new_also(path), synced=[path]):
            _write(self.folder / path, [text], sync=True)

    def save_unsynced(self) -> None:
        path, text = self.name("plain", 8), self.text(self.chosen.choice(SIZES))
        with self.step("save", {path: _id(text)}, also=self.new_also(path)):
            _write(self.folder / path, [text])

    def replace_synced(self) -> None:
        path, text = self.name("replaced", 4), self.text(4096)
        beside = f".{path}.swp"  # local by its name until the rename
        after = {path: _id(text), beside: ABSENT}
        also = {beside: [EMPTY, _id(text)]}
        with self.step("replace, fsync", after, also=also, synced=[path]):
            _write(self.folder / beside, [text], sync=True)
            (self.folder / beside).rename(self.folder / path)
            fd = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def large_synced(self) -> None:
        path, text = self.name("large", 2), self.text(self.chosen.choice(LARGE_SIZES))
        with self.step("stream, fsync", {path: _id(text)}, also=self.new_also(path), synced=[path]):
            _write(self.folder / path, [text], sync=True)

    def everything(self) -> None:
        with self.step("caiafs sync", {}, synced="all"):
            fd = os.open(self.folder.parent / ".caia" / "control", os.O_WRONLY)
            try:
                os.write(fd, b"sync 30s\n")
            finally:
                os.close(fd)


KINDS: dict[str, list[Callable[[Load], None]]] = {
    "editor": [Load.echo, Load.echo, Load.sed, Load.vim],
    "files": [Load.save, Load.save, Load.append, Load.mapped],
    "folders": [Load.copy, Load.move, Load.remove, Load.move],
    "large": [Load.stream, Load.patch, Load.patch],
    "synced": [
        *[Load.save_synced, Load.save_unsynced, Load.replace_synced, Load.append] * 3,
        *[Load.large_synced, Load.patch, Load.everything, Load.vim],
    ],
}


def _id(content: bytes) -> str:
    return str(blob_id(content))


def _halves(old: bytes, new: bytes, at: int) -> list[bytes]:
    page = (at // mmap.PAGESIZE + 1) * mmap.PAGESIZE
    return [new[:page] + old[page:], old[:page] + new[page:]]


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _write(
    path: Path,
    pieces: list[bytes],
    *,
    flags: int = os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    sync: bool = False,
) -> None:
    fd = os.open(path, flags, 0o644)
    try:
        for piece in pieces:
            while piece:
                piece = piece[os.write(fd, piece) :]
        if sync:
            os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


def main() -> int:
    kind, (folder, log), seed = sys.argv[1], map(Path, sys.argv[2:4]), int(sys.argv[4])
    pause_s = float(sys.argv[5])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    try:
        load = Load(folder, log, seed)
        while not stopping:
            load.chosen.choice([*KINDS[kind], Load.read_back])(load)
            time.sleep(load.chosen.random() * pause_s)
    except Misread as exc:
        print(f"{kind}: {exc}", file=sys.stderr)
        return MISREAD
    except (OSError, subprocess.CalledProcessError) as exc:
        said = getattr(exc, "stderr", None) or b""
        print(f"{kind}: {exc} {said.decode(errors='replace')}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
