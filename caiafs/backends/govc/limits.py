"""What a server turned out to take: the largest request. Shared by the requests of one connection."""

from caiafs.backends.govc import answers, codec
from caiafs.core.errors import Refused
from caiafs.core.types import DocPath

OVER_LIMIT = "larger than govc_max_document"
"""With these words a refusal begins that is no word of the server's but a setting of ours."""

_ENVELOPE_BYTES = 12 * 1024
_FACTOR = 0.9


class Limits:
    """Starts from the server's default and shrinks when a 413 says so."""

    def __init__(self, request_bytes: int, document_bytes: int) -> None:
        """`document_bytes` is the largest document that may be sent at all."""
        self.request_bytes = request_bytes
        self._document_bytes = document_bytes

    def check(self, path: DocPath, size_bytes: int) -> None:
        """Return if a document of that size may be sent.

        Raises:
            Refused: it goes to the other store only.
        """
        if size_bytes > self._document_bytes:
            words = f"{OVER_LIMIT} ({size_bytes} bytes)"
            raise Refused(words, path=path, reason=words, backend="govc", operation="add")

    def learn(self, payload: object, body_bytes: int) -> None:
        """Take in a 413 to a request of `body_bytes`, which may name the limit."""
        told = answers.parse_max_size(payload)
        fits = told if told is not None and told < body_bytes else int(body_bytes * _FACTOR)
        self.request_bytes = min(self.request_bytes, fits)

    def part_bytes(self) -> int | None:
        """Return how much content goes into one part, None where no part would pass."""
        for size in codec.PART_SIZES:
            if size * 4 // 3 + _ENVELOPE_BYTES // 12 <= self.request_bytes:
                return size
        return None
