"""Composition root of the mount process: builds its parts and holds them.

Used by app. Nothing here awaits except where a part of the store process has to answer.
"""

import contextlib
import logging
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from caiafs.backends.git.attribute_trees import META_REF, SavedTrees
from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.repository import Repository
from caiafs.cache.disk import DiskCache, empty
from caiafs.cache.memory import BlobCache
from caiafs.core import machine
from caiafs.core.config import Config
from caiafs.core.errors import CaiaError, NotFound
from caiafs.core.types import ROOT_INODE, ObjectId
from caiafs.fuse.invalidate import KernelCache
from caiafs.fuse.operations import Parts
from caiafs.state import paths
from caiafs.state.database import StateDatabase
from caiafs.state.journal import Journal
from caiafs.state.spool import Spool
from caiafs.store_link import StoreLink
from caiafs.vfs.attributes import Attributes
from caiafs.vfs.conflicts import Conflicts
from caiafs.vfs.contents import Contents, Limits
from caiafs.vfs.damage import Damage
from caiafs.vfs.document_ids import DocumentIds
from caiafs.vfs.files import FilePolicy, Files
from caiafs.vfs.hashing import Hasher
from caiafs.vfs.inode import Inode
from caiafs.vfs.listing import Listings
from caiafs.vfs.local_names import LocalNames
from caiafs.vfs.namespace import Namespace
from caiafs.vfs.notes import Notes
from caiafs.vfs.publication import Publication
from caiafs.vfs.recovery import recover
from caiafs.vfs.remote import Remote
from caiafs.vfs.resolution import Resolver
from caiafs.vfs.restore import Restorer
from caiafs.vfs.settlement import Settlement
from caiafs.vfs.table import InodeTable
from caiafs.vfs.transactions import Transactions
from caiafs.vfs.versions import Versions

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountProcess:
    """Every part of the mount process that has a life of its own."""

    config: Config
    repository: Repository
    db: StateDatabase
    journal: Journal
    table: InodeTable
    cache: BlobCache
    disk_cache: DiskCache
    contents: Contents
    publication: Publication
    hasher: Hasher
    namespace: Namespace
    attributes: Attributes
    ids: DocumentIds
    files: Files
    listings: Listings
    kernel: KernelCache
    remote: Remote
    settlement: Settlement
    versions: Versions
    resolver: Resolver
    notes: Notes
    transactions: Transactions
    damage: Damage

    @property
    def conflicts(self) -> Conflicts:
        """The open conflicts."""
        return self.versions.conflicts

    def parts(self) -> Parts:
        """Return what the FUSE handlers speak for."""
        return Parts(
            table=self.table,
            namespace=self.namespace,
            attributes=self.attributes,
            ids=self.ids,
            files=self.files,
            listings=self.listings,
            state_dir=str(self.db.state_dir),
            db=self.db,
        )


class _Base(NamedTuple):
    """What everything else is built on."""

    journal: Journal
    spool: Spool
    cache: BlobCache
    restorer: Restorer
    table: InodeTable
    contents: Contents


def build(
    config: Config, repository: Repository, db: StateDatabase, link: StoreLink
) -> MountProcess:
    """Build the parts, bring the state DB to where a mount begins, and tie `link` to them.

    Raises:
        StateCorrupt: the state DB cannot be used as it is.
        Corrupt, NotFound: git does not have what the branch names.
    """
    base = _build_base(config, repository, db, link)
    journal, table, contents, spool = base.journal, base.table, base.contents, base.spool
    damage = Damage(journal, table, contents, base.cache)
    hasher = Hasher(journal, table, contents, spool, set_aside=damage.set_aside_content)
    notes = Notes(journal)
    local_names = LocalNames(config.local_patterns)
    publication = Publication(
        journal, table, contents, local_names, notes=notes, hash_later=hasher.add
    )
    namespace = Namespace(journal, table, contents, publication)
    kernel = KernelCache()
    files = Files(
        journal, table, contents, publication, namespace, policy=_policy(config), stored=link
    )
    attributes = Attributes(
        journal, table, contents, publication, notes=notes, max_file_bytes=config.max_file_bytes
    )
    conflicts = Conflicts(journal, table, repository.reader, link)
    transactions = _transactions(config, journal, files)
    resolver = Resolver(
        conflicts, table, contents, (namespace, publication), transactions, kernel=kernel
    )
    built = MountProcess(
        config=config,
        repository=repository,
        db=db,
        journal=journal,
        table=table,
        cache=base.cache,
        disk_cache=DiskCache(paths.cache(db.state_dir), max_bytes=config.disk_cache_bytes),
        contents=contents,
        publication=publication,
        hasher=hasher,
        namespace=namespace,
        attributes=attributes,
        ids=DocumentIds(journal, table, publication, published=link),
        files=files,
        listings=Listings(table),
        kernel=kernel,
        remote=Remote(journal, table, namespace, publication, kernel=kernel),
        settlement=Settlement(journal, table, spool),
        notes=notes,
        transactions=transactions,
        versions=Versions(conflicts, table, files, contents),
        resolver=resolver,
        damage=damage,
    )
    _begin(built, base.restorer)
    _take_up(built, spool)
    link.tie(built)
    return built


