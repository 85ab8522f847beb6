"""Repositories and trees for tests of the git backend, and what the git command says of them."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.pack import NewObject, new_object, write_pack
from caiafs.backends.git.repository import Repository, open_repository
from caiafs.backends.git.trees import edit_tree
from caiafs.core.types import EMPTY_TREE, Change, DocPath, Entry, GitMode, ObjectId
from tests.support.govc_documents import Contents


def git(git_dir: Path, *arguments: str, check: bool = True) -> str:
    """Run git in a repository and return what it says."""
    done = subprocess.run(
        ["git", "-C", str(git_dir), *arguments],
        capture_output=True,
        check=False,
    )
    said = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    assert not check or done.returncode == 0, said
    return said


def fsck(git_dir: Path) -> str:
    """Return what `git fsck --strict` finds; nothing is what one wants."""
    said = git(git_dir, "fsck", "--strict", "--full", "--no-dangling", check=False)
    return "".join(line for line in said.splitlines(True) if not line.startswith("notice: "))


def a_blob(content: bytes, mode: int = GitMode.FILE) -> tuple[Entry, NewObject]:
    item = new_object(b"blob", content)
    return Entry(mode, item.oid, len(content)), item


def a_tree(repository: Repository, documents: Mapping[bytes, bytes | Entry]) -> ObjectId:
    """Write a tree with these documents and return its id."""
    changes, items = [], []
    for path, content in sorted(documents.items()):
        entry = content
        if isinstance(entry, bytes):
            entry, item = a_blob(entry)
            items.append(item)
        changes.append(Change(DocPath(path), None, entry))
    write(repository, items)
    tree, objects = edit_tree(repository.reader, EMPTY_TREE, changes)
    write(repository, objects)
    return tree


def write(repository: Repository, items: list[NewObject]) -> None:
    if items:
        write_pack(repository.write_dir, list({item.oid: item for item in items}.values()))


def documents_of(repository: Repository, tree: ObjectId) -> dict[bytes, bytes]:
    """Return what a reader that has seen nothing before finds in a tree."""
    reader = repository.new_reader()
    return {bytes(path): reader.read_blob(entry.oid) for path, entry in reader.walk(tree)}


def a_backend(path: Path) -> tuple[GitBackend, Contents]:
    contents = Contents()
    return GitBackend(open_repository(path), contents), contents
