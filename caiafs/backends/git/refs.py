"""References: read, and moved by compare-and-swap, on disk before the call returns.

Used by `repository` and `backend`. `update` blocks for a few fsyncs: the store process calls it in a thread, one at
a time; each call opens the repository afresh, so that no state is shared between threads.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import pygit2
from pygit2.enums import RepositoryOpenFlag

from caiafs.core.durable import sync_path
from caiafs.core.errors import Corrupt, RevisionConflict, Unreachable
from caiafs.core.types import ObjectId

_REFLOG_IDENTITY = ("caiafs", "caiafs@localhost")
STALE_LOCK_S = 30.0
LOST = "refs/caia/lost/"
"""Below it stays what no branch has, so that no gc prunes it."""


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One reference's step; None is "no such reference", before (`expected`) or after (`new`)."""

    name: str
    new: ObjectId | None
    expected: ObjectId | None


class RefLocked(Unreachable):
    """Another process is moving this reference right now, or died while it did."""


class RefStore:
    """The references of one repository."""

    def __init__(self, git_dir: Path) -> None:
        self._git_dir = git_dir
        self._own_locks: Path | None = None
        # libgit2 syncs nothing by itself; this makes it sync a reference and its directory.
        pygit2.settings.enable_fsync_gitdir(True)

    def read(self, name: str) -> ObjectId | None:
        """Return what `name` points at, symbolic references followed; None where it does not exist."""
        with self._opened("read a reference") as repository:
            return _current(repository, name)

    def names(self, prefix: str) -> dict[str, ObjectId]:
        """Return the references below `prefix`, which ends in a slash."""
        with self._opened("list references") as repository:
            found = [name for name in repository.references if name.startswith(prefix)]
            targets = {name: _current(repository, name) for name in found}
        return {name: target for name, target in targets.items() if target is not None}

    def update(self, name: str, new: ObjectId | None, *, expected: ObjectId | None) -> None:
        """Move one reference; see `update_all`."""
        self.update_all([RefUpdate(name, new, expected)])

    def update_all(self, updates: Sequence[RefUpdate]) -> None:
        """Move references together: all are locked and compared before the first one moves.

        One that is where it should be already is left alone, so sending an update again is harmless.

        Raises:
            RevisionConflict: one is not where it was expected.
            RefLocked: another process is moving it; a moment later it may do.
        """
        with (
            self._opened("move a reference") as repository,
            repository.transaction() as transaction,
        ):
            for update in updates:
                transaction.lock_ref(update.name)
                self._mark_lock(update.name)
            for update in updates:
                current = _current(repository, update.name)
                if current == update.new:
                    continue
                if current != update.expected:
                    raise RevisionConflict(
                        f"{update.name} is at {current}, not at {update.expected}",
                        backend="git",
                        operation="commit",
                    )
                if update.new is None:
                    transaction.remove(update.name)
                else:
                    transaction.set_target(update.name, update.new, message="caiafs")
        for update in updates:
            self._unmark_lock(update.name)
            if update.expected is None or update.new is None:
                self._sync_parents(update.name)

    def mark_locks_in(self, directory: Path) -> None:
        """Give each lock that is taken a second name in `directory`, and remove those that a killed process left.

        The caller is the only one who may use `directory`: whoever took a lock that has a name there is dead. Somebody else's
        lock is never that file.
        """
        with contextlib.suppress(OSError):  # then a dead lock is one that is old
            directory.mkdir(mode=0o700, exist_ok=True)
            for mark in directory.iterdir():
                lock = self._lock_of(unquote(mark.name))
                with contextlib.suppress(FileNotFoundError):
                    if mark.samefile(lock):
                        lock.unlink()
                mark.unlink()
            self._own_locks = directory

    def _mark_lock(self, name: str) -> None:
        if self._own_locks is not None:
            self._unmark_lock(name)
            with contextlib.suppress(OSError):  # not every file system has hard links
                (self._own_locks / quote(name, safe="")).hardlink_to(self._lock_of(name))

    def _unmark_lock(self, name: str) -> None:
        if self._own_locks is not None:
            with contextlib.suppress(OSError):
                (self._own_locks / quote(name, safe="")).unlink()

    def _lock_of(self, name: str) -> Path:
        return self._git_dir / f"{name}.lock"

    def remove_stale_lock(self, name: str, now_s: float) -> bool:
        """Remove the lock that a killed process left on `name`; a live one is seconds old at most."""
        lock = self._lock_of(name)
        with contextlib.suppress(OSError):
            if now_s - lock.stat().st_mtime > STALE_LOCK_S:
                lock.unlink()
                return True
        return False

    def _sync_parents(self, name: str) -> None:
        """Sync the directories above a reference, which may be new; libgit2 syncs the last one only."""
        for parent in Path(name).parents:
            with contextlib.suppress(FileNotFoundError):
                sync_path(self._git_dir / parent)

    @contextlib.contextmanager
    def _opened(self, operation: str) -> Iterator[pygit2.Repository]:
        try:
            repository = pygit2.Repository(str(self._git_dir), RepositoryOpenFlag.NO_SEARCH)
            repository.set_ident(*_REFLOG_IDENTITY)
            yield repository
        except (pygit2.GitError, OSError) as exc:
            # libgit2 says "lock file" or "locked file", whichever step met it.
            kind = RefLocked if "lock" in str(exc) else Unreachable
            raise kind(f"cannot {operation}: {exc}", backend="git", operation="commit") from exc


def _current(repository: pygit2.Repository, name: str) -> ObjectId | None:
    try:
        reference = repository.lookup_reference(name).resolve()
    except KeyError:
        return None
    except ValueError as exc:
        raise Corrupt(f"reference {name}: {exc}", backend="git", operation="read") from exc
    return ObjectId(str(reference.target))
