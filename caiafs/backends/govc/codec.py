"""Contents and modes as govc holds them: plain text as it is, everything else in an envelope.

Pure and deterministic, so that two writers store the same bytes for the same document. A content goes as it is, and other govc clients
read it, where it is non-empty UTF-8, its mode is 100644 and it does not look like an envelope. An envelope is one line of JSON and, after a
newline, the payload:

    {"caiafs-envelope":1,"blob":"<git blob id>","encoding":"base64","mode":"100755","size":9}
    AAENCuKAqMOp

`encoding` says what the payload is:

    utf-8     the content itself (executables, links, empty documents)
    base64    its base64, in one line
    parts     nothing: the base64 is at caiafs-parts/<blob>/<part_bytes>/<n>, `part_bytes` of content in each; parts never change
    none      nothing: a submodule, `blob` is its commit

`path` is the escaped path of a document whose own name was too long. `{"caiafs-envelope":1,"deleted":true}` is a tombstone: the document is
gone, on a server that cannot delete (v2).
"""

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from caiafs.backends.govc.paths import PARTS_DIR, escape, is_sound, unescape
from caiafs.backends.govc.payload import parse_json
from caiafs.core.types import DocPath, GitMode, ObjectId, blob_id

MAGIC = b'{"caiafs-envelope":'
VERSION = 1
HEADER_MAX_BYTES = 32 * 1024
PART_SIZES = (1 << 20, 1 << 18, 1 << 16, 1 << 14, 1 << 12)
"""Content bytes in one part, largest first; a smaller one where the server takes no such request."""
SIZE_MAX_BYTES = 1 << 40

Encoding = Literal["utf-8", "base64", "parts", "none"]
_MODES = {format(mode, "06o"): mode for mode in GitMode if mode is not GitMode.DIRECTORY}


CONTENT_MODES = frozenset({GitMode.FILE, GitMode.EXECUTABLE, GitMode.SYMLINK})
"""Modes that come with a content."""


