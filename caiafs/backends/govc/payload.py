"""JSON from a server that nobody vouches for: refused before it can take this process's memory.

Pure. Used by `client` for every answer.
"""

import json
import re
from typing import Any, NoReturn

VALUES_MAX = 1_000_000
"""Values in an ordinary answer. 64 MiB of `[],[],` would become 2 GiB of objects; this many are 100 MiB."""
LISTED_VALUES_MAX = 4_000_000
"""Values in a listing, for some 800,000 documents."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def parse_json(body: bytes | bytearray, *, values_max: int = VALUES_MAX) -> object:
    """Return the value that `body` holds, UTF-8.

    Raises:
        ValueError: no JSON, nested too deep, a key that occurs twice, a number that is none, or more than `values_max` values.
    """
    # Texts hold commas and brackets too; they are taken out only where the cheap count is in doubt.
    if _count(body) > values_max and _count(_STRING.sub(b"", body)) > values_max:
        raise ValueError("more values than an answer has")
    try:
        return json.loads(
            body.decode(), object_pairs_hook=_to_object, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def _count(body: bytes | bytearray) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        # Whoever reads the first and whoever reads the last would see two documents.
        raise ValueError("a key occurs twice")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
