"""Repairs the repository: damaged packs and objects are taken apart, and what is missing is looked for elsewhere.

Used by `repair`. Nothing is believed but by its id: an object comes back only as the bytes that hash to its name.
"""

import hashlib
import re
import zlib
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from pathlib import Path

import trio

from caiafs.backends.git.attribute_trees import META_REF
from caiafs.backends.git.log import CommitLog, CommitRecord
from caiafs.backends.git.loose import write_loose
from caiafs.backends.git.pack import NewObject, new_object
from caiafs.backends.git.repository import Repository
from caiafs.core.errors import CaiaError, StoreError
from caiafs.core.types import ObjectId
from caiafs.store.trailers import writer_of
from caiafs.upkeep.check_git import CAIA_REFS
from caiafs.upkeep.git_run import ask_git
from caiafs.upkeep.lost import Lost

Finder = Callable[[ObjectId, str], Awaitable[NewObject | None]]
"""Looks for a missing object of a kind ("blob", "tree") elsewhere."""

_MISSING = re.compile(r"^missing (blob|tree|commit|tag) ([0-9a-f]{40})$", re.MULTILINE)
_LOOSE_NAME = re.compile(r"[0-9a-f]{38}")
_CANDIDATES_MAX = 100
_PIECE_BYTES = 1 << 20
_NO_DOCUMENTS = ("What govc holds\n", "Save attributes in ")


async def take_apart(repository: Repository, lost: Lost) -> None:
    """Move damaged packs and loose objects to `lost`; every object that can be read of a pack stays."""
    for pack in sorted((repository.write_dir / "pack").glob("pack-*.pack")):
        index = pack.with_suffix(".idx")
        verified = await ask_git(repository, "verify-pack", str(index))
        if verified.code:
            await _unpack(repository, pack, lost)
    for file in await trio.to_thread.run_sync(_damaged_loose, repository.write_dir):
        lost.keep(file, f"objects/{file.parent.name}")


async def _unpack(repository: Repository, pack: Path, lost: Lost) -> None:
    """Move a pack aside and write every object anew that can be read from it."""
    listed = await ask_git(repository, "show-index", stdin=_bytes(pack.with_suffix(".idx")))
    names = re.findall(rb"^\d+ ([0-9a-f]{40})", listed.out, re.MULTILINE)
    readable: list[NewObject] = []
    for name in names:  # one by one: git ends at the first that it cannot read
        found = await _read_object(repository, name.decode())
        if found is not None:
            readable.append(found)
        if len(readable) > 200:
            await trio.to_thread.run_sync(write_loose, repository.write_dir, readable)
            readable.clear()
    await trio.to_thread.run_sync(write_loose, repository.write_dir, readable)
    moved = pack
    for file in sorted(pack.parent.glob(f"{pack.stem}.*")):
        kept = lost.keep(file, "objects/pack")
        moved = kept if file == pack else moved
    # What its index did not lead to; this also serves where the index alone was damaged.
    await ask_git(repository, "unpack-objects", "-r", "-q", stdin=_bytes(moved))


async def _read_object(repository: Repository, name: str) -> NewObject | None:
    kind = await ask_git(repository, "cat-file", "-t", name)
    if kind.code:
        return None
    content = await ask_git(repository, "cat-file", kind.out.decode().strip(), name)
    if content.code:
        return None
    found = new_object(kind.out.strip(), content.out)
    return found if found.oid == name else None


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _damaged_loose(object_dir: Path) -> list[Path]:
    files = sorted(object_dir.glob("[0-9a-f][0-9a-f]/*"))
    named = [file for file in files if _LOOSE_NAME.fullmatch(file.name)]
    return [file for file in named if not _is_whole(file, file.parent.name + file.name)]


def _is_whole(file: Path, name: str) -> bool:
    digest, inflate = hashlib.sha1(), zlib.decompressobj()
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_PIECE_BYTES):
                digest.update(inflate.decompress(piece))
        digest.update(inflate.flush())
    except (OSError, zlib.error):
        return False
    return inflate.eof and digest.hexdigest() == name


async def fill_gaps(repository: Repository, find: Finder) -> int:
    """Put back what is missing and can be found; return how many objects came back."""
    returned = 0
    tried: set[str] = set()
    while True:
        done = await ask_git(
            repository, "fsck", "--full", "--no-dangling", "--no-progress", "--connectivity-only"
        )
        text = done.out.decode("utf-8", "replace")
        new = {oid: kind for kind, oid in _MISSING.findall(text) if oid not in tried}
        if not new:
            return returned
        tried.update(new)
        for oid, kind in new.items():
            found = await find(ObjectId(oid), kind)
            if found is not None and found.oid == oid:
                await trio.to_thread.run_sync(write_loose, repository.write_dir, [found])
                returned += 1


def drop_bad_ref_files(repository: Repository, files: Iterable[Path], lost: Lost) -> None:
    """Move reference files to `lost` that hold no object id."""
    for file in files:
        lost.keep(file, "refs")


