r"""Commit messages and authors as the real server takes them.

Pure and deterministic. v2 takes printable ASCII, newline, return and tab, at most 100,000 bytes, and an e-mail
address that parses. A message with anything else is escaped as a whole (`\\`, `\xe9`, `\u20ac`, `\U0001f600`) and
says so in a last trailer; `decode_message` gives it back. Only a message that is too long loses something: the middle, never its trailers.
"""

import re

from caiafs.core.types import Signature

MESSAGE_BYTES = 100_000
OPERATION_TRAILER = "Caiafs-Operation"
_ESCAPED_TRAILER = "Caiafs-Message: escaped"
_CUT = "\n[...]\n\n"

_PLAIN_MESSAGE = re.compile(r"[\x20-\x7e\n\r\t]+")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\n\r\t]|\\")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_EMAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9][A-Za-z0-9-]*(\.[A-Za-z0-9][A-Za-z0-9-]*)*"
)
_NOT_IN_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f<>\ud800-\udfff\u2028\u2029]+")
_NOT_IN_EMAIL = re.compile(r"[^A-Za-z0-9_+-]+")
_EMAIL_CHARS = 200
_NAME_CHARS = 200


def encode_message(message: str) -> str:
    """Return `message` in a form that the server takes."""
    text = message if message.strip() else "(no message)"
    if not _PLAIN_MESSAGE.fullmatch(text) or _ends_escaped(text):
        text = _UNPRINTABLE.sub(_escape_one, text)
        # The trailer joins the block that is already there.
        text += f"{_ESCAPED_TRAILER}\n" if text.endswith("\n") else f"\n{_ESCAPED_TRAILER}"
    return _cut(text)


def decode_message(text: str) -> str:
    """Return the message that `encode_message` was given."""
    if not _ends_escaped(text):
        return text
    # Either way one newline less than what was added.
    return _ESCAPE.sub(_unescape_one, text[: -len(_ESCAPED_TRAILER) - 1])


def encode_author(author: Signature) -> tuple[str, str]:
    """Return a name and an e-mail address that the server takes, as near to `author` as may be.

    A newline in a name makes the log of a v2 disk repository unreadable for good.
    """
    name = _NOT_IN_NAME.sub(" ", author.name).strip()[:_NAME_CHARS] or "unknown"
    if len(author.email) <= _EMAIL_CHARS and _EMAIL.fullmatch(author.email):
        return name, author.email
    local = _NOT_IN_EMAIL.sub("-", author.email.partition("@")[0]).strip("-")[:60]
    return name, f"{local or 'unknown'}@caiafs.invalid"


def names_operation(message: str, operation_id: str) -> bool:
    """Whether `message` carries the trailer of operation `operation_id`."""
    return f"\n{OPERATION_TRAILER}: {operation_id}\n" in f"\n{message}\n"


def _ends_escaped(text: str) -> bool:
    return text.endswith((f"\n{_ESCAPED_TRAILER}", f"\n{_ESCAPED_TRAILER}\n"))


def _escape_one(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] == "\\":
        return "\\\\"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _unescape_one(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits is None:
        return "\\"
    code = int(digits, 16)
    return chr(code) if code <= 0x10FFFF else match[0]


def _cut(text: str) -> str:
    if len(text) <= MESSAGE_BYTES:
        return text
    head, _, trailers = text.rpartition("\n\n")
    if len(trailers) > MESSAGE_BYTES // 2:
        # Trailers of that size are somebody's content, except the lines that say who we are.
        kept = [line for line in trailers.split("\n") if line.startswith(OPERATION_TRAILER)]
        head, trailers = text, "\n".join(kept)
    return head[: MESSAGE_BYTES - len(trailers) - len(_CUT)] + _CUT + trailers
