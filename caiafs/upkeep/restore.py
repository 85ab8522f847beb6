"""A repository made anew from a bundle: every object read and checked, every reference as it was, or nothing at all.

Used by `caiafs restore`. It is made beside its place and moved there when it is whole; from the bundle come objects and
references, never hooks or configuration.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import trio

from caiafs.backends.git.refs import RefUpdate
from caiafs.backends.git.repository import Repository, open_repository
from caiafs.core.durable import sync_path
from caiafs.core.errors import ConfigError, Corrupt, StoreError
from caiafs.upkeep.bundle import Header, NoBundle, check_pack, open_bundle
from caiafs.upkeep.git_run import PIECE_BYTES, check_objects, feed_git
from caiafs.upkeep.place import is_caia


@dataclass(frozen=True, slots=True)
class Restored:
    """What came out of a bundle."""

    branch: str
    refs: int
    objects: int


async def restore(
    bundle: Path, target: Path, *, advance: Callable[[int], None] = lambda _: None
) -> Restored:
    """Make the repository `target` from `bundle`; `target` is missing or an empty directory.

    Raises:
        NoBundle: the file is no bundle, or not one of a caiafs repository.
        ConfigError: `target` is taken or cannot be made.
        Corrupt: what is in the bundle does not check.
    """
    check_vacant(target)
    file, header = open_bundle(bundle)
    with file:
        branch = header.branch
        if branch is None:
            raise NoBundle(f"{bundle}: it holds no branch")
        await trio.to_thread.run_sync(_check_whole, file, header, bundle)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.restoring")
        try:
            temporary.mkdir(mode=0o777)
            await _fill(temporary, file, header, branch, advance)
            _put_in_place(temporary, target)
        except OSError as exc:
            raise ConfigError(f"cannot make {target}: {exc.strerror}", exit_code=1) from exc
        except StoreError as exc:
            raise Corrupt(f"{bundle}: {exc}", backend="git", operation="restore") from exc
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Restored(branch.removeprefix("refs/heads/"), len(header.refs), header.objects)


def check_vacant(target: Path) -> None:
    """Raise ConfigError where something is at `target` already, or no directory to make it in."""
    try:
        if target.is_symlink() or (target.exists() and (not target.is_dir() or os.listdir(target))):
            raise ConfigError(
                f"{target} is there already; restore makes a new repository, in a new place",
                exit_code=1,
            )
    except OSError as exc:
        raise ConfigError(f"{target}: {exc.strerror}", exit_code=1) from exc
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is not a directory", exit_code=1)


def _check_whole(file: BinaryIO, header: Header, bundle: Path) -> None:
    try:
        check_pack(file, header)
    except Corrupt as exc:
        raise Corrupt(f"{bundle}: {exc}", backend="git", operation="restore") from exc


async def _fill(
    directory: Path,
    file: BinaryIO,
    header: Header,
    branch: str,
    advance: Callable[[int], None],
) -> None:
    repository = open_repository(directory, branch=branch.removeprefix("refs/heads/"))
    printed = await index_pack(repository, file, header, advance)
    if printed.count(b"\n") > 1 or not printed.startswith(b"pack\t"):
        raise Corrupt("something follows its pack", backend="git")
    updates = [RefUpdate(name, oid, None) for name, oid in header.refs.items()]
    await trio.to_thread.run_sync(repository.refs.update_all, updates)
    if repository.refs.names("refs/") != header.refs:
        raise Corrupt("a reference is not what the bundle says", backend="git")
    await check_objects(repository)
    if not header.has_caia and not await trio.to_thread.run_sync(is_caia, repository):
        raise NoBundle(
            "it holds nothing of caiafs; `git clone --mirror` makes a repository of it, which can be mounted"
        )


async def index_pack(
    repository: Repository, file: BinaryIO, header: Header, advance: Callable[[int], None]
) -> bytes:
    """Give the bundle's pack to git, which checks each object; return what git printed."""

    async def feed(stdin: trio.abc.SendStream) -> None:
        file.seek(header.pack_offset)
        while piece := await trio.to_thread.run_sync(file.read, PIECE_BYTES):
            await stdin.send_all(piece)
            advance(len(piece))

    return await feed_git(repository, ("index-pack", "--stdin", "--strict", "--fix-thin"), feed)


def _put_in_place(temporary: Path, target: Path) -> None:
    for directory, _, _ in os.walk(temporary):
        sync_path(Path(directory))
    temporary.rename(target)  # onto an empty directory at most
    sync_path(target.parent)
