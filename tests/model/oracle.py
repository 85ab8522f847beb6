"""A mount and an ordinary directory that are told the same; whatever differs is a bug.

Every step is done on both sides and its outcome (result or errno) compared. The oracle directory also knows what a crash may cost:
bytes written through a handle since its file was last flushed or synced, and nothing else.
"""

import errno
import mmap
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.mount import Mount

Outcome = object


@dataclass(slots=True)
class Open:
    """One open file on both sides."""

    real: int
    model: int
    name: str
    writable: bool


@dataclass(slots=True)
class Unflushed:
    """What a file may hold after a crash: any state since it was last flushed, or nothing if it never was."""

    states: list[bytes]
    may_be_absent: bool


@dataclass(slots=True)
class Twin:
    """The mounted directory `real` and the oracle `model`, kept alike."""

    mount: Mount
    real: Path
    model: Path
    handles: dict[int, Open] = field(default_factory=dict)
    unflushed: dict[int, Unflushed] = field(default_factory=dict)

    def both(self, what: str, step: Callable[[Path], Outcome]) -> Outcome:
        """Do `step` on both sides and compare what it gave."""
        real, model = outcome(step, self.real), outcome(step, self.model)
        assert real == model, f"{what}: mount {real!r}, oracle {model!r}"
        return model

    def on_handle(self, slot: int, what: str, step: Callable[[int], Outcome]) -> None:
        """Do `step` on both descriptors of `slot` and compare; nothing where the slot is empty."""
        handle = self.handles.get(slot)
        if handle is None:
            return
        real, model = outcome(step, handle.real), outcome(step, handle.model)
        assert real == model, f"{what} {handle.name}: mount {real!r}, oracle {model!r}"

    # --- files by name

    def write(self, name: str, content: bytes) -> None:
        self.both(f"write {name}", lambda root: (root / name).write_bytes(content))
        self._flushed(self._model_ino(name))

    def append(self, name: str, content: bytes) -> None:
        def step(root: Path) -> None:
            with (root / name).open("ab") as handle:
                handle.write(content)

        self.both(f"append {name}", step)
        self._flushed(self._model_ino(name))

    def map_write(self, name: str, offset: int, content: bytes) -> None:
        """Store as much of `content` as fits through a shared mapping, and msync it."""

        def step(root: Path) -> None:
            with (root / name).open("r+b") as handle:
                size = os.fstat(handle.fileno()).st_size
                part = content[: max(0, size - offset)]
                if not part:
                    return
                with mmap.mmap(handle.fileno(), size) as mapping:
                    mapping[offset : offset + len(part)] = part
                    mapping.flush()

        self.both(f"map {name}", step)
        self._flushed(self._model_ino(name))

    def map_read(self, name: str, offset: int, length: int) -> None:
        """Read through a mapping, which sees the page cache and not read(2)'s answers."""

        def step(root: Path) -> bytes:
            with (root / name).open("rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                if not size:
                    return b""
                with mmap.mmap(handle.fileno(), size, prot=mmap.PROT_READ) as mapping:
                    return mapping[offset : offset + length]

        self.both(f"map to read {name}", step)

    def map_pwrite(self, slot: int, offset: int, content: bytes) -> None:
        """Store through a shared mapping of an open handle, without msync: the kernel writes it when it likes."""

        def step(fd: int) -> None:
            part = content[: max(0, os.fstat(fd).st_size - offset)]
            if part:
                with mmap.mmap(fd, os.fstat(fd).st_size) as mapping:
                    mapping[offset : offset + len(part)] = part

        self._before(slot)
        self.on_handle(slot, f"map and write at {offset}", step)
        self._after(slot)

    def truncate(self, name: str, size: int) -> None:
        self.both(f"truncate {name} {size}", lambda root: os.truncate(root / name, size))
        ino = self._model_ino(name)
        if ino in self.unflushed:
            self._remember(ino, (self.model / name).read_bytes())

    def read(self, name: str) -> None:
        self.both(f"read {name}", lambda root: (root / name).read_bytes())

    def stat(self, name: str) -> None:
        def step(root: Path) -> tuple[int, int, int]:
            found = (root / name).lstat()
            size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
            return found.st_mode, size, found.st_nlink

        self.both(f"stat {name}", step)

    def rename(self, old: str, new: str) -> None:
        self.both(f"rename {old} {new}", lambda root: os.rename(root / old, root / new))

    def link(self, old: str, new: str) -> None:
        self.both(f"link {old} {new}", lambda root: os.link(root / old, root / new))

    def unlink(self, name: str) -> None:
        self.both(f"unlink {name}", lambda root: os.unlink(root / name))

    def listing(self, name: str) -> None:
        self.both(f"list {name}", lambda root: sorted(os.listdir(root / name)))

    # --- files by handle

    def open(self, slot: int, name: str, flags: int) -> None:
        if slot in self.handles:
            self.close(slot)
        before = outcome(lambda root: (root / name).read_bytes(), self.model)
        real = outcome(lambda root: os.open(root / name, flags, 0o644), self.real)
        model = outcome(lambda root: os.open(root / name, flags, 0o644), self.model)
        if not isinstance(real, int) or not isinstance(model, int):
            assert real == model, f"open {name} {flags:o}: mount {real!r}, oracle {model!r}"
            return
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        self.handles[slot] = Open(real, model, name, writable)
        if not isinstance(before, bytes):
            self._touched(model, created=True)
        elif flags & os.O_TRUNC:
            self._touched(model, created=False)
            self._remember(os.fstat(model).st_ino, before)

    def pwrite(self, slot: int, offset: int, content: bytes) -> None:
        self._before(slot)
        self.on_handle(slot, f"write at {offset}", lambda fd: os.pwrite(fd, content, offset))
        self._after(slot)

    def ftruncate(self, slot: int, size: int) -> None:
        self._before(slot)
        self.on_handle(slot, f"truncate to {size}", lambda fd: os.ftruncate(fd, size))
        self._after(slot)

    def pread(self, slot: int, offset: int, length: int) -> None:
        self.on_handle(slot, f"read at {offset}", lambda fd: os.pread(fd, length, offset))

    def fsync(self, slot: int) -> None:
        self.on_handle(slot, "fsync", os.fsync)
        if slot in self.handles:
            self._flushed(os.fstat(self.handles[slot].model).st_ino)

    def close(self, slot: int) -> None:
        handle = self.handles.get(slot)
        if handle is None:
            return
        self._flushed(os.fstat(handle.model).st_ino)
        self.on_handle(slot, "close", os.close)
        del self.handles[slot]

    def close_all(self) -> None:
        for slot in list(self.handles):
            self.close(slot)

    # --- the whole

    def remount(self) -> None:
        self.close_all()
        self.mount.remount()

    def crash(self) -> None:
        """Kill the mount process and mount again; files may have lost what was never flushed."""
        unflushed, self.unflushed = self.unflushed, {}
        self.mount.kill9()
        for handle in self.handles.values():
            os.close(handle.model)
            outcome(os.close, handle.real)  # ENOTCONN: nobody is there to flush to
        self.handles.clear()
        self.mount.start()
        for path in [path for path in self.model.rglob("*") if path.is_file()]:
            lost = unflushed.get(path.stat().st_ino)
            if lost is not None:
                self._accept_loss(path, lost)
        self.compare()

    def _accept_loss(self, path: Path, lost: Unflushed) -> None:
        real = self.real / path.relative_to(self.model)
        if not real.exists() and lost.may_be_absent:
            path.unlink()
            return
        content = real.read_bytes()
        assert content in lost.states, f"{path.name} holds after the crash what it never held"
        path.write_bytes(content)

    def compare(self) -> None:
        """Compare names, kinds and contents of everything."""
        assert snapshot(self.real) == snapshot(self.model)

    # --- what a crash may cost

    def _model_ino(self, name: str) -> int:
        path = self.model / name
        return path.stat().st_ino if path.exists() else -1

    def _before(self, slot: int) -> None:
        handle = self.handles.get(slot)
        if handle is not None and handle.writable:
            self._touched(handle.model, created=False)

    def _after(self, slot: int) -> None:
        handle = self.handles.get(slot)
        if handle is not None and handle.writable:
            self._remember(os.fstat(handle.model).st_ino, content_of(handle.model))

    def _touched(self, fd: int, *, created: bool) -> None:
        ino = os.fstat(fd).st_ino
        if ino not in self.unflushed:
            self.unflushed[ino] = Unflushed([], may_be_absent=created)
        self._remember(ino, content_of(fd))

    def _remember(self, ino: int, content: bytes) -> None:
        self.unflushed[ino].states.append(content)

    def _flushed(self, ino: int) -> None:
        self.unflushed.pop(ino, None)


def outcome(step: Callable[..., Outcome], *args: object) -> Outcome:
    """Return what `step` gives, or the name of its errno."""
    try:
        return step(*args)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))


def content_of(fd: int) -> bytes:
    """Return the whole content behind a descriptor, whatever it was opened for."""
    return Path(f"/proc/self/fd/{fd}").read_bytes()


def snapshot(root: Path) -> dict[str, object]:
    """Return everything below `root`: directories as None, files as their content."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }
