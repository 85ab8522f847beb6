"""The form of a git bundle (gitformat-bundle(5)): its header read with suspicion, its pack checked by checksum.

Used by `backup` and `restore`. Pure but for reading the file.
"""

import hashlib
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from caiafs.core.errors import ConfigError, Corrupt
from caiafs.core.types import ObjectId

_SIGNATURES = (b"# v2 git bundle\n", b"# v3 git bundle\n")
_CAPABILITIES = (b"@object-format=sha1",)
_REF = re.compile(rb"([0-9a-f]{40}) (\S.*)")
# git-check-ref-format(1)
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|[/.]$")
_LINE_BYTES = 4096 + 64
_REFS_MAX = 1_000_000
_PIECE_BYTES = 1 << 20
_CHECKSUM_BYTES = 20


@dataclass(frozen=True, slots=True)
class Header:
    """What a bundle says it holds.

    Attributes:
        refs: by name, in the bundle's order; HEAD is left out.
        pack_offset: where its pack begins.
        objects: how many objects the pack has.
    """

    refs: dict[str, ObjectId]
    pack_offset: int
    objects: int

    @property
    def branch(self) -> str | None:
        """The branch of the documents: the first one that is named."""
        return next((name for name in self.refs if name.startswith("refs/heads/")), None)

    @property
    def has_caia(self) -> bool:
        """Whether caiafs kept anything in that repository."""
        return any(name.startswith("refs/caia/") for name in self.refs)


class NoBundle(ConfigError):
    """The file is not a bundle that can be restored; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=1)


def read_header(file: BinaryIO) -> Header:
    """Return the header of an open bundle.

    Raises:
        NoBundle: it is none, is incremental, or names what no reference can be called.
    """
    signature = file.readline(_LINE_BYTES)
    if signature not in _SIGNATURES:
        raise NoBundle("it is not a git bundle, as caiafs backup writes it")
    refs: dict[str, ObjectId] = {}
    while (line := _line(file)) != b"":
        if line.startswith(b"@"):
            if line not in _CAPABILITIES or signature != _SIGNATURES[1]:
                raise NoBundle(f"it needs what is not known here: {_shown(line)}")
            continue
        if line.startswith(b"-"):
            raise NoBundle("it is incremental: it needs commits that are in another repository")
        _add_ref(refs, line)
    offset = file.tell()
    start = file.read(12)
    if len(start) < 12 or start[:4] != b"PACK":
        raise NoBundle("it is damaged: no pack follows its list of references")
    return Header(refs, offset, struct.unpack(">I", start[8:])[0])


def _line(file: BinaryIO) -> bytes:
    line = file.readline(_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise NoBundle("it is damaged: its list of references has no end")
    return line[:-1]


def _add_ref(refs: dict[str, ObjectId], line: bytes) -> None:
    match = _REF.fullmatch(line)
    if match is None:
        raise NoBundle(f"it is damaged: {_shown(line)} is no reference")
    name = match[2].decode("utf-8", "surrogateescape")
    if name == "HEAD":
        return
    if not name.startswith("refs/") or name.count("/") < 2 or _BAD_REF.search(name):
        raise NoBundle(f"it names a reference that cannot be: {_shown(match[2])}")
    if name in refs or len(refs) >= _REFS_MAX:
        raise NoBundle(f"it names a reference twice, or too many: {_shown(match[2])}")
    refs[name] = ObjectId(match[1].decode())


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "backslashreplace"))


def check_pack(
    file: BinaryIO, header: Header, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Read the pack of a bundle once, from the disk, and compare it with its checksum.

    Raises:
        Corrupt: it is cut short, or not what was written.
    """
    file.seek(0, 2)
    left = file.tell() - header.pack_offset - _CHECKSUM_BYTES
    file.seek(header.pack_offset)
    digest = hashlib.sha1()
    while left > 0:
        piece = file.read(min(left, _PIECE_BYTES))
        if not piece:
            break
        digest.update(piece)
        left -= len(piece)
        advance(len(piece))
    if left or digest.digest() != file.read(_CHECKSUM_BYTES):
        raise Corrupt("the bundle is damaged: its pack does not have its checksum", backend="git")


def open_bundle(path: Path) -> tuple[BinaryIO, Header]:
    """Open a bundle and read its header; closing is the caller's. Raises NoBundle."""
    try:
        file = path.open("rb")
    except OSError as exc:
        raise NoBundle(f"{path}: {exc.strerror}") from exc
    try:
        return file, read_header(file)
    except NoBundle as exc:
        file.close()
        raise NoBundle(f"{path}: {exc}") from exc
    except OSError as exc:
        file.close()
        raise NoBundle(f"{path}: {exc.strerror}") from exc
