"""What the store process is made of: one value that `sync.assembly` fills and hands on."""

from dataclasses import dataclass

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.repository import Repository
from caiafs.store.catchup import CatchUp
from caiafs.store.comparison import Comparison
from caiafs.store.govc_store import GovcStore
from caiafs.store.hybrid import HybridStore
from caiafs.store.tally import Tally
from caiafs.sync.contents import Contents
from caiafs.sync.document_history import DocumentHistory
from caiafs.sync.documents import Documents
from caiafs.sync.follower import Follower
from caiafs.sync.foreign import ForeignCommits
from caiafs.sync.published import Published
from caiafs.sync.publisher import PublisherParts
from caiafs.sync.pushes import Pushes
from caiafs.sync.remote import Remote


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts; None where the configuration wants none."""

    repository: Repository
    git: GitBackend
    govc: GovcStore | None
    catch_up: CatchUp | None
    comparison: Comparison | None
    stores: HybridStore
    tally: Tally
    contents: Contents
    published: Published
    pushes: Pushes
    follower: Follower
    foreign: ForeignCommits | None
    remote: Remote | None
    publisher_parts: PublisherParts
    documents: Documents
    history: DocumentHistory
