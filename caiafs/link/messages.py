"""What the mount process and the store process say to each other.

Frozen dataclasses, one frame each (see `link.channel`). Paths travel as str, UTF-8 with
surrogateescape, so that any bytes survive JSON; `to_text` and `to_path` convert. Every request
carries an id that its reply repeats.
"""

from dataclasses import dataclass, field

from caiafs.core.types import Change, DocPath, ObjectId


def to_text(path: bytes) -> str:
    """Return `path` as it travels."""
    return path.decode("utf-8", "surrogateescape")


def to_path(text: str) -> DocPath:
    """Return the bytes that `to_text` was given."""
    return DocPath(text.encode("utf-8", "surrogateescape"))


# --- from the mount process to the store process


@dataclass(frozen=True, slots=True)
class Start:
    """First message: where things are and how to behave.

    Attributes:
        config: `core.config.Config` as `config_to_json` gives it; secrets travel here, not in argv.
        state_dir: absolute path of the state directory.
        settled_seq: newest op that the mount knows to be settled.
        known_commit: the commit whose tree the state DB last took in; None for a fresh one.
        writer_id: eight hexadecimal digits, in every operation id.
    """

    config: str
    state_dir: str
    settled_seq: int
    known_commit: ObjectId | None
    writer_id: str


@dataclass(frozen=True, slots=True)
class Due:
    """Ops up to `last_seq` are committed in the state DB and may be published.

    `urgent` says that somebody waits: the group is cut without the settling pause.
    """

    last_seq: int
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """All `Changes` up to `number` are taken in; ops after `last_seq` were logged later than that."""

    number: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class ConflictCopiesRequest:
    """Look for conflict copies in the whole published tree; answer with `ConflictCopiesDone`."""

    request_id: int


@dataclass(frozen=True, slots=True)
class OriginsRequest:
    """Say where these conflict copies come from; answer with `OriginsDone`."""

    request_id: int
    copies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """Publish everything up to `last_seq` to every configured store, then say `SyncDone`."""

    request_id: int
    last_seq: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """Say `StoredDone` when ops up to `last_seq` are settled (commit=close)."""

    request_id: int
    last_seq: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Look these paths up in govc and take in what differs; answer with `FetchDone`."""

    request_id: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Put blob `oid` into the disk cache as a plain file; answer with `LoadDone`."""

    request_id: int
    oid: ObjectId


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """Merge govc and git though they never met; answer with `AdoptDone`."""

    request_id: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ResetMetrics:
    """Forget latencies and counts so far."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Publish what is pending within `grace_s`, say `Stopped`, end."""

    grace_s: float


# --- from the store process to the mount process


@dataclass(frozen=True, slots=True)
class Ready:
    """The repository is open; nothing was published yet.

    What the mount does not know of the branch follows as `Changes`, what it does not know to be settled as `Settled`.

    Attributes:
        commit: head of the branch; None where the branch has no commit.
        tree: its tree; EMPTY_TREE without a commit.
    """

    commit: ObjectId | None
    tree: ObjectId


@dataclass(frozen=True, slots=True)
class Current:
    """What happened to the branch while nothing was mounted has been told."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Ops up to `last_seq` are in commit `commit`, which a ref on disk reaches."""

    last_seq: int
    commit: ObjectId
    tree: ObjectId


@dataclass(frozen=True, slots=True)
class Damaged:
    """What op `seq` puts cannot be read: it is to be set aside, and `Due` said again."""

    seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Changes:
    """The published tree has content that the mount did not write, or not that way.

    Attributes:
        commit: head of the branch that holds them.
        last_seq: newest op that went into that commit.
        changes: per path; applied where the path shows `before` and no op after `last_seq` touches
            it, else left to that op. Sent again where it is unknown whether the mount has them.
        trees: ids of the directories that changed, for those the mount has not loaded; path to
            tree id.
        commit_time_ns: time that new content shows as its mtime.
        conflicts: paths among `changes` that are conflict copies.
        is_last: nothing more belongs to this commit; large ones come in several messages.
        number: what `Seen` names once it is taken in.
    """

    commit: ObjectId
    last_seq: int
    changes: tuple[Change, ...]
    trees: dict[str, ObjectId] = field(default_factory=dict)
    commit_time_ns: int = 0
    conflicts: tuple[str, ...] = ()
    is_last: bool = True
    number: int = 0


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far a running `SyncRequest` is: documents left, for each store."""

    request_id: int
    left: dict[str, int]


@dataclass(frozen=True, slots=True)
class SyncDone:
    """Answer to `SyncRequest`: documents left for each store (all 0: done), and why."""

    request_id: int
    left: dict[str, int]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredDone:
    """Answer to `StoredRequest`; `error` is empty when stored."""

    request_id: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class FetchDone:
    """Answer to `FetchRequest`: paths found, paths that govc does not have, and an error or ""."""

    request_id: int
    found: tuple[str, ...]
    missing: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class LoadDone:
    """Answer to `LoadRequest`: the blob is in the disk cache; `error` is empty on success."""

    request_id: int
    oid: ObjectId
    size_bytes: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class AdoptDone:
    """Answer to `AdoptRequest`; `error` is empty where the two are brought together from now on."""

    request_id: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class ConflictCopiesDone:
    """Answer to `ConflictCopiesRequest`: their paths; `error` is empty on success."""

    request_id: int
    copies: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One side of a conflict: its blob, and the commit that brought it, as far as the history tells."""

    oid: ObjectId
    commit: ObjectId | None = None
    author: str = ""
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a conflict copy comes from, as the commit says that made it.

    Attributes:
        copy: its path.
        commit: that commit.
        base: what both versions started from, None where there was nothing.
        ours: what had the name then, None where a directory had.
        theirs: what is in the copy.
    """

    copy: str
    commit: ObjectId
    time_ns: int
    base: ObjectId | None
    ours: Version | None
    theirs: Version


@dataclass(frozen=True, slots=True)
class OriginsDone:
    """Answer to `OriginsRequest`, without those that the history does not explain."""

    request_id: int
    origins: tuple[Origin, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Statistics and health of the store process, JSON of `status.store_report.StoreReport`.

    Sent after every settled group and on every change of health, at most a few times a second.
    """

    report: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The store process cannot work and ends; it is started again later. `reason` is for health."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Last message: documents left for each store."""

    left: dict[str, int]


Request = (
    SyncRequest
    | StoredRequest
    | FetchRequest
    | LoadRequest
    | AdoptRequest
    | ConflictCopiesRequest
    | OriginsRequest
)
Reply = SyncDone | StoredDone | FetchDone | LoadDone | AdoptDone | ConflictCopiesDone | OriginsDone

Message = (
    Start
    | Due
    | Seen
    | ConflictCopiesRequest
    | OriginsRequest
    | SyncRequest
    | StoredRequest
    | FetchRequest
    | LoadRequest
    | AdoptRequest
    | ResetMetrics
    | Stop
    | Ready
    | Current
    | Settled
    | Damaged
    | Changes
    | SyncProgress
    | SyncDone
    | StoredDone
    | FetchDone
    | LoadDone
    | AdoptDone
    | ConflictCopiesDone
    | OriginsDone
    | Report
    | Failed
    | Stopped
)
