"""Checks the repository: every object by git itself, the branch, and the references that caiafs keeps.

Used by `fsck`. What git names by its id is told by the documents that it means.
"""

import re
from collections.abc import Iterable

from caiafs.backends.git.attribute_trees import META_REF
from caiafs.backends.git.log import CommitLog, CommitRecord
from caiafs.backends.git.objects import ObjectReader
from caiafs.backends.git.repository import Repository
from caiafs.core.errors import CaiaError, Corrupt, NotFound
from caiafs.core.types import DocPath, ObjectId, display
from caiafs.store.cursors import GOVC_REFS, cursor_ref, refused_in
from caiafs.upkeep.findings import Finding, Kind
from caiafs.upkeep.git_run import ask_git
from caiafs.upkeep.place import Place

_ID = re.compile(r"\b[0-9a-f]{40}\b")
_NOISE = ("dangling ", "notice: ", "Checking ", "broken link from", "Verifying ")
_FIELD = re.compile(r"^(Head|Newest|Published|Url|Repository|Dialect): (.+)$", re.MULTILINE)
_FIELDS = {"Head", "Newest", "Published", "Url", "Repository", "Dialect"}
_COMMIT_ID = re.compile(r"[0-9a-f]{40}|-")
CAIA_REFS = "refs/caia/"
_SHOWN = 3


async def check_repository(place: Place) -> list[Finding]:
    """Return what is wrong with objects, branch and references."""
    repository = place.repository
    found = check_branch(repository)
    found += check_caia_refs(repository)
    known = {finding.subject for finding in found}
    done = await ask_git(repository, "fsck", "--strict", "--full", "--no-dangling", "--no-progress")
    if done.code:
        text = (done.out + b"\n" + done.err).decode("utf-8", "replace")
        found += _objects(repository, text.splitlines(), known)
    return found


def check_branch(repository: Repository) -> list[Finding]:
    """Return a finding where the branch is set and leads to no readable commit."""
    try:
        head = repository.head_commit()
        if head is not None:
            repository.tree_of(head)
            repository.reader.raw_tree(repository.tree_of(head))
    except CaiaError as exc:
        return [
            Finding(
                Kind.BRANCH,
                repository.branch_ref,
                str(exc),
                "no document can be read, and a mount does not start",
                "moves it to the newest whole commit and notes where it was",
                subject=repository.branch_ref,
            )
        ]
    return []


def check_caia_refs(repository: Repository) -> list[Finding]:
    """Return what is wrong with refs/caia/*."""
    found = []
    for name, oid in repository.refs.names(CAIA_REFS).items():
        try:
            history = CommitLog(repository.reader)
            record = history.commit(oid)
            repository.reader.raw_tree(record.tree)
        except CaiaError as exc:
            found.append(_broken_ref(name, str(exc)))
            continue
        if name.startswith(GOVC_REFS):
            wrong = _cursor_fault(repository, history, name, record)
            if wrong:
                found.append(_wrong_cursor(name, wrong))
    return found


def _broken_ref(name: str, why: str) -> Finding:
    if name.startswith(GOVC_REFS):
        return _wrong_cursor(name, why)
    meaning = "what it kept cannot be read"
    if name == META_REF:
        meaning = "saved owners, modes and times cannot be read; the state database has them too"
    return Finding(
        Kind.REFERENCE, name, why, meaning, "drops it and notes where it was", subject=name
    )


def _wrong_cursor(name: str, why: str) -> Finding:
    return Finding(
        Kind.CURSOR,
        name,
        why,
        "what govc holds is not known, and documents could be taken for sent",
        f"moves it below {CAIA_REFS}lost/; the next mount compares govc with git",
        subject=name,
    )


def _cursor_fault(
    repository: Repository, history: CommitLog, name: str, record: CommitRecord
) -> str:
    """Return what is wrong with a cursor, empty where nothing is."""
    fault = _message_fault(name, record.message)
    published = dict(_FIELD.findall(record.message)).get("Published", "-")
    if fault or published == "-":
        return fault
    try:
        tree = history.commit(ObjectId(published)).tree
    except CaiaError:
        return f"it names commit {published}, which is not in the repository"
    if tree != record.tree:
        return f"it says that govc holds commit {published}, and has another tree"
    head = repository.head_commit()
    if head is None or not history.is_ancestor(ObjectId(published), head):
        return f"it names commit {published}, which the branch does not lead to"
    return ""


def _message_fault(name: str, message: str) -> str:
    fields = dict(_FIELD.findall(message))
    if set(fields) != _FIELDS or not message.startswith("What govc holds\n"):
        return "it is no cursor that caiafs wrote"
    if cursor_ref(fields["Url"], fields["Repository"]) != name:
        return f"it tells of another govc: {fields['Url']}, {fields['Repository']}"
    if not _COMMIT_ID.fullmatch(fields["Published"]):
        return "the commit that it names is none"
    if any(0 in path for path in refused_in(message)):
        return "it names a document that cannot be"
    return ""


def _objects(repository: Repository, lines: Iterable[str], known: set[str]) -> list[Finding]:
    """Return a finding for each object that git complains of, by what it means."""
    said: dict[str, str] = {}
    for line in lines:
        text = line.strip()
        if not text or text.startswith(_NOISE) or text.startswith("to "):
            continue
        ids = _ID.findall(text)
        key = ids[0] if ids else text
        # "missing" says most; git repeats itself in other words.
        if key not in said or text.startswith("missing "):
            said[key] = text
    if not said:
        return []
    documents = documents_with(repository, {ObjectId(key) for key in said if len(key) == 40})
    found = []
    for key, text in said.items():
        if any(subject and subject in text for subject in known):
            continue  # a reference that is told of already
        paths = documents.get(ObjectId(key), [])
        found.append(
            Finding(
                Kind.OBJECT,
                f"object {key}" if len(key) == 40 else "repository",
                text.removeprefix("error: ").removeprefix("fatal: "),
                _meaning(paths),
                "keeps it aside, and looks for it in the state directory and in govc",
                subject=key if len(key) == 40 else "",
            )
        )
    return found


def _meaning(paths: list[DocPath]) -> str:
    if not paths:
        return "no current document needs it, but earlier versions may"
    shown = ", ".join(display(path) for path in paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{shown}{more} cannot be read"


def documents_with(repository: Repository, wanted: set[ObjectId]) -> dict[ObjectId, list[DocPath]]:
    """Return the current documents that are, or lie in, one of the objects `wanted`."""
    try:
        tree = repository.tree_of(repository.head_commit())
    except CaiaError:
        return {}
    found: dict[ObjectId, list[DocPath]] = {}
    waiting = [(DocPath(b""), tree)]
    while waiting:
        directory, oid = waiting.pop()
        if oid in wanted:
            found.setdefault(oid, []).append(DocPath(directory + b"/"))
        for path, child, is_dir in _children(repository.reader, directory, oid):
            if is_dir:
                waiting.append((path, child))
            elif child in wanted:
                found.setdefault(child, []).append(path)
    return found


def _children(
    reader: ObjectReader, directory: DocPath, tree: ObjectId
) -> list[tuple[DocPath, ObjectId, bool]]:
    try:
        entries = reader.read_tree(tree)
    except (NotFound, Corrupt):
        return []
    return [
        (DocPath(directory + b"/" + e.name if directory else e.name), e.oid, e.is_dir)
        for e in entries
    ]
