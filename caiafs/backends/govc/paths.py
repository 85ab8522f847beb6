r"""Document paths as govc holds them: as they are where the server takes them, else escaped.

Pure and deterministic. Three forms, told apart by the first component:

    notes/plan.txt                          the path itself
    caiafs-escaped/.gitignore               a path that the server refuses or cannot write
    caiafs-long/<sha256 of the path>        a path longer than a request line may be; its envelope holds the path

In the escaped form `%XX` stands for one byte: `%` itself, control characters, `\`, bytes that are not UTF-8, and a dot that
follows a dot. A document that really is in a directory of one of these names is escaped too, so every path has one form.
"""

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote

from caiafs.core.types import DocPath

ESCAPED_DIR = "caiafs-escaped"
LONG_DIR = "caiafs-long"
PARTS_DIR = "caiafs-parts"
MARK_PATH = "caiafs-mark"
RESERVED = frozenset(name.encode() for name in (ESCAPED_DIR, LONG_DIR, PARTS_DIR, MARK_PATH))

_PERCENT = re.compile(rb"%([0-9A-F]{2})")
_LONG = re.compile(r"[0-9a-f]{64}")
_NAME_BYTES = 255
_PATH_BYTES = 4096
_SERVER_NAME_CHARS = 16_384
"""Above the longest name that `encode_path` makes; looking closer at a longer one takes a server's word for seconds."""


@dataclass(frozen=True, slots=True)
class PathRules:
    """What a dialect takes for a path.

    Attributes:
        strict: v2's validation: no leading dot, no `../` anywhere, no drive letter.
        target_bytes: longest percent-encoded path in a request line.
    """

    strict: bool
    target_bytes: int


@dataclass(frozen=True, slots=True)
class LongName:
    """A path that only the envelope below this name knows."""

    digest: str


def encode_path(path: DocPath, rules: PathRules) -> str:
    """Return the name under which the server holds `path`."""
    text = _plain(path, rules) or f"{ESCAPED_DIR}/{escape(path)}"
    if len(quote(text)) <= rules.target_bytes:
        return text
    return f"{LONG_DIR}/{hashlib.sha256(path).hexdigest()}"


def is_long(name: str) -> bool:
    """Whether `name` is of the form that hides its path, so that the envelope must hold it."""
    return name.startswith(LONG_DIR + "/")


def decode_path(name: str, rules: PathRules) -> DocPath | LongName | None:
    """Return the path that `encode_path` was given, None where the name is no document of anybody's.

    None stands for our own parts and marks, and for names that no file system can hold (`..`, NUL, an empty component, over
    255 bytes): a foreign client on v1 can write those.
    """
    if len(name) > _SERVER_NAME_CHARS:
        return None
    first, _, rest = name.partition("/")
    if first == LONG_DIR:
        return LongName(rest) if _LONG.fullmatch(rest) else None
    try:
        path = unescape(rest) if first == ESCAPED_DIR else DocPath(name.encode())
    except ValueError:
        return None
    if not is_sound(path) or encode_path(path, rules) != name:
        return None
    return path


def is_sound(path: bytes) -> bool:
    """Whether `path` can be a document's: plain components, none empty, special or too long."""
    if len(path) > _PATH_BYTES or b"\0" in path:
        return False
    return all(
        component not in {b"", b".", b".."} and len(component) <= _NAME_BYTES
        for component in path.split(b"/")
    )


def escape(path: bytes) -> str:
    """Return `path` with all that could trouble a server as `%XX`."""
    out: list[str] = []
    previous = ""
    for char in path.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            out.append(f"%{code - 0xDC00:02X}")
        elif char in "%\\" or code < 0x20 or code == 0x7F or (char == "." and previous == "."):
            out.append(f"%{code:02X}")
        else:
            out.append(char)
        previous = char
    return "".join(out)


def unescape(text: str) -> DocPath:
    """Return the bytes that `escape` was given.

    Raises:
        ValueError: `escape` never makes such a text.
    """
    path = DocPath(_PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode()))
    if escape(path) != text:
        raise ValueError("not an escaped path")
    return path


def passes_validation(name: str) -> bool:
    """Whether the real server's path validation takes `name`."""
    hidden, drive = name[:1] in {".", "\\"}, name[1:2] == ":"
    return not (hidden or drive or "../" in name or "..\\" in name)


def _plain(path: DocPath, rules: PathRules) -> str | None:
    """Return `path` as text where the server takes it as it is."""
    if path.partition(b"/")[0] in RESERVED:
        return None
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return None
    return None if rules.strict and not passes_validation(text) else text
