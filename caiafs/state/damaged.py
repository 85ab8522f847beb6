"""Versions that a power cut or a bad disk damaged, set aside for a person to look at.

Written by the mount process (`vfs.damage`), read by it and by `caiafs fsck`. In `damaged/` of the state directory each has a
`<name>.json`, which says what it was, and, where anything is left, a `<name>.content` with it. caiafs never removes either.

What is left of a large content is its spool file as it stands. Where `pieces` is not empty that is no plain content: bytes
[start, stop) of the content stand at `offset` of the file, and what no piece covers is blob `base`, then zeros.
"""

import contextlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from caiafs.core.durable import sync_path
from caiafs.core.errors import StateFull
from caiafs.state import paths
from caiafs.state.extents import Extents


@dataclass(frozen=True, slots=True)
class DamagedVersion:
    """What is known of a version that was set aside.

    Attributes:
        name: of its files in `damaged/`, without suffix.
        paths: where it was saved; bytes that are not UTF-8 as surrogate escapes.
        inode: the file's number in the mount.
        blob: id that the content should have, "" where it was never computed.
        before: blob of the version that stands in the stores instead, "" for none.
        file: what is left of it, "" for nothing.
        base, pieces: see above.
    """

    name: str
    paths: tuple[str, ...]
    inode: int
    blob: str
    size_bytes: int
    reason: str
    time: str
    before: str = ""
    file: str = ""
    base: str = ""
    pieces: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of a content: bytes, or a spool file with its map; the file may be shared with other versions."""

    data: bytes | None = None
    spool: Path | None = None
    extents: Extents | None = None
    is_shared: bool = False


def new_name(inode: int, state_dir: Path) -> str:
    """Return a name that no version in `damaged/` has."""
    stem = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{inode}"
    number, name = 1, stem
    while (paths.damaged(state_dir) / f"{name}.json").exists():
        number, name = number + 1, f"{stem}-{number}"
    return name


def set_aside(state_dir: Path, version: DamagedVersion, remains: Remains) -> DamagedVersion:
    """Write down a version and keep what is left of it, on disk when this returns.

    Raises:
        StateFull: the disk does not take it; nothing was removed.
    """
    directory = paths.damaged(state_dir)
    content = directory / f"{version.name}.content"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        if _keep(remains, content):
            sync_path(content)
            version = _with_map(replace(version, file=content.name), remains.extents)
        record = directory / f"{version.name}.json"
        with record.open("x") as file:
            file.write(json.dumps(asdict(version), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_path(directory)
    except OSError as exc:
        raise StateFull(f"a damaged version cannot be set aside: {exc}") from exc
    return version


def _keep(remains: Remains, target: Path) -> bool:
    """Put what is left at `target`; return whether anything is."""
    if remains.data is not None:
        target.write_bytes(remains.data)
        return True
    if remains.spool is None or not remains.spool.exists():
        return False
    if not remains.is_shared:
        remains.spool.rename(target)
        return True
    try:
        os.link(remains.spool, target)
    except OSError:  # a file system without links
        with contextlib.suppress(OSError):  # what can be read of it
            shutil.copyfile(remains.spool, target)
    return target.exists()


def _with_map(version: DamagedVersion, extents: Extents | None) -> DamagedVersion:
    if extents is None or extents.is_plain_file:
        return version
    pieces = tuple((p.start, p.stop, p.spool_offset) for p in extents.pieces)
    return replace(version, base=extents.base or "", pieces=pieces)


def read_all(state_dir: Path) -> list[DamagedVersion]:
    """Return every version that was set aside, oldest first; a record that makes no sense is left out."""
    found = []
    for file in sorted(paths.damaged(state_dir).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            fields = json.loads(file.read_text())
            fields["paths"] = tuple(fields["paths"])
            fields["pieces"] = tuple(tuple(piece) for piece in fields["pieces"])
            found.append(DamagedVersion(**fields))
    return found
