"""Durations as Go writes them ("30s", "1h30m", "500ms") and sizes ("256MiB"), read and shown.

Used by settings, the command line and the control file. Pure.
"""

import re

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, as Go prints it
    "μs": 1_000,  # U+03BC, as keyboards give it
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(iB|B)?|B)?", re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}

DURATION_FORM = "a number with its unit, such as 500ms, 30s, 5m or 1h30m"
SIZE_FORM = "a number of bytes, or with a unit, such as 64KiB, 256MiB or 4GiB"


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration; "0" needs no unit.

    Raises:
        ValueError: not a duration, negative, or longer than Go can say (292 years).
    """
    text = text.strip()
    if text == "0":
        return 0.0
    total_ns = 0.0
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            break
        total_ns += float(part[1]) * _UNIT_NS[part[2]]
        position = part.end()
    if not text or position < len(text) or total_ns >= 2**63:
        raise ValueError(f"{text!r} is not a duration")
    return total_ns / 1e9


def format_duration(seconds: float) -> str:
    """Return `seconds` in the form that `parse_duration` reads: "1h30m", "5s", "200ms"."""
    total_ns = round(seconds * 1e9)
    if total_ns == 0:
        return "0s"
    for unit in ("ms", "us", "ns"):
        if total_ns < 1_000_000_000 and total_ns % _UNIT_NS[unit] == 0:
            return f"{total_ns // _UNIT_NS[unit]}{unit}"
    hours, rest = divmod(total_ns, _UNIT_NS["h"])
    minutes, rest = divmod(rest, _UNIT_NS["m"])
    shown = f"{hours}h" if hours else ""
    shown += f"{minutes}m" if minutes else ""
    return shown + (f"{rest / 1e9:.9g}s" if rest else "")


def parse_size(text: str) -> int:
    """Return the bytes of a size; K, M, G, T and KiB … are powers of 1024, KB … of 1000.

    Raises:
        ValueError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    base = 1000 if (match[3] or "").upper() == "B" else 1024
    return int(float(match[1]) * base ** _POWER[(match[2] or "").upper()])


def format_size(size_bytes: int) -> str:
    """Return `size_bytes` exactly, in the largest binary unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        whole, rest = divmod(size_bytes, 1024 ** _POWER[unit[0]])
        if whole and not rest:
            return f"{whole}{unit}"
    return str(size_bytes)
