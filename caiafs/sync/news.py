"""Tells the mount what differs from what it shows, in pieces that fit a frame of the link.

Used by `sync.publisher` and `sync.pushes`.
"""

from collections.abc import Sequence

from caiafs.core.types import Change

CHANGES_PER_MESSAGE = 1000
"""Decoding one keeps the mount's loop from its requests: some 10 ms."""


def split_changes(changes: Sequence[Change]) -> list[tuple[Change, ...]]:
    """Return `changes` in pieces that fit a frame of the link."""
    starts = range(0, len(changes), CHANGES_PER_MESSAGE)
    return [tuple(changes[start : start + CHANGES_PER_MESSAGE]) for start in starts]
