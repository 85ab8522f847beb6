"""What users say, made fit for a commit message: nothing in it can pass for a trailer of ours.

Used by `sync.message`. Pure. Text stays as it was written, in any language; what cannot be seen shows as escapes.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from caiafs.core.types import DocPath, display
from caiafs.store.trailers import to_ascii_line

TEXT_MAX = 12_000
"""Characters of users' texts in one message, as govc has to be told them: ASCII with escapes."""

SOURCES_MAX = 60_000
_OURS = re.compile(r"^(?=[^\S\n]*caiafs-[\w-]*[^\S\n]*:)", re.IGNORECASE | re.MULTILINE)
_LINE_END = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
_WIDE = frozenset("WF")


@dataclass(frozen=True, slots=True)
class Remark:
    """What was said of one document of a commit; empty where nothing was."""

    path: DocPath
    message: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What users said of a commit: of the transaction that it is, and of its documents."""

    message: str = ""
    remarks: Sequence[Remark] = ()


NOTHING_SAID = Said()


def visible(text: str) -> str:
    """Return `text` on one line: printable characters as they are, the rest as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else to_ascii_line(char) for char in text)


def width(text: str) -> int:
    """Return how many columns a terminal gives `text`."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in _WIDE)
        for c in text
    )


def shown(path: bytes, limit: int) -> str:
    """Return `path` as a person writes it, its front cut off where it is wider than `limit` columns."""
    text = visible(display(path))
    if width(text) <= limit:
        return text
    kept = text[-limit:]
    while width(kept) > limit - 3:
        kept = kept[1:]
    return "..." + kept


def paragraphs(text: str, limit: int = TEXT_MAX) -> str:
    """Return a user's text as it stands in a message: no end of spaces, no empty line twice, nothing like our trailers."""
    lines = [
        visible(line.replace("\t", " ")).rstrip() for line in _LINE_END.sub("\n", text).split("\n")
    ]
    tidy = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return _OURS.sub("> ", _cut(tidy, limit))


def _cut(text: str, limit: int) -> str:
    """Return `text`, its end cut off where it would be too long for a store."""
    if len(text) * 10 <= limit or len(to_ascii_line(text)) <= limit:
        return text
    room, end = limit, 0
    for char in text:
        room -= len(to_ascii_line(char))
        if room < 0:
            break
        end += 1
    return text[:end].rstrip() + "..."


def source_trailers(remarks: Sequence[Remark], documents: int) -> list[str]:
    """Return the trailers that tell where documents came from; of several each names its path."""
    sources: dict[str, None] = {}
    for remark in remarks:
        if remark.source:
            where = f" ({to_ascii_line(display(remark.path))})" if documents > 1 else ""
            line = " ".join(_LINE_END.sub(" ", remark.source).split())
            sources[f"Caiafs-Source: {to_ascii_line(line)}{where}"] = None
    lines: list[str] = []
    room = SOURCES_MAX
    for line in sources:
        room -= len(line) + 1
        if room < 0:
            return [*lines, f"Caiafs-Sources: {len(sources) - len(lines)} more"]
        lines.append(line)
    return lines