class DecodeError(ValueError):
    """What the server holds at a name is no document; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """First line of an envelope; see the module's docstring."""

    mode: int
    blob: ObjectId
    size_bytes: int
    encoding: Encoding
    part_bytes: int = 0
    path: DocPath | None = None

    @property
    def part_count(self) -> int:
        """How many parts hold the content."""
        return -(-self.size_bytes // self.part_bytes) if self.part_bytes else 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What a name on the server stands for.

    Attributes:
        header: as in the envelope; made up for plain text.
        content: None where it is in parts.
    """

    header: Header
    content: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A document that was deleted; `path` where its name was too long."""

    path: DocPath | None = None


def encode_content(mode: int, content: bytes, *, path: DocPath | None = None) -> str:
    """Return the text that stands for a document of one piece.

    Args:
        mode: a GitMode.
        content: the whole content.
        path: where the server's name does not tell it (`paths.is_long`).
    """
    text = _as_text(content)
    plain = text is not None and content and path is None and mode == GitMode.FILE
    if plain and text is not None and not content.startswith(MAGIC):
        return text
    encoding: Encoding = "utf-8" if text is not None else "base64"
    header = Header(mode, blob_id(content), len(content), encoding, path=path)
    payload = text if text is not None else base64.b64encode(content).decode()
    return f"{encode_header(header)}\n{payload}"


def encode_header(header: Header) -> str:
    """Return the line; the whole text of a document whose content is in parts or that has none."""
    fields: dict[str, object] = {
        "blob": header.blob,
        "encoding": header.encoding,
        "mode": format(header.mode, "06o"),
        "size": header.size_bytes,
    }
    if header.encoding == "parts":
        fields["part_bytes"] = header.part_bytes
    return _envelope(fields, header.path)


def encode_tombstone(path: DocPath | None = None) -> str:
    """Return the text that stands for a deleted document."""
    return _envelope({"deleted": True}, path)


def part_name(header: Header, index: int) -> str:
    """Return where part `index` of a content is."""
    return f"{PARTS_DIR}/{header.blob}/{header.part_bytes}/{index}"


def encode_part(content: bytes) -> str:
    """Return the text of one part."""
    return base64.b64encode(content).decode()


def decode_part(text: bytes, header: Header, index: int) -> bytes:
    """Return the content of part `index`.

    Raises:
        DecodeError: it is not what the header says.
    """
    content = _from_base64(text)
    wanted = min(header.part_bytes, header.size_bytes - index * header.part_bytes)
    if len(content) != wanted:
        raise DecodeError(f"part {index} has {len(content)} bytes instead of {wanted}")
    return content


def decode_content(text: bytes) -> Stored | Tombstone:
    """Return what the server's content `text` stands for.

    Raises:
        DecodeError: an envelope that is damaged, hostile, or of a later version.
    """
    if not text.startswith(MAGIC):
        return Stored(Header(GitMode.FILE, blob_id(text), len(text), "utf-8"), text)
    line, _, payload = text.partition(b"\n")
    fields = _parse_line(line)
    path = _parse_path(fields)
    if fields.get("deleted") is True:
        return Tombstone(path)
    header = _parse_header(fields, path)
    if header.encoding in {"parts", "none"}:
        return Stored(header, None if header.encoding == "parts" else b"")
    content = payload if header.encoding == "utf-8" else _from_base64(payload)
    if len(content) != header.size_bytes or blob_id(content) != header.blob:
        raise DecodeError("content does not match the envelope's size and blob id")
    return Stored(header, content)


def _as_text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _envelope(fields: dict[str, object], path: DocPath | None) -> str:
    if path is not None:
        fields["path"] = escape(path)
    body = json.dumps(fields, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return f"{MAGIC.decode()}{VERSION},{body[1:]}"


def _parse_line(line: bytes) -> dict[str, object]:
    if len(line) > HEADER_MAX_BYTES:
        raise DecodeError("the envelope's first line is too long")
    try:
        fields = parse_json(line)
    except ValueError:
        raise DecodeError("the envelope's first line is not JSON") from None
    if not isinstance(fields, dict) or fields.get("caiafs-envelope") != VERSION:
        raise DecodeError("the envelope is of a version that is not known here")
    return cast("dict[str, object]", fields)


def _parse_path(fields: dict[str, object]) -> DocPath | None:
    text = fields.get("path")
    if text is None:
        return None
    if not isinstance(text, str):
        raise DecodeError("the envelope's path is not text")
    try:
        path = unescape(text)
    except ValueError:
        raise DecodeError("the envelope's path is not well-formed") from None
    if not is_sound(path):
        raise DecodeError("the envelope's path cannot be a document's")
    return path


def _parse_header(fields: dict[str, object], path: DocPath | None) -> Header:
    mode = _MODES.get(str(fields.get("mode")))
    blob, size, encoding = fields.get("blob"), fields.get("size"), fields.get("encoding")
    part_bytes = fields.get("part_bytes", 0)
    if mode is None or encoding not in get_args(Encoding):
        raise DecodeError("the envelope's mode or encoding is not known here")
    if not isinstance(blob, str) or len(blob) != 40 or not set(blob) <= set("0123456789abcdef"):
        raise DecodeError("the envelope's blob id is not one")
    if type(size) is not int or not 0 <= size <= SIZE_MAX_BYTES:
        raise DecodeError("the envelope's size is absurd")
    if type(part_bytes) is not int or (encoding == "parts") != (part_bytes in PART_SIZES):
        raise DecodeError("the envelope's part size is absurd")
    if (encoding == "none") != (mode == GitMode.GITLINK) or (encoding == "none" and size):
        raise DecodeError("the envelope's mode does not go with its encoding")
    return Header(mode, ObjectId(blob), size, cast("Encoding", encoding), part_bytes, path)


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise DecodeError("the payload is not base64") from None
