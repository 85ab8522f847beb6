"""Cutting a difference into commits that a store takes in time. Pure; used by `store.catchup`."""

from collections.abc import Sequence
from dataclasses import dataclass

from caiafs.core.types import Change

BATCH_DOCUMENTS = 200
BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of what one commit does, small enough for one request after another in time."""

    changes: tuple[Change, ...]
    size_bytes: int


def plan_pieces(changes: Sequence[Change], sizes: Sequence[int]) -> list[Piece]:
    """Cut changes into pieces of at most BATCH_DOCUMENTS and BATCH_BYTES; one large document is one piece."""
    pieces: list[Piece] = []
    current: list[Change] = []
    current_bytes = 0
    for change, size in zip(changes, sizes, strict=True):
        if current and (len(current) >= BATCH_DOCUMENTS or current_bytes + size > BATCH_BYTES):
            pieces.append(Piece(tuple(current), current_bytes))
            current, current_bytes = [], 0
        current.append(change)
        current_bytes += size
    if current:
        pieces.append(Piece(tuple(current), current_bytes))
    return pieces
