"""Opening a repository: which directory, which branch, and whether caiafs may move it.

Used at start by both processes. Synchronous: a few small files are read, and a new repository is a few small
files written and synced.
"""

import contextlib
import os
import re
from pathlib import Path

import pygit2
from pygit2.enums import RepositoryInitFlag, RepositoryOpenFlag

from caiafs.backends.git.objects import ObjectReader
from caiafs.backends.git.refs import RefStore
from caiafs.core.durable import sync_path
from caiafs.core.errors import ConfigError, Corrupt, Unreachable
from caiafs.core.types import EMPTY_TREE, ObjectId

DEFAULT_BRANCH = "main"
_HEADS = "refs/heads/"
_INITIAL_NAMES = frozenset(
    ("HEAD.lock", "config", "config.lock", "description", "hooks", "info", "objects", "refs")
)
EXIT_REPOSITORY = 5
"""See caiafs(1)."""

# git-check-ref-format(1), and no leading dash: the name is given to git commands.
_BAD_BRANCH = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(?:^|/)\.|\.lock(?:/|$)|^[-/]|[/.]$|^@$|^$"
)


class RepositoryUnusable(ConfigError):
    """The repository cannot be used; the message is one line and names the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=EXIT_REPOSITORY)


class Repository:
    """An open repository and the branch that holds the documents.

    Attributes:
        git_dir: the git directory; of a linked work tree the common one.
        object_dir: where new objects go when the repository itself is not written; else None.
        branch_ref: full name of the branch, "refs/heads/main".
        is_new: it was made just now.
        is_bare: it has no work tree.
        refs: its references.
        reader: its objects, for the thread that opened it; others make their own with `new_reader`.
    """

    def __init__(
        self,
        git_dir: Path,
        *,
        branch_ref: str,
        is_new: bool,
        is_bare: bool,
        object_dir: Path | None = None,
    ) -> None:
        self.git_dir = git_dir
        self.object_dir = object_dir
        self.branch_ref = branch_ref
        self.is_new = is_new
        self.is_bare = is_bare
        self.refs = RefStore(git_dir)
        self.reader = self.new_reader()
        self._identity = _identity_of(git_dir)

    def new_reader(self) -> ObjectReader:
        """Return a reader of its own, for another thread."""
        return ObjectReader(self.git_dir, object_dir=self.object_dir)

    def check_same(self) -> None:
        """Return if the repository is the one that was opened.

        Raises:
            Unreachable: its directory was moved away, or replaced.
        """
        if _identity_of(self.git_dir) != self._identity:
            raise Unreachable(
                f"{self.git_dir} is not the repository that was mounted: it was moved or replaced; nothing is"
                " written to it until it is put back or mounted anew",
                backend="git",
                operation="commit",
            )

    @property
    def write_dir(self) -> Path:
        """Where new objects are written."""
        return self.object_dir or self.git_dir / "objects"

    def head_commit(self) -> ObjectId | None:
        """Return the branch's newest commit, None while it has none."""
        return self.refs.read(self.branch_ref)

    def tree_of(self, commit: ObjectId | None) -> ObjectId:
        """Return a commit's tree; EMPTY_TREE for None.

        Raises:
            NotFound: there is no such commit.
            Corrupt: it cannot be read.
        """
        if commit is None:
            return EMPTY_TREE
        header = self.reader.read_commit(commit)
        if not header.startswith(b"tree ") or header[45:46] != b"\n":
            raise Corrupt(f"commit {commit} names no tree", backend="git", operation="read")
        return ObjectId(header[5:45].decode("ascii", "replace"))


def _identity_of(git_dir: Path) -> tuple[int, int] | None:
    try:
        found = git_dir.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_repository(
    path: Path, *, branch: str | None = None, create: bool = True, object_dir: Path | None = None
) -> Repository:
    """Open the repository at `path`, a work tree or a git directory; make a bare one where nothing is.

    A `branch` that does not exist yet starts where HEAD is. `object_dir` takes new objects instead of the
    repository, which must exist then.

    Raises:
        ConfigError: it cannot be used; the message is one line and names the way out.
    """
    if branch is not None and _BAD_BRANCH.search(branch):
        raise ConfigError(f"branch={branch!r} is no valid branch name")
    is_new = _is_vacant(path)
    if is_new:
        if not create or object_dir is not None:
            raise RepositoryUnusable(f"{path}: there is no repository")
        _init(path, branch or DEFAULT_BRANCH)
    found = _open(path)
    if object_dir is not None:
        object_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # libgit2 looks for no pack in a directory that had no pack/ when it was opened.
        (object_dir / "pack").mkdir(exist_ok=True)
    git_dir = _common_dir(Path(found.path))
    if object_dir is None:
        _refuse_foreign(git_dir, path)
    branch_ref = _HEADS + branch if branch else _head_branch(found, path)
    _refuse_checked_out(git_dir, branch_ref, path, is_bare=found.is_bare)
    repository = Repository(
        git_dir,
        branch_ref=branch_ref,
        is_new=is_new,
        is_bare=found.is_bare,
        object_dir=object_dir,
    )
    if branch and create and not is_new:
        _start_branch(repository, found)
    return repository


