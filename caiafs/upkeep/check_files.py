"""Checks the files of a state directory: contents that no store has yet, the spool, the disk cache, the records.

Used by `fsck`. Every content is read and hashed.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from caiafs.backends.git.objects import ObjectReader
from caiafs.core.document_ids import FILE_NAME as DOCUMENTS_NAME
from caiafs.core.errors import CaiaError, StateCorrupt
from caiafs.core.types import ObjectId, display
from caiafs.state import damaged, paths
from caiafs.state.extents import Extents
from caiafs.state.flags import InodeFlag
from caiafs.state.guard import spool_file
from caiafs.state.reader import StoredContent, read_spooled
from caiafs.state.view import open_state
from caiafs.sync.contents import PARTIAL
from caiafs.sync.export_record import FILE_NAME as ATTRIBUTES_NAME
from caiafs.upkeep.findings import Finding, Kind
from caiafs.upkeep.place import Place, path_of

_PIECE_BYTES = 4 << 20
_OP_CONTENTS = """
SELECT c.id, c.size, c.data, c.spool, c.extents, o.path, o.target, o.oid FROM content c
JOIN op o ON o.seq = (SELECT max(seq) FROM op WHERE op.content = c.id)
"""

_UNLOGGED_CONTENTS = """
SELECT c.id, c.size, c.data, c.spool, c.extents, i.parent, i.name, NULL FROM content c
JOIN inode i ON i.content = c.id WHERE i.flags & ? AND i.nlink > 0
"""

BaseFile = Callable[[ObjectId], Path]
"""Gives a blob of git as a plain file."""


def check_contents(
    place: Place, base_file: BaseFile, count: Callable[[str, int], None]
) -> list[Finding]:
    """Return a finding for each logged content that cannot be read as it was saved."""
    if not place.has_state:
        return []
    found = []
    looked_at = 0
    try:
        with contextlib.closing(open_state(place.state_dir)) as db:
            for row in db.execute(_OP_CONTENTS):
                looked_at += 1
                why = _content_fault(place.state_dir, row, base_file)
                if why:
                    found.append(_damaged_content(row[6] or row[5], row[0], why))
            for row in db.execute(_UNLOGGED_CONTENTS, (int(InodeFlag.UNLOGGED),)):
                looked_at += 1
                why = _content_fault(place.state_dir, row, base_file)
                if why:
                    path = path_of(db, row[5], row[6]) or row[6] or b""
                    found.append(_damaged_content(path, row[0], why))
    except sqlite3.Error:
        return found  # `check_state` tells of it
    count("contents not published yet", looked_at)
    return found


def _content_fault(state_dir: Path, row: tuple, base_file: BaseFile) -> str:  # type: ignore[type-arg]  # SQLite's
    content_id, size, data, spool, extents, _, _, oid = row
    try:
        stored = to_stored(state_dir, size, data, spool, extents)
        actual = hash_stored(stored, base_file)
    except (CaiaError, OSError) as exc:
        return str(exc)
    if oid is not None and actual != oid.hex():
        return f"its bytes are not those that were saved (content {content_id})"
    return ""


def _damaged_content(path: bytes, content_id: int, why: str) -> Finding:
    return Finding(
        Kind.CONTENT,
        display(path),
        why,
        "the version saved last cannot be published; the one before it stands",
        "keeps what is left of it in damaged/ and publishes the rest",
        subject=str(content_id),
    )


def to_stored(
    state_dir: Path, size: int, data: bytes | None, spool: str | None, extents: bytes | None
) -> StoredContent:
    """Return a row of `content` as a value.

    Raises:
        StateCorrupt: it makes no sense.
    """
    try:
        return StoredContent(
            size,
            data,
            spool_file(state_dir, spool) if spool is not None else None,
            Extents.from_bytes(extents) if extents is not None else None,
        )
    except ValueError as exc:
        raise StateCorrupt(str(exc)) from exc


def pieces_of(stored: StoredContent, base_file: BaseFile) -> Iterator[bytes]:
    """Yield a content a few MiB at a time; raises as `read_span`."""
    for start in range(0, max(stored.size_bytes, 1), _PIECE_BYTES):
        yield read_span(stored, base_file, range(start, start + _PIECE_BYTES))


def read_span(stored: StoredContent, base_file: BaseFile, span: range) -> bytes:
    """Return bytes `span` of a content, cut at its end.

    Raises:
        StateCorrupt: its row makes no sense, or a file of it is gone or too short.
        CaiaError: its base cannot be had.
    """
    if stored.data is not None:
        if len(stored.data) != stored.size_bytes:
            raise StateCorrupt("its row does not have as many bytes as it says")
        return stored.data[span.start : span.stop]
    extents = stored.extents
    if stored.spool is None or extents is None or extents.size != stored.size_bytes:
        raise StateCorrupt("its row does not say where its bytes are")
    with contextlib.ExitStack() as stack:
        base_fd = -1
        try:
            spool_fd = os.open(stored.spool, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, spool_fd)
        except OSError as exc:
            raise StateCorrupt(f"its spool file {stored.spool.name}: {exc.strerror}") from exc
        plan = extents.plan_read(span.start, span.stop)
        if extents.base is not None and any(source.origin == "base" for source in plan):
            base_fd = os.open(base_file(extents.base), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, base_fd)
        return read_spooled(spool_fd, base_fd if base_fd >= 0 else None, extents, span)


def hash_stored(stored: StoredContent, base_file: BaseFile) -> ObjectId:
    """Return the blob id of a content; raises as `pieces_of`."""
    digest = hashlib.sha1(b"blob %d\0" % stored.size_bytes)
    for piece in pieces_of(stored, base_file):
        digest.update(piece)
    return ObjectId(digest.hexdigest())


def hash_file(path: Path) -> ObjectId:
    """Return the blob id of a plain file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return ObjectId(digest.hexdigest())


