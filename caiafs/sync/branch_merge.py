"""Merges another history into the published branch. Used by `pushes` and `remote_merge`, with `Published.lock` held.

A merge has their head as its first parent: what no document is (submodules, names that cannot be shown) stays as they have it.
"""

from dataclasses import dataclass

from caiafs.backends.git.backend import BuiltCommit, GitBackend
from caiafs.backends.git.log import CommitRecord
from caiafs.backends.git.objects import ObjectReader
from caiafs.core.types import ChangeSet, DocPath, Entry, ObjectId
from caiafs.sync.conflict_notes import trailers_of
from caiafs.sync.contents import Contents
from caiafs.sync.identity import Identities
from caiafs.sync.merge import Conflict, Side
from caiafs.sync.tree_merge import merge_changes

_LOOKS_MAX = 2000


@dataclass(frozen=True, slots=True)
class BranchMerged:
    """A merge that the branch points to.

    Attributes:
        built: the commit.
        theirs_time_ns: when their newest commit was written.
        copies: paths of the versions that were put beside.
    """

    built: BuiltCommit
    theirs_time_ns: int
    copies: list[DocPath]


class BranchMerge:
    """Commits merges of two heads."""

    def __init__(self, git: GitBackend, contents: Contents, identities: Identities) -> None:
        self._git = git
        self._contents = contents
        self._identities = identities

    async def commit(
        self, ours: ObjectId, theirs: ObjectId, subject: str, *, expected: ObjectId
    ) -> BranchMerged:
        """Merge `theirs` into `ours` and move the branch there from `expected`.

        Raises:
            RevisionConflict: the branch is elsewhere.
            Unreachable, Corrupt: something cannot be read, or the merge not be written.
        """
        git, history = self._git, self._git.log_of
        base_tree = git.repository.tree_of(history.merge_base(ours, theirs))
        mine, other = history.commit(ours), history.commit(theirs)
        result = merge_changes(
            self._contents,
            await git.diff(base_tree, mine.tree),
            await git.diff(base_tree, other.tree),
            ours_time_ns=mine.author.time_ns,
            theirs_time_ns=other.author.time_ns,
            time_of=lambda found: self._time_of(
                other if found.side is Side.THEIRS else mine, found
            ),
        )
        # Git's walks go by time: a merge is never older than what it merges, whatever our clock says.
        author = self._identities.own(max(mine.committer.time_ns, other.committer.time_ns))
        notes = "\n".join(trailers_of(result.conflicts))
        text = f"{subject}\n" + (f"\n{notes}\n" if notes else "")
        change_set = ChangeSet("", author, text, result.onto_theirs)
        built = await git.build_merge(change_set, (theirs, ours))
        await git.advance(built, expected)
        copies = [conflict.copy_path for conflict in result.conflicts]
        return BranchMerged(built, other.author.time_ns, copies)

    def _time_of(self, head: CommitRecord, conflict: Conflict) -> int:
        """Return when the version that goes beside was committed: all who merge it name its copy alike."""
        reader, history = self._git.repository.reader, self._git.log_of
        commit = head
        for _ in range(_LOOKS_MAX):
            having = (
                parent
                for parent in map(history.commit, commit.parents)
                if conflict.beside.same_content(_document(reader, parent.tree, conflict.path))
            )
            earlier = next(having, None)
            if earlier is None:
                break
            commit = earlier
        return commit.author.time_ns


def _document(reader: ObjectReader, tree: ObjectId, path: DocPath) -> Entry | None:
    found = reader.entry_at(tree, path)
    return Entry(int(found.mode), found.oid) if found is not None and not found.is_dir else None
