"""Ids of documents: what they follow from. Pure; used by both processes.

The first document at a path has an id that follows from the path, so every mount knows it without being told, and without
a look at the history. Any other id is told: by the trailer of the commit that gave it, see `sync.document_trailers`.

(The design to start from would derive it from the first commit too. Then each document's id had to be kept, or found by a
walk through the history whenever somebody asks.)
"""

import hashlib
import re
from typing import NewType

from caiafs.core.types import DocPath

DocumentId = NewType("DocumentId", str)
"""16 lower-case hexadecimal digits."""

DOCUMENT_ID = re.compile(r"[0-9a-f]{16}")
FILE_NAME = "documents.db"
"""Of the state directory: ids that do not follow from the path; written by the store process, read by both."""


def first_id(path: DocPath) -> DocumentId:
    """Return the id of the first document at `path`."""
    return _digest(b"", path)


def later_id(path: DocPath, operation: str) -> DocumentId:
    """Return the id of a document that `operation` made at a path that had another one before."""
    return _digest(operation.encode(), path)


def _digest(*parts: bytes) -> DocumentId:
    return DocumentId(hashlib.sha1(b"caia\0" + b"\0".join(parts)).hexdigest()[:16])