def bad_ref_files(repository: Repository) -> list[Path]:
    """Return the files of the branch and of our references that hold neither an id nor a reference."""
    git_dir = repository.git_dir
    files = [git_dir / repository.branch_ref, *(git_dir / CAIA_REFS).rglob("*")]
    return [
        file
        for file in files
        if file.is_file()
        and file.suffix != ".lock"
        and not re.fullmatch(rb"([0-9a-f]{40}|ref: refs/\S+)\s*", _bytes(file))
    ]


async def drop_broken_refs(repository: Repository, names: Iterable[str], lost: Lost) -> None:
    """Take references of ours away; what they named is noted, and kept under refs/caia/lost/ where it is whole."""
    for name in names:
        oid = repository.refs.read(name)
        if oid is None:
            continue
        if await is_whole(repository, oid):
            # Never twice the same commit under one name: an older one is the same.
            kept = f"{CAIA_REFS}lost/{oid}"
            repository.refs.update(kept, oid, expected=repository.refs.read(kept))
        repository.refs.update(name, None, expected=oid)
        lost.note(f"reference {name} was at {oid}")


async def is_whole(repository: Repository, oid: ObjectId) -> bool:
    """Whether everything that a commit reaches is here."""
    done = await ask_git(repository, "rev-list", "--objects", "--quiet", oid)
    return done.code == 0


async def unreadable_refs(repository: Repository) -> list[str]:
    """Return our references, but for lost ones, that do not reach everything they should."""
    found = []
    for name, oid in repository.refs.names(CAIA_REFS).items():
        is_ours = name == META_REF or name.startswith(f"{CAIA_REFS}govc/")
        if is_ours and not await is_whole(repository, oid):
            found.append(name)
    return found


async def find_newest_whole(repository: Repository, known: Iterable[ObjectId]) -> ObjectId | None:
    """Return the newest commit of documents that is whole: of `known` and of all that are in the repository."""
    listed = await ask_git(
        repository, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)"
    )
    names = re.findall(rb"^commit ([0-9a-f]{40})$", listed.out, re.MULTILINE)
    history = CommitLog(repository.new_reader())
    records: dict[ObjectId, CommitRecord] = {}
    for oid in {*known, *(ObjectId(name.decode()) for name in names)}:
        try:
            record = history.commit(oid)
        except CaiaError:
            continue
        if not record.message.startswith(_NO_DOCUMENTS):
            records[oid] = record
    branches = repository.refs.names("refs/heads/")
    others = {oid for name, oid in branches.items() if name != repository.branch_ref}
    for oid in rank_heads(records, set(known), others)[:_CANDIDATES_MAX]:
        if await is_whole(repository, oid):
            return oid
    return None


def rank_heads(
    records: Mapping[ObjectId, CommitRecord], known: set[ObjectId], others: set[ObjectId]
) -> list[ObjectId]:
    """Return what a lost branch may have been at, the likeliest first.

    That is our own commits, those that a mount took in, and what others built on these: their pushes have no mark of ours.

    Args:
        records: all commits of documents.
        known: what a state DB saw at the head of the branch.
        others: where other branches are; what only they lead to is theirs.
    """
    ours = {oid for oid, record in records.items() if writer_of(record.message)}
    ours |= known & set(records)
    children: dict[ObjectId, list[ObjectId]] = {}
    for oid, record in records.items():
        for parent in record.parents:
            children.setdefault(parent, []).append(oid)
    above = {oid: record.parents for oid, record in records.items()}
    theirs = _reached(others & set(records), lambda oid: above.get(oid, ()), ours)
    found = _reached(ours, lambda oid: children.get(oid, ())) - theirs or set(records)
    newer = _reached(known & set(records), lambda oid: children.get(oid, ()))
    parents = {parent for oid in found for parent in records[oid].parents}
    return sorted(
        found,
        key=lambda oid: (oid not in parents, oid in newer, records[oid].committer.time_ns),
        reverse=True,
    )


def _reached(
    start: set[ObjectId],
    following: Callable[[ObjectId], Iterable[ObjectId]],
    end: Container[ObjectId] = (),
) -> set[ObjectId]:
    """Return what can be reached, the start included; `end` is not passed, nor part of it."""
    found: set[ObjectId] = set()
    waiting = list(start)
    while waiting:
        oid = waiting.pop()
        if oid not in found and oid not in end:
            found.add(oid)
            waiting += following(oid)
    return found


async def move_branch(repository: Repository, to: ObjectId, lost: Lost) -> None:
    """Set the branch, which leads nowhere, to a commit; where it was is noted."""
    try:
        before = repository.refs.read(repository.branch_ref)
    except StoreError:
        before = None
    repository.refs.update(repository.branch_ref, to, expected=before)
    lost.note(f"{repository.branch_ref} was at {before}, and is at {to} now")
