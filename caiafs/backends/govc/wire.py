"""One request and its answer as values: what dialects plan and `client` carries out. Pure."""

from dataclasses import dataclass, field

from caiafs.core.types import DocPath


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a dialect plans it.

    Attributes:
        method: "GET", "POST" or "DELETE".
        target: path and query, percent-encoded, below the base address.
        operation: name for errors and metrics.
        body: JSON, None without.
        path: the document that it is for.
        expected: govc's codes that the caller handles; anything else but success is raised.
        heavy: a listing or another answer that may be large and slow.
        repeatable: may be sent again where a pooled connection turns out dead.
    """

    method: str
    target: str
    operation: str
    body: bytes | None = field(default=None, repr=False)
    path: DocPath | None = None
    expected: frozenset[str] = frozenset()
    heavy: bool = False
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: success, or one of the codes that the request expected.

    Attributes:
        payload: the JSON as parsed; checked by `answers` before anybody believes it.
        code: govc's error code, "" on success.
    """

    status: int
    payload: object = field(repr=False)
    code: str = ""