def _build_base(
    config: Config, repository: Repository, db: StateDatabase, link: StoreLink
) -> "_Base":
    journal = Journal(db)
    spool = Spool(db.state_dir)
    cache = BlobCache(max_bytes=config.cache_bytes, max_entries=config.cache_entries)
    restorer = Restorer(journal, SavedTrees(repository.reader), trust=config.trust_meta)
    table = InodeTable(journal, repository.reader, restorer, now_ns=time.time_ns)
    contents = Contents(
        journal, spool, objects=repository.reader, loader=link, cache=cache, limits=_limits(config)
    )
    return _Base(journal, spool, cache, restorer, table, contents)


def _transactions(config: Config, journal: Journal, files: Files) -> Transactions:
    def make_versions() -> None:
        files.settle_everything(unflushed=False)

    return Transactions(
        journal,
        make_versions=make_versions,
        max_age_s=config.transaction_max_age_s,
        max_ops=config.pending_max_versions,
    )


def _take_up(built: MountProcess, spool: Spool) -> None:
    """Go on where the last mount ended."""
    built.files.on_released = built.remote.released
    built.damage.load()
    built.hasher.resume()
    recover(
        built.journal,
        spool,
        built.table,
        built.namespace,
        contents=built.contents,
        publication=built.publication,
        damage=built.damage,
    )


def _limits(config: Config) -> Limits:
    # What is kept in a row is never a plain file of the disk cache.
    small_object = max(config.small_object_bytes, config.inline_max_bytes)
    return Limits(inline_max=config.inline_max_bytes, small_object=small_object)


def _policy(config: Config) -> FilePolicy:
    return FilePolicy(
        commit=config.commit,
        max_age_s=config.commit_max_age_s,
        max_file_bytes=config.max_file_bytes,
        reserve_bytes=config.reserve_bytes,
        pending_max_bytes=config.pending_max_bytes,
    )


def _begin(built: MountProcess, restorer: Restorer) -> None:
    """Give a new state DB its root and identity; a DB that was copied gets a new identity."""
    db = built.db
    head = built.repository.head_commit()
    is_new = not db.rows("SELECT 1 FROM inode WHERE ino=?", ROOT_INODE)
    known = head if is_new else db.meta("known_commit")
    if known:
        with contextlib.suppress(NotFound):  # of a repository that was replaced: see sync.rebase
            commit = CommitLog(built.repository.reader).commit(ObjectId(known))
            built.table.import_time_ns = commit.committer.time_ns
    if is_new:
        root = built.table.make_root(built.repository.tree_of(head))
        _restore(built, restorer, root)
        db.set_meta("known_commit", head)
        built.journal.commit()
    boot = _BOOT_ID.read_text().strip()
    if db.meta("boot_id") != boot:
        # Nobody syncs the cache: after a power cut its files may be short, or zeros.
        empty(paths.cache(db.state_dir))
        db.set_meta("boot_id", boot)
    home = _home(db.state_dir)
    if db.meta("home") != home:
        # The same identity in two places would take the other's commits for its own.
        db.set_meta("writer_id", secrets.token_hex(4))
        db.set_meta("home", home)


def _restore(built: MountProcess, restorer: Restorer, root: Inode) -> None:
    """Let a new state DB begin with the attributes that an earlier one saved in git."""
    try:
        newest = built.repository.refs.read(META_REF)
        if newest is None:
            return
        commit = CommitLog(built.repository.reader).commit(newest)
    except CaiaError as exc:
        log.warning("attributes saved in git are left out: %s", exc)
        return
    sealed = dict(commit.trailers).get(machine.SEAL_TRAILER, "")
    restorer.begin(root, commit.tree, here=machine.is_sealed(commit.tree, sealed))
    built.table.children(root)  # the kernel asks for the root's own attributes first
    restorer.join_links(root, built.table, commit.tree)


def _home(state_dir: Path) -> str:
    """Return what tells this state directory from a copy of it."""
    status = state_dir.stat()
    return f"{machine.machine_id()}:{status.st_dev}:{status.st_ino}"
