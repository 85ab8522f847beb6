"""What a server turned out to take: the largest request. Shared by the requests of one connection."""

from caiafs.backends.govc import answers, codec

_ENVELOPE_BYTES = 12 * 1024
_FACTOR = 0.9


class Limits:
    """Starts from the server's default and shrinks when a 413 says so."""

    def __init__(self, request_bytes: int) -> None:
        self.request_bytes = request_bytes

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
