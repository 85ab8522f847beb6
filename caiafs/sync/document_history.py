"""Learns document ids from commits: what others committed, and what this mount did when its record of ids is lost.

One task of the store process, and `catch_up` for whoever is about to commit. Commits that nobody has looked at are read,
not the documents. Where neither the record nor `refs/caia/meta` tells of a commit that the branch still has, git searches
the messages of the whole history, once, in a process of its own; groups wait for that, saves do not.
"""

import logging
from collections.abc import Sequence

import trio

from caiafs.backends.git.attribute_trees import META_REF, SavedTrees
from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.command import git_environment, run_git
from caiafs.backends.git.log import CommitRecord
from caiafs.core.errors import CaiaError, NotFound
from caiafs.core.types import EMPTY_TREE, Change, DocPath, ObjectId
from caiafs.state.saved_documents import SavedDocuments, parse_documents
from caiafs.sync.document_trailers import Told, told_by
from caiafs.sync.documents import Documents
from caiafs.sync.published import Published

log = logging.getLogger(__name__)

_SEARCH = ("--grep=^Caiafs-Document: ", "--grep=^Caiafs-Moved: ")
_RETRY_S = 10.0


class DocumentHistory:
    """Keeps `Documents` at the published branch."""

    def __init__(self, documents: Documents, git: GitBackend, published: Published) -> None:
        self._documents = documents
        self._git = git
        self._published = published

    async def run(self) -> None:
        """Learn from what others commit, for ever."""
        while True:
            try:
                async with self._published.lock:
                    await self.catch_up()
            except CaiaError as exc:
                log.warning("ids of documents cannot be learned: %s", exc)
                await trio.sleep(_RETRY_S)
            if self._documents.commit == self._published.commit:
                await self._published.wait_moved()

    async def learn(self) -> None:
        """Learn from commits before the mount hears of them; never raises, and never searches the whole history."""
        if not self._documents.is_ready:
            return
        try:
            await self.catch_up()
        except CaiaError as exc:
            log.warning("ids of documents cannot be learned yet: %s", exc)

    async def catch_up(self) -> None:
        """Learn from all commits that are new; with `Published.lock` held."""
        documents, head = self._documents, self._published.commit
        if documents.commit == head and documents.is_ready:
            return
        if head is None:
            documents.restore((), (), None)
            return
        known = documents.commit
        if not documents.is_ready or known is None or not self._git.repository.reader.exists(known):
            known = await self._restore(head)
        if known != head:
            await self._follow(known, head)

    async def _restore(self, head: ObjectId) -> ObjectId:
        """Begin with what `refs/caia/meta` has, else with what the messages of all commits say."""
        saved = self._read_saved()
        if saved is not None and self._git.repository.reader.exists(saved.commit):
            self._documents.restore(saved.ids, saved.spent, saved.commit)
            return saved.commit
        await self._search(head)
        return head

    def _read_saved(self) -> SavedDocuments | None:
        try:
            newest = self._git.repository.refs.read(META_REF)
            if newest is None:
                return None
            tree = self._git.log_of.commit(newest).tree
            return parse_documents(SavedTrees(self._git.repository.reader).read_documents(tree))
        except CaiaError as exc:
            log.warning("the ids saved in git are left out: %s", exc)
            return None

    async def _search(self, head: ObjectId) -> None:
        """Read every commit that tells of ids, the oldest first."""
        repository = self._git.repository
        found = await run_git(
            repository.git_dir,
            "log",
            "--reverse",
            "--topo-order",
            "--format=%H",
            *_SEARCH,
            head,
            environment=git_environment(repository.object_dir, repository.git_dir),
        )
        self._documents.restore((), (), head)
        for oid in found.decode("ascii").split():
            await self._learn(self._git.log_of.commit(ObjectId(oid)))
        reader, tree = repository.reader, repository.tree_of(head)
        ids, spent = self._documents.everything()
        present = []
        for path, oid in ids:
            entry = reader.entry_at(tree, DocPath(path))
            if entry is not None and not entry.is_dir:
                present.append((path, oid))
        self._documents.restore(present, spent, head)

    async def _follow(self, known: ObjectId, head: ObjectId) -> None:
        history = self._git.log_of
        for record in reversed(history.between(known, head)):
            await self._learn(record)
        changes = await self._git.diff(self._tree(known), self._tree(head))
        self._documents.note(head, changes, Told())

    def _tree(self, commit: ObjectId) -> ObjectId:
        try:
            return self._git.repository.tree_of(commit)
        except NotFound:
            return EMPTY_TREE

    async def _learn(self, record: CommitRecord) -> None:
        """Note what one commit tells; what it removed is for the caller to see in the end."""
        told = told_by(record.message)
        if not told:
            return
        changes: Sequence[Change] = ()
        if told.moved:
            parent = self._tree(record.parents[0]) if record.parents else EMPTY_TREE
            changes = await self._git.diff(parent, record.tree)
        self._documents.note(self._documents.commit, changes, told)