def _is_vacant(path: Path) -> bool:
    """Whether a repository may be made at `path`: missing, empty, or left over from a crash in `_init`."""
    try:
        content = {name for name in os.listdir(path) if not name.startswith("_git2_")}
    except FileNotFoundError:
        return True
    except NotADirectoryError as exc:
        raise RepositoryUnusable(f"{path}: is a file, not a repository") from exc
    except OSError as exc:
        raise RepositoryUnusable(f"{path}: {exc.strerror}") from exc
    return content <= _INITIAL_NAMES


def _init(path: Path, branch: str) -> None:
    try:
        # HEAD is written last by libgit2, so a crash before leaves what `_is_vacant` knows.
        pygit2.init_repository(
            str(path),
            bare=True,
            flags=RepositoryInitFlag.BARE | RepositoryInitFlag.MKPATH,
            initial_head=branch,
        )
        for name in ("config", "HEAD", "objects", "refs", "."):
            sync_path(path / name)
        sync_path(path.parent)
    except (pygit2.GitError, OSError) as exc:
        raise RepositoryUnusable(f"{path}: a repository cannot be made here: {exc}") from exc


def _open(path: Path) -> pygit2.Repository:
    try:
        return pygit2.Repository(str(path), RepositoryOpenFlag.NO_SEARCH)
    except (pygit2.GitError, KeyError) as exc:
        reason = str(exc)
        if "not owned" in reason:
            raise RepositoryUnusable(
                f"{path}: the repository belongs to another user; if you trust it: "
                f"git config --global --add safe.directory {path}"
            ) from exc
        if "object format" in reason:
            raise RepositoryUnusable(f"{path}: SHA-256 repositories are not supported") from exc
        if "not found" in reason.lower():
            raise RepositoryUnusable(
                f"{path}: is neither a git repository nor an empty directory"
            ) from exc
        raise RepositoryUnusable(f"{path}: {reason}") from exc


def _common_dir(git_dir: Path) -> Path:
    """Return the directory that all work trees of a repository share."""
    with contextlib.suppress(OSError):
        return (git_dir / (git_dir / "commondir").read_text().strip()).resolve()
    return git_dir.resolve()


def _refuse_foreign(git_dir: Path, path: Path) -> None:
    """Refuse where `commondir` leads into somebody else's repository; libgit2 looks at the owner of `path` only."""
    owner = git_dir.stat().st_uid
    if git_dir != path and owner != os.geteuid() and owner != path.stat().st_uid:
        raise RepositoryUnusable(f"{path}: its git directory {git_dir} belongs to user {owner}")


def _head_branch(found: pygit2.Repository, path: Path) -> str:
    head = found.lookup_reference("HEAD").target
    if isinstance(head, str) and head.startswith(_HEADS):
        return head
    raise RepositoryUnusable(f"{path}: HEAD is not on a branch; name one with branch=NAME")


def _refuse_checked_out(git_dir: Path, branch_ref: str, path: Path, *, is_bare: bool) -> None:
    """Refuse a branch that a work tree has checked out.

    Its next ordinary `git commit` would take everything back that was written here meanwhile.
    """
    heads = [] if is_bare else [git_dir / "HEAD"]
    heads += sorted(git_dir.glob("worktrees/*/HEAD"))
    for head in heads:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if head.read_text().strip() == f"ref: {branch_ref}":
                name = branch_ref.removeprefix(_HEADS)
                raise RepositoryUnusable(
                    f"{path}: branch {name} is checked out in a work tree, whose next commit would undo "
                    f"what is written here; use branch=NAME for another branch, or mount a bare clone "
                    f"(git clone --bare {path} NEW)"
                )


def _start_branch(repository: Repository, found: pygit2.Repository) -> None:
    if repository.head_commit() is not None or found.head_is_unborn:
        return
    start = ObjectId(str(found.head.target))
    repository.refs.update(repository.branch_ref, start, expected=None)
