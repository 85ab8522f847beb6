"""A disk that forgets: a tree of files that knows, beside what it holds, what of it would outlive a power cut.

Pure, in memory. What was not synced survives in part, chosen at random:

    content of a file    none, all, the first, or any of the pages written since its last sync, each page by itself
    names in a directory
        "journaled"      every sync commits all changes of names made before it, as on ext4; of the later ones the first few survive
        "strict"         a directory's sync commits that directory's, no other does; of the rest each directory keeps its own first few

A rename is one change of both directories. Modes and times are not forgotten.
"""

import errno
import os
import random
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096


@dataclass
class Node:
    """A file, a symbolic link (`content` is its target) or a directory (`names`).

    `durable` is the content at the last sync, `unsynced` what was done to it since: (offset, bytes), or (size, None) for truncate.
    """

    ino: int
    mode: int
    content: bytearray = field(default_factory=bytearray)
    names: dict[bytes, int] = field(default_factory=dict)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    links: int = 0
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Naming:
    """A change of names: `ino` appears at (directory, name) pairs, or nothing does (None)."""

    changes: tuple[tuple[int, bytes, int | None], ...]

    @property
    def directories(self) -> set[int]:
        return {directory for directory, _, _ in self.changes}


class Disk:
    """The tree; every method is one step, with no half of it to be seen."""

    ROOT = 1

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self._durable_names: dict[int, dict[bytes, int]] = {}
        self._pending: list[Naming] = []
        self._next = self.ROOT
        self.strict = False
        self.syncs = 0
        self.make(stat.S_IFDIR | 0o755)

    def load(self, source: Path, parent: int = ROOT) -> None:
        """Take a directory in, all of it durable."""
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            info = entry.stat(follow_symlinks=False)
            node = self.make(info.st_mode)
            if entry.is_symlink():
                node.content[:] = os.fsencode(os.readlink(entry.path))
            elif not node.is_dir:
                node.content[:] = Path(entry.path).read_bytes()
            node.durable[:] = node.content
            node.mtime_ns = info.st_mtime_ns
            name = os.fsencode(entry.name)
            self._apply(Naming(((parent, name, node.ino),)), self._names())
            self._durable_names.setdefault(parent, {})[name] = node.ino
            if node.is_dir:
                self.load(Path(entry.path), node.ino)

    def make(self, mode: int) -> Node:
        """Return a new node that has no name yet."""
        node = Node(self._next, mode)
        self.nodes[node.ino] = node
        self._next += 1
        return node

    # --- names

    def _names(self) -> dict[int, dict[bytes, int]]:
        return {ino: node.names for ino, node in self.nodes.items() if node.is_dir}

    def name(self, *changes: tuple[int, bytes, int | None]) -> None:
        """Change names, together."""
        naming = Naming(changes)
        for directory, name, ino in changes:
            names = self.nodes[directory].names
            if (old := names.pop(name, None)) is not None:
                self.nodes[old].links -= 1
            if ino is not None:
                names[name] = ino
                self.nodes[ino].links += 1
        self._pending.append(naming)

    def find(self, parent: int, name: bytes) -> Node:
        ino = self.nodes[parent].names.get(name)
        if ino is None:
            raise OSError(errno.ENOENT, "no such name")
        return self.nodes[ino]

    def _apply(self, naming: Naming, all_names: dict[int, dict[bytes, int]]) -> None:
        for directory, name, ino in naming.changes:
            names = all_names.setdefault(directory, {})
            if ino is None:
                names.pop(name, None)
            else:
                names[name] = ino

    # --- contents

    def write(self, ino: int, offset: int, data: bytes) -> None:
        node = self.nodes[ino]
        _place(node.content, offset, data)
        node.unsynced.append((offset, data))

    def truncate(self, ino: int, size: int) -> None:
        node = self.nodes[ino]
        _place(node.content, size, None)
        node.unsynced.append((size, None))

    # --- syncing

    def sync(self, ino: int) -> None:
        """Make the content of a file, or the names of a directory, outlive a power cut."""
        self.syncs += 1
        node = self.nodes[ino]
        for offset, data in node.unsynced:
            _place(node.durable, offset, data)
        node.unsynced.clear()
        left = []
        for naming in self._pending:
            if not self.strict or ino in naming.directories:
                self._apply(naming, self._durable_names)
            else:
                left.append(naming)
        self._pending = left

    # --- the cut

    def leave(self, target: Path, chosen: random.Random) -> None:
        """Write to `target` what a power cut at this moment leaves; nothing here changes."""
        names = {ino: dict(found) for ino, found in self._durable_names.items()}
        for naming in self._surviving_names(chosen):
            self._apply(naming, names)
        shutil.rmtree(target, ignore_errors=True)
        self._write_out(self.ROOT, names, target, chosen, set())

    def _surviving_names(self, chosen: random.Random) -> list[Naming]:
        pending = self._pending
        if not self.strict:
            return pending[: chosen.randint(0, len(pending))]
        kept: dict[int, int] = {}
        for directory in sorted({d for naming in pending for d in naming.directories}):
            many = sum(1 for naming in pending if directory in naming.directories)
            kept[directory] = chosen.choice((0, many, chosen.randint(0, many)))
        surviving = []
        seen = dict.fromkeys(kept, 0)
        for naming in pending:
            for directory in naming.directories:
                seen[directory] += 1
            if all(seen[directory] <= kept[directory] for directory in naming.directories):
                surviving.append(naming)
        return surviving

    def _write_out(
        self,
        ino: int,
        names: dict[int, dict[bytes, int]],
        target: Path,
        chosen: random.Random,
        above: set[int],
    ) -> None:
        target.mkdir()
        for name, child in sorted(names.get(ino, {}).items()):
            node, place = self.nodes[child], target / os.fsdecode(name)
            if child in above:  # moved below itself by halves
                continue
            if node.is_dir:
                self._write_out(child, names, place, chosen, above | {ino})
            elif stat.S_ISLNK(node.mode):
                place.symlink_to(os.fsdecode(bytes(node.content)))
            else:
                place.write_bytes(self._surviving_content(node, chosen))
            if not stat.S_ISLNK(node.mode):
                place.chmod(stat.S_IMODE(node.mode))
                os.utime(place, ns=(node.mtime_ns, node.mtime_ns))

    def _surviving_content(self, node: Node, chosen: random.Random) -> bytes:
        content = bytearray(node.durable)
        pieces = [piece for change in node.unsynced for piece in _pages(*change)]
        way = chosen.choice(("none", "all", "first", "any", "any"))
        if way == "first":
            pieces = pieces[: chosen.randint(0, len(pieces))]
        if way != "none":
            for offset, data in pieces:
                if way != "any" or chosen.random() < 0.5:
                    _place(content, offset, data)
        return bytes(content)


def _place(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write, or truncate to `offset` where there is no data; a gap reads as zeros."""
    if data is None:
        del content[offset:]
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is not None:
        content[offset : offset + len(data)] = data


def _pages(offset: int, data: bytes | None) -> list[tuple[int, bytes | None]]:
    if data is None:
        return [(offset, None)]
    pieces: list[tuple[int, bytes | None]] = []
    at = offset
    while at < offset + len(data):
        stop = min((at // PAGE + 1) * PAGE, offset + len(data))
        pieces.append((at, data[at - offset : stop - offset]))
        at = stop
    return pieces
