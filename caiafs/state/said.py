"""What users say of their saves: transactions that were committed, and notes on single documents.

Written by the mount process (`vfs.transactions`, `vfs.notes`) in the transaction of what they are about, read by the
publisher. Texts are UTF-8 as they were given; `sync.message` makes them fit for a commit.
"""

from dataclasses import dataclass

MESSAGE = "message"
SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Transaction:
    """Ops `first_seq` to `last_seq` are one commit.

    Attributes:
        message: what the user said of it, "" for nothing.
        uid: who committed it; the author.
    """

    first_seq: int
    last_seq: int
    message: str
    uid: int


@dataclass(frozen=True, slots=True)
class Note:
    """What was said of the document that op `seq` is about; `kind` is MESSAGE or SOURCE."""

    seq: int
    kind: str
    text: str
