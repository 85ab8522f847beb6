"""Commits: parsing, formatting, walking.

Used by the store process. `CommitLog` is synchronous; a commit costs tens of microseconds, so walks of thousands
belong in a thread with a log of its own.
"""

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from caiafs.backends.git.objects import ObjectReader
from caiafs.core.errors import Corrupt, NotFound
from caiafs.core.types import DocPath, ObjectId, Signature

OPERATION_TRAILER = "Caiafs-Operation"
COMMITTER = ("caiafs", "caiafs@localhost")

_SIGNATURE = re.compile(r"(?P<name>.*?) ?<(?P<email>[^>]*)> (?P<time>-?\d+) (?P<zone>[+-]\d{4})\s*")
_TRAILER = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9-]*): ?(?P<value>.*)")
_UNFIT = re.compile(r"[<>\x00-\x1f\x7f]")
_CRUFT = " .,:;\"'\\"
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One commit, parsed."""

    oid: ObjectId
    tree: ObjectId
    parents: tuple[ObjectId, ...]
    author: Signature
    committer: Signature
    message: str

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """The message's trailers, in their order."""
        return parse_trailers(self.message)

    @property
    def operation_id(self) -> str | None:
        """The operation id that caiafs gave the commit; None for others' commits."""
        return operation_id(self.message)


def parse_trailers(message: str) -> tuple[tuple[str, str], ...]:
    """Return the `Key: value` lines of the last paragraph; none where a line of it is something else.

    A line that begins with a space continues the one above. The first paragraph is the title, never trailers.
    """
    paragraphs = re.split(r"\n[ \t]*\n", message.strip("\n"))
    if len(paragraphs) < 2:
        return ()
    found: list[tuple[str, str]] = []
    for line in paragraphs[-1].splitlines():
        if line[:1].isspace() and found:
            key, value = found[-1]
            found[-1] = (key, f"{value} {line.strip()}")
            continue
        match = _TRAILER.fullmatch(line)
        if match is None:
            return ()
        found.append((match["key"], match["value"].strip()))
    return tuple(found)


def operation_id(message: str) -> str | None:
    """Return the value of the operation trailer."""
    wanted = OPERATION_TRAILER.lower()
    return next((value for key, value in parse_trailers(message) if key.lower() == wanted), None)


def escape_path(path: DocPath) -> str:
    """Return `path` in ASCII, for a trailer: anything unusual percent-encoded."""
    return quote_from_bytes(path, safe="/!$&'()*+,;=:@")


def unescape_path(text: str) -> DocPath:
    """Return the path that `escape_path` was given."""
    return DocPath(unquote_to_bytes(text))


def format_commit(
    tree: ObjectId, parents: Sequence[ObjectId], author: Signature, message: str
) -> bytes:
    """Return the raw commit. Equal arguments give equal bytes: the committer has the author's time."""
    committer = Signature(*COMMITTER, author.time_ns, author.utc_offset_min)
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
    lines += [f"author {_format_signature(author)}", f"committer {_format_signature(committer)}"]
    text = message.replace("\0", "").rstrip("\n") + "\n"  # fsck refuses NUL
    return ("\n".join(lines) + "\n\n" + text).encode("utf-8", "backslashreplace")


def parse_commit(oid: ObjectId, data: bytes) -> CommitRecord:
    """Return a raw commit's parts; bytes that are not UTF-8 become surrogate escapes.

    Raises:
        Corrupt: it is not a commit.
    """
    header, _, message = data.decode("utf-8", "surrogateescape").partition("\n\n")
    fields: dict[str, list[str]] = {}
    for line in header.split("\n"):
        key, _, value = line.partition(" ")
        fields.setdefault(key, []).append(value)
    try:
        return CommitRecord(
            oid,
            ObjectId(fields["tree"][0]),
            tuple(ObjectId(parent) for parent in fields.get("parent", ())),
            _parse_signature(fields["author"][0]),
            _parse_signature(fields["committer"][0]),
            message,
        )
    except KeyError as exc:
        raise Corrupt(f"commit {oid} has no {exc}", backend="git", operation="log") from exc


class CommitLog:
    """Reads the history through one `ObjectReader`."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader

    def commit(self, oid: ObjectId) -> CommitRecord:
        """Return one commit.

        Raises:
            NotFound: it is not here.
            Corrupt: it cannot be read.
        """
        return parse_commit(oid, self._reader.read_commit(oid))

    def newest(
        self, start: ObjectId | None, *, first_parent: bool = False
    ) -> Iterator[CommitRecord]:
        """Yield `start` and its ancestors, newest first by commit time; stop taking when you have enough.

        Reads no more of the history than it yields, and each commit's parents; ends where those are not here, as in a
        shallow clone. Raises as `commit`.
        """
        if start is None:
            return
        ahead: list[tuple[int, int, CommitRecord]] = []
        seen = {start}
        order = 0
        heapq.heappush(ahead, (0, order, self.commit(start)))
        while ahead:
            _, _, record = heapq.heappop(ahead)
            yield record
            for parent in record.parents[: 1 if first_parent else None]:
                if parent in seen:
                    continue
                seen.add(parent)
                order += 1
                try:
                    found = self.commit(parent)
                except NotFound:
                    continue
                heapq.heappush(ahead, (-found.committer.time_ns, order, found))

    def between(
        self, old: ObjectId | None, new: ObjectId | None, *, first_parent: bool = False
    ) -> list[CommitRecord]:
        """Return the commits that `new` reaches and `old` does not, children before parents."""
        if new is None:
            return []
        found = self._reader.commits_between(old, new)
        if not first_parent:
            return [self.commit(oid) for oid in found]
        inside = set(found)
        chain: list[CommitRecord] = []
        oid: ObjectId | None = new
        while oid is not None and oid in inside:
            record = self.commit(oid)
            chain.append(record)
            oid = record.parents[0] if record.parents else None
        return chain

    def is_ancestor(self, old: ObjectId, new: ObjectId) -> bool:
        """Whether `old` is `new` or can be reached from it; False where `old` is not here."""
        return old == new or (self._reader.exists(old) and self.merge_base(old, new) == old)

    def merge_base(self, one: ObjectId, other: ObjectId) -> ObjectId | None:
        """Return the best common ancestor; None where the histories never met."""
        return self._reader.merge_base(one, other)


def _format_signature(signature: Signature) -> str:
    """Return name, e-mail and time as fsck wants them: nothing empty, no brackets inside."""
    name = _UNFIT.sub("", signature.name).strip(_CRUFT) or "unknown"
    email = _UNFIT.sub("", signature.email).strip(_CRUFT) or "unknown@localhost"
    sign = "-" if signature.utc_offset_min < 0 else "+"
    hours, minutes = divmod(abs(signature.utc_offset_min), 60)
    return f"{name} <{email}> {max(signature.time_ns, 0) // _NS} {sign}{hours:02}{minutes:02}"


def _parse_signature(text: str) -> Signature:
    match = _SIGNATURE.fullmatch(text)
    if match is None:  # some old importers wrote no time; the commit still counts
        return Signature(text, "", 0)
    zone = match["zone"]
    offset = int(zone[1:3]) * 60 + int(zone[3:5])
    return Signature(
        match["name"],
        match["email"],
        int(match["time"]) * _NS,
        -offset if zone[0] == "-" else offset,
    )
