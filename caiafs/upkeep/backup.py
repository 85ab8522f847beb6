"""A backup: one git bundle with every reference of a repository, whole on the disk or not there at all.

Used by `caiafs backup`. A mount may be at work meanwhile: references are read first, and what they reach never goes away.
The bundle's first reference is the branch that holds the documents; `restore` relies on that.
"""

import contextlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from caiafs.core.durable import sync_path
from caiafs.core.errors import ConfigError, Corrupt
from caiafs.core.types import ObjectId
from caiafs.upkeep.bundle import check_pack, open_bundle
from caiafs.upkeep.git_run import ask_git, git_output
from caiafs.upkeep.place import Place, is_caia


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a bundle holds."""

    refs: int
    objects: int
    size_bytes: int


async def back_up(
    place: Place, target: Path, *, force: bool, advance: Callable[[int], None] = lambda _: None
) -> BackedUp:
    """Write all references of `place` and what they reach to `target`, synced and verified.

    Args:
        place: the repository.
        target: the file.
        force: replace what is there.
        advance: told how many bytes were written or read back.

    Raises:
        ConfigError: there is nothing of caiafs to back up, or `target` is taken.
        Corrupt: the repository is damaged, or the file is not what was written; `target` is as it was.
        Unreachable: the disk does not take it.
    """
    if not force and await trio.Path(target).exists():
        raise ConfigError(f"{target} is there already; --force replaces it", exit_code=1)
    refs = _refs(place)
    await _check_objects(place)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        # With HEAD among them a plain `git clone` of the file checks the documents out.
        names = [*refs, *(["HEAD"] if place.repository.refs.read("HEAD") else [])]
        await _write(place, names, temporary, advance)
        done = await trio.to_thread.run_sync(_verify, temporary, refs, advance)
        verified = await ask_git(place.repository, "bundle", "verify", "-q", str(temporary))
        if verified.code:
            raise Corrupt(f"git bundle verify: {verified.last_line}", backend="git")
        _put_in_place(temporary, target, force=force)
    except OSError as exc:
        raise ConfigError(f"cannot write {target}: {exc.strerror}", exit_code=1) from exc
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return done


def _refs(place: Place) -> dict[str, ObjectId]:
    """Return all references, the documents' branch first."""
    repository = place.repository
    head = repository.head_commit()
    if head is None:
        raise ConfigError(
            f"{place.config.repository} holds no commit yet: there is nothing to back up",
            exit_code=1,
        )
    refs = repository.refs.names("refs/")
    if not any(name.startswith("refs/caia/") for name in refs) and not is_caia(repository):
        raise ConfigError(
            f"{place.config.repository} holds nothing of caiafs; `git bundle create` backs it up",
            exit_code=1,
        )
    return {repository.branch_ref: head, **refs}


async def _check_objects(place: Place) -> None:
    """Read every object once: git copies packed ones into a bundle as they are."""
    found = await ask_git(
        place.repository, "fsck", "--full", "--no-dangling", "--no-reflogs", "--no-progress"
    )
    if found.code:
        raise Corrupt(
            f"the repository is damaged ({found.last_line}); caiafs fsck says what it means",
            backend="git",
        )


async def _write(
    place: Place, refs: list[str], temporary: Path, advance: Callable[[int], None]
) -> None:
    names = "\n".join(refs).encode("utf-8", "surrogateescape") + b"\n"
    listed = trio.Path(temporary.with_name(temporary.name + ".refs"))
    async with await trio.open_file(temporary, "xb") as file:
        try:
            # By a file: a repository may have more references than a command line takes.
            await listed.write_bytes(names)
            arguments = ("bundle", "create", "--version=2", "-q", "-", "--stdin")
            with open(listed, "rb") as stdin:  # noqa: ASYNC230  # a local name, opened at once
                async with git_output(place.repository, *arguments, stdin=stdin) as stream:
                    async for piece in stream:
                        await file.write(piece)
                        advance(len(piece))
            await file.flush()
            await trio.to_thread.run_sync(os.fsync, file.fileno())
        finally:
            await listed.unlink(missing_ok=True)


def _verify(path: Path, refs: dict[str, ObjectId], advance: Callable[[int], None]) -> BackedUp:
    """Read the file afresh: it names what was asked for, and has its checksum."""
    file, header = open_bundle(path)
    with file:
        missing = set(refs) - set(header.refs)
        if missing or next(iter(header.refs)) != next(iter(refs)):
            raise Corrupt("the bundle does not name every reference", backend="git")
        check_pack(file, header, advance)
    return BackedUp(len(header.refs), header.objects, path.stat().st_size)


def _put_in_place(temporary: Path, target: Path, *, force: bool) -> None:
    if force:
        temporary.replace(target)
    else:
        try:
            os.link(temporary, target)  # unlike rename it never replaces what came meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            temporary.rename(target)
    sync_path(target.parent)