def check_spool(place: Place, reader: ObjectReader) -> list[Finding]:
    """Return spool files that no version needs and whose content is nowhere else; the next mount removes them."""
    directory = paths.spool(place.state_dir)
    if not directory.is_dir():
        return []
    try:
        with contextlib.closing(open_state(place.state_dir)) as db:
            used = {
                name for (name,) in db.execute("SELECT spool FROM content WHERE spool NOT NULL")
            }
    except sqlite3.Error:
        return []
    found = []
    for name in sorted(set(os.listdir(directory)) - used):
        file = directory / name
        if not file.is_file() or not file.stat().st_size or reader.exists(hash_file(file)):
            continue
        found.append(
            Finding(
                Kind.ORPHAN,
                f"spool file {name}",
                f"no version needs its {file.stat().st_size} bytes, which are nowhere else",
                "it was being written when the mount died, and nothing was promised of it",
                "keeps it in lost/ instead of leaving it to the next mount, which removes it",
                is_error=False,
                subject=name,
            )
        )
    return found


def check_cache(place: Place, count: Callable[[str, int], None]) -> list[Finding]:
    """Return the files of the disk cache that are not the blob that they are called by."""
    found = []
    files = [f for f in paths.cache(place.state_dir).glob("*/*") if not f.name.endswith(PARTIAL)]
    for file in files:
        if file.is_file() and hash_file(file) == file.name:
            continue
        found.append(
            Finding(
                Kind.CACHE,
                f"cache file {file.name}",
                "it is not what its name says",
                "a document would show these bytes instead of its own",
                "moves it to lost/; readers load it again from git",
                subject=str(file.relative_to(place.state_dir)),
            )
        )
    count("cached contents", len(files))
    return found


def check_records(place: Place) -> list[Finding]:
    """Return a finding for each record that is damaged and that the next mount can make anew."""
    meanings = {
        ATTRIBUTES_NAME: "owners, modes and times may be saved wrongly in git",
        DOCUMENTS_NAME: "a document may get another id than it has",
    }
    found = []
    for name, meaning in meanings.items():
        why = _sqlite_fault(place.state_dir / name)
        if why:
            remedy = "sets it aside; the next mount makes it anew"
            what = f"it is damaged: {why}"
            found.append(Finding(Kind.RECORD, name, what, meaning, remedy, subject=name))
    return found


def _sqlite_fault(file: Path) -> str:
    """Return what SQLite finds wrong with a database, empty for nothing."""
    if not file.exists():
        return ""
    try:
        uri = f"{file.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            first = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            return "" if first == "ok" else str(first)
    except sqlite3.Error as exc:
        return str(exc)


def check_set_aside(place: Place) -> list[Finding]:
    """Return what was set aside earlier, for a person to look at."""
    return [
        Finding(
            Kind.CONTENT,
            ", ".join(version.paths) or f"inode {version.inode}",
            f"a version was set aside at {version.time}: {version.reason}",
            f"what is left of it is {version.file or 'nothing'}, see damaged/{version.name}.json",
            is_error=False,
        )
        for version in damaged.read_all(place.state_dir)
    ]
