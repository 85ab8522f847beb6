"""Author and message of the commit that brings somebody else's commits from govc to git. Pure; used by `sync.foreign`."""

from collections.abc import Sequence

from caiafs.backends.base import Revision
from caiafs.core.types import Change
from caiafs.store.trailers import to_ascii_line
from caiafs.sync import message as messages
from caiafs.sync.conflict_notes import trailers_of
from caiafs.sync.document_trailers import joined


def author_of(foreign: Sequence[Revision]) -> tuple[str, str]:
    """Return the author of these commits, if it is one."""
    authors = {(revision.author_name, revision.author_email) for revision in foreign}
    if len(authors) != 1:
        return "govc", "govc@localhost"
    name, email = authors.pop()
    return name or "govc", email or "govc@localhost"


def message_of(
    changes: tuple[Change, ...], foreign: Sequence[Revision], conflicts: Sequence[str]
) -> str:
    """Return the message of the commit that brings foreign commits here; theirs, where it is one."""
    lines = [f"Caiafs-Govc: {to_ascii_line(revision.id)}" for revision in foreign[:100]]
    if len(foreign) != 1:
        texts = [revision.message for revision in reversed(foreign)]
        conflicts = [*conflicts, *trailers_of((), texts[::-1]), *joined(texts).trailers()]
    ids = "\n".join([*lines, *conflicts])
    if len(foreign) == 1:
        text = foreign[0].message.rstrip("\n")
        kept = "\n".join(line for line in text.split("\n") if not line.startswith("Caiafs-Change"))
        return f"{kept.rstrip()}\n\n{ids}\n" if kept.strip() else f"Take in a commit\n\n{ids}\n"
    subject, body = messages.describe(changes)
    return "\n\n".join(part for part in (subject, body, ids) if part) + "\n"
