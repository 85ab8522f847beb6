"""Compares what govc holds with what the repository says of it, every document by the hash of its bytes.

Used by `fsck`. With a cursor, a difference from the cursor's tree is an error, for nothing would mend it; what the branch
has since, and everything where the two have never met, is told as a note: the next mount brings it over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.objects import ObjectReader
from caiafs.backends.govc import GovcBackend
from caiafs.core.errors import Absent, Corrupt
from caiafs.core.types import DocPath, Entry, GitMode, ObjectId, display
from caiafs.store.cursors import cursor_ref, refused_in
from caiafs.upkeep.findings import Finding, Kind
from caiafs.upkeep.place import Place

STEP_DOCUMENTS = 200
_SHOWN = 20
_IN_PARTS_BYTES = 1 << 20


@dataclass(slots=True)
class Differences:
    """Paths by how the two stores differ there; `partial`: govc cannot list what only it has."""

    only_git: list[DocPath] = field(default_factory=list)
    only_govc: list[DocPath] = field(default_factory=list)
    differing: list[DocPath] = field(default_factory=list)
    looked_at: int = 0
    partial: bool = False

    def __bool__(self) -> bool:
        return bool(self.only_git or self.only_govc or self.differing)


def documents_of(reader: ObjectReader, tree: ObjectId) -> dict[DocPath, Entry]:
    """Return every document of a tree."""
    return {
        path: Entry(int(entry.mode), entry.oid)
        for path, entry in reader.walk(tree)
        if entry.mode != GitMode.GITLINK
    }


async def compare(
    govc: GovcBackend, known: dict[DocPath, Entry], advance: Callable[[int], None] = lambda _: None
) -> Differences:
    """Read every document from a connected govc and compare it with `known`.

    Raises:
        StoreError: govc cannot be asked.
    """
    listing = await govc.listing()
    found = Differences(partial=not listing.complete)
    wanted = list({**known, **listing.entries})
    for start in range(0, len(wanted), STEP_DOCUMENTS):
        step = wanted[start : start + STEP_DOCUMENTS]
        there = await govc.current(step)
        for path in step:
            await _compare_one(govc, path, (known.get(path), there[path]), found)
        found.looked_at += len(step)
        advance(len(step))
    return found


async def _compare_one(
    govc: GovcBackend, path: DocPath, pair: tuple[Entry | None, Entry | None], found: Differences
) -> None:
    here, there = pair
    if there is None:
        if here is not None:
            found.only_git.append(path)
        return
    if here is None:
        found.only_govc.append(path)
    elif not here.same_content(there) or not await holds_whole(govc, path, there):
        found.differing.append(path)


async def holds_whole(govc: GovcBackend, path: DocPath, there: Entry) -> bool:
    """Whether a document that is kept in parts has all of them; the others were read whole already."""
    if there.size_bytes <= _IN_PARTS_BYTES:
        return True
    try:
        with open("/dev/null", "wb") as nowhere:  # noqa: ASYNC230  # it never waits
            entry = await govc.read_to(path, nowhere)
    except (Corrupt, Absent):
        return False
    return entry is not None and entry.same_content(there)


async def check_stores(
    place: Place, govc: GovcBackend, count: Callable[[str, int], None]
) -> list[Finding]:
    """Return how govc and git differ."""
    repository, config = place.repository, place.config
    reader = repository.new_reader()
    branch = repository.tree_of(repository.head_commit())
    name = cursor_ref(config.govc_url, config.govc_repo_name)
    cursor = repository.refs.read(name)
    tree = repository.tree_of(cursor) if cursor is not None else branch
    refused = _refused(repository.reader, cursor)
    known = {p: e for p, e in documents_of(reader, tree).items() if refused.get(p) != e.oid}
    if cursor is not None and not await _is_where_it_was(govc, reader, cursor):
        return [
            _note(
                "govc does not have the commits any more that it had: it came back empty or older",
                "the next mount fills it again from git",
            )
        ]
    found = await compare(govc, known)
    count("documents in govc", found.looked_at)
    findings = _tell(found, name if cursor is not None else "")
    behind = len(_differing(known, documents_of(reader, branch))) if tree != branch else 0
    if behind:
        findings.append(
            _note(f"govc lacks {behind} newer documents of git", "the next mount sends them")
        )
    return findings


async def _is_where_it_was(govc: GovcBackend, reader: ObjectReader, cursor: ObjectId) -> bool:
    """Whether govc's log still shows the commit that the cursor names."""
    message = CommitLog(reader).commit(cursor).message
    newest = next((x[8:] for x in message.splitlines() if x.startswith("Newest: ")), "-")
    if newest == "-":
        return True
    for limit in (16, 1024, 16384):
        found = await govc.log(limit)
        if any(revision.id == newest for revision in found):
            return True
        if len(found) < limit:
            return False
    return True


def _refused(reader: ObjectReader, cursor: ObjectId | None) -> dict[DocPath, ObjectId]:
    if cursor is None:
        return {}
    found = refused_in(CommitLog(reader).commit(cursor).message)
    return {path: content.oid for path, content in found.items()}


def _differing(one: dict[DocPath, Entry], other: dict[DocPath, Entry]) -> list[DocPath]:
    paths = {**one, **other}
    return [p for p in paths if one.get(p) is None or not one[p].same_content(other.get(p))]


def _tell(found: Differences, cursor: str) -> list[Finding]:
    findings = []
    for paths, what in (
        (found.only_git, "only git has it"),
        (found.only_govc, "only govc has it"),
        (found.differing, "git and govc have different versions of it"),
    ):
        findings += [_difference(path, what, cursor) for path in paths[:_SHOWN]]
        if len(paths) > _SHOWN:
            findings.append(
                _note(f"{what}: {len(paths) - _SHOWN} more", "they are like those above")
            )
    if found.partial:
        findings.append(
            _note("govc cannot list everything", "a document that only govc has may not be named")
        )
    return findings


def _difference(path: DocPath, what: str, cursor: str) -> Finding:
    forget = "forgets what govc is taken to hold; the next mount compares and brings it together"
    return Finding(
        Kind.STORES,
        display(path),
        what,
        "whoever reads the other store sees something else",
        forget if cursor else "",
        is_error=bool(cursor),
        subject=cursor,
    )


def _note(what: str, meaning: str) -> Finding:
    return Finding(Kind.STORES, "govc", what, meaning, is_error=False)
