"""Merging three versions of a text by lines.

Used by `sync` for a document that both sides changed. Pure. Lines are matched by patience (lines that occur once on
both sides, in order) and, between those, by Myers' O(ND) with a bound; what is not matched merges less, never
wrongly: a stretch between matched lines is taken from the side that changed it, and None is the answer where both did.
"""

import bisect
import json
from collections import Counter
from collections.abc import Sequence

TEXT_MAX_BYTES = 1 << 20
_MYERS_MAX_EDITS = 200
_JSON_SUFFIXES = (b".json", b".jsonld", b".geojson", b".ipynb")

_Match = tuple[int, int]


def merge_text(base: bytes, ours: bytes, theirs: bytes, *, path: bytes = b"") -> bytes | None:
    """Return both sides' changes to `base` in one text; None where they cannot be merged cleanly.

    Merged are texts in UTF-8 without NUL, up to TEXT_MAX_BYTES. Changes that touch each other do not merge. Where
    both sides are JSON, or `path` says so, the result is JSON without duplicate keys, or None.
    """
    if ours in (theirs, base):
        return theirs
    if theirs == base:
        return ours
    if not all(_is_text(version) for version in (base, ours, theirs)):
        return None
    merged = _merge_lines(*(version.splitlines(keepends=True) for version in (base, ours, theirs)))
    if merged is None or any(not line.endswith((b"\n", b"\r")) for line in merged[:-1]):
        return None
    result = b"".join(merged)
    must_be_json = path.lower().endswith(_JSON_SUFFIXES) or (_is_json(ours) and _is_json(theirs))
    return None if must_be_json and not _is_json(result) else result


def _is_text(content: bytes) -> bool:
    if len(content) > TEXT_MAX_BYTES or b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_json(content: bytes) -> bool:
    """Whether this is a JSON object or array that says nothing twice."""
    if content.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(content, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("duplicate key")


def _merge_lines(
    base: Sequence[bytes], ours: Sequence[bytes], theirs: Sequence[bytes]
) -> list[bytes] | None:
    in_ours = dict(match_lines(base, ours))
    in_theirs = dict(match_lines(base, theirs))
    merged: list[bytes] = []
    at_base = at_ours = at_theirs = 0
    anchors = [line for line in range(len(base)) if line in in_ours and line in in_theirs]
    for anchor in [*anchors, None]:
        stops = (
            (len(base), len(ours), len(theirs))
            if anchor is None
            else (anchor, in_ours[anchor], in_theirs[anchor])
        )
        stretch = _choose(
            base[at_base : stops[0]], ours[at_ours : stops[1]], theirs[at_theirs : stops[2]]
        )
        if stretch is None:
            return None
        merged += stretch
        if anchor is not None:
            merged.append(base[anchor])
        at_base, at_ours, at_theirs = (stop + 1 for stop in stops)
    return merged


def _choose(
    base: Sequence[bytes], ours: Sequence[bytes], theirs: Sequence[bytes]
) -> Sequence[bytes] | None:
    if ours in (base, theirs):
        return theirs
    return ours if theirs == base else None


def match_lines(one: Sequence[bytes], other: Sequence[bytes]) -> list[_Match]:
    """Return index pairs of equal lines, increasing on both sides."""
    matches: list[_Match] = []
    waiting = [(0, len(one), 0, len(other))]
    while waiting:
        start, stop, other_start, other_stop = waiting.pop()
        while start < stop and other_start < other_stop and one[start] == other[other_start]:
            matches.append((start, other_start))
            start, other_start = start + 1, other_start + 1
        while start < stop and other_start < other_stop and one[stop - 1] == other[other_stop - 1]:
            stop, other_stop = stop - 1, other_stop - 1
            matches.append((stop, other_stop))
        if start == stop or other_start == other_stop:
            continue
        part, other_part = one[start:stop], other[other_start:other_stop]
        anchors = _unique_matches(part, other_part)
        if not anchors:
            found = _myers(part, other_part)
            matches += [(start + left, other_start + right) for left, right in found]
            continue
        for left, right in anchors:
            matches.append((start + left, other_start + right))
        lefts = [start - 1, *(start + left for left, _ in anchors), stop]
        rights = [other_start - 1, *(other_start + right for _, right in anchors), other_stop]
        waiting += [
            (lefts[i] + 1, lefts[i + 1], rights[i] + 1, rights[i + 1])
            for i in range(len(lefts) - 1)
        ]
    matches.sort()
    return matches


def _unique_matches(one: Sequence[bytes], other: Sequence[bytes]) -> list[_Match]:
    """Return the longest increasing run of lines that occur exactly once on both sides."""
    counts, other_counts = Counter(one), Counter(other)
    where = {line: index for index, line in enumerate(other) if other_counts[line] == 1}
    pairs = [
        (index, where[line])
        for index, line in enumerate(one)
        if counts[line] == 1 and line in where
    ]
    tails: list[int] = []  # tails[n]: smallest end of an increasing run of n+1 pairs
    tail_pairs: list[int] = []
    before: list[int] = []
    for position, (_, right) in enumerate(pairs):
        length = bisect.bisect_left(tails, right)
        before.append(tail_pairs[length - 1] if length else -1)
        tails[length:] = [right, *tails[length + 1 :]]
        tail_pairs[length:] = [position, *tail_pairs[length + 1 :]]
    run: list[_Match] = []
    position = tail_pairs[-1] if tail_pairs else -1
    while position >= 0:
        run.append(pairs[position])
        position = before[position]
    return run[::-1]


def _myers(one: Sequence[bytes], other: Sequence[bytes]) -> list[_Match]:
    """Return a longest common subsequence; nothing where it takes more than _MYERS_MAX_EDITS edits."""
    reach = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(min(_MYERS_MAX_EDITS, len(one) + len(other)) + 1):
        history.append(dict(reach))
        for diagonal in range(-edits, edits + 1, 2):
            x = _furthest(reach, diagonal, edits)
            y = x - diagonal
            while x < len(one) and y < len(other) and one[x] == other[y]:
                x, y = x + 1, y + 1
            reach[diagonal] = x
            if x >= len(one) and y >= len(other):
                return _trace_back(history, len(one), len(other))
    return []


def _furthest(reach: dict[int, int], diagonal: int, edits: int) -> int:
    down = diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1])
    return reach[diagonal + 1] if down else reach[diagonal - 1] + 1


def _trace_back(history: list[dict[int, int]], x: int, y: int) -> list[_Match]:
    matches: list[_Match] = []
    for edits in range(len(history) - 1, -1, -1):
        reach = history[edits]
        diagonal = x - y
        start_x = _furthest(reach, diagonal, edits)
        start_y = start_x - diagonal
        while x > start_x and y > start_y:
            x, y = x - 1, y - 1
            matches.append((x, y))
        came_down = diagonal == -edits or (
            diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1]
        )
        x, y = (start_x, start_y - 1) if came_down else (start_x - 1, start_y)
    return matches[::-1]
