"""Builds the parts of the store process from its first message and runs them: its composition root.

Used by `store_process` only.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.repository import Repository, open_repository
from caiafs.backends.git.trees import changed_tree_ids
from caiafs.backends.govc import GovcBackend, GovcSettings
from caiafs.core import log as logs
from caiafs.core.config import Config
from caiafs.core.errors import CaiaError
from caiafs.core.locations import object_directory
from caiafs.core.types import EMPTY_TREE, NO_OBJECT, DocPath, ObjectId
from caiafs.link.channel import Channel
from caiafs.link.messages import Current, Ready, Settled, Start
from caiafs.state.reader import StateReader
from caiafs.store.catchup import CatchUp
from caiafs.store.comparison import Comparison
from caiafs.store.cursors import CursorStore
from caiafs.store.govc_store import GovcStore
from caiafs.store.hybrid import HybridStore
from caiafs.store.tally import Tally
from caiafs.sync.attributes import AttributeSaver, open_saver
from caiafs.sync.composition import Composer
from caiafs.sync.conflict_origins import ConflictHistory
from caiafs.sync.contents import Contents
from caiafs.sync.damage import DamageTeller
from caiafs.sync.document_history import DocumentHistory
from caiafs.sync.documents import Documents
from caiafs.sync.follower import Follower
from caiafs.sync.foreign import ForeignCommits
from caiafs.sync.groups import GroupLimits
from caiafs.sync.identity import Identities
from caiafs.sync.lasting import run_lasting
from caiafs.sync.late_source import LateSource
from caiafs.sync.merge import conflict_name, merge_text
from caiafs.sync.parts import Parts
from caiafs.sync.published import Published
from caiafs.sync.publisher import Publisher, PublisherParts, PublisherSettings
from caiafs.sync.pushes import Pushes
from caiafs.sync.rebase import find_difference
from caiafs.sync.recovery import (
    find_news,
    find_settled,
    find_unfinished,
    known_tree,
    pass_gap,
    read_settled,
)
from caiafs.sync.remote_assembly import build_remote, start_remote
from caiafs.sync.replaced import watch_repository
from caiafs.sync.replay import Merging
from caiafs.sync.reporter import Reporter
from caiafs.sync.service import Service
from caiafs.sync.store_report import compose_report

log = logging.getLogger(__name__)

_TRAILER_BYTES = 84_000
_FIRST_LOOK_S = 3.0
_REF_LOCKS = "ref-locks"


async def run_parts(channel: Channel, start: Start, config: Config, state: StateReader) -> None:
    """Open the repository, say Ready, publish and follow until the mount says Stop or is gone.

    Raises:
        ConfigError: the repository cannot be used.
        LinkClosed: the mount process died.
    """
    source = LateSource()
    known = start.known_commit if start.known_commit != NO_OBJECT else None
    repository = _open(config, Path(start.state_dir), is_known=known is not None)
    git = GitBackend(repository, source)
    contents = Contents(state, Path(start.state_dir), git.contents, repository.reader)
    source.become(contents)
    await trio.to_thread.run_sync(contents.remove_partial_files)
    head = repository.head_commit()
    history = CommitLog(repository.reader)
    settled = max(start.settled_seq, find_settled(history, head, known, start.writer_id))
    settled = pass_gap(state, settled)
    if known is not None and repository.reader.exists(known):
        # Where the branch was taken back or replaced while nothing was mounted, it is merged like a push.
        goes_on = head is not None and history.is_ancestor(known, head)
        head = head if goes_on else known
    published = Published(head, repository.tree_of(head), settled)
    identities = Identities(domain=config.author_domain)
    pushes = Pushes(git, published, contents, channel.send, identities)
    parts = _build(channel, start, config, state, (git, contents, published, pushes))
    try:
        await channel.send(Ready(published.commit, published.tree))
        await _tell_unheard(parts, state, start.settled_seq, known)
        if settled > start.settled_seq:
            # Last, with the commit that holds them: else the next start would take what they did for news.
            await channel.send(Settled(settled, published.commit or NO_OBJECT, published.tree))
        async with published.lock:
            await pushes.take()
            await parts.history.learn()
        async with trio.open_nursery() as nursery:
            if parts.remote is not None:
                await start_remote(parts.remote, published, nursery)
            await channel.send(Current())
            exact_last = await _find_exact_last(parts, state, start.writer_id)
            settings = replace(_publisher_settings(config, start.writer_id), exact_last=exact_last)
            publisher = Publisher(settings, parts.publisher_parts)
            saver = open_saver(
                config, Path(start.state_dir), git, lambda: publisher.is_idle, parts.documents
            )
            await _run(channel, parts, publisher, saver)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            if parts.govc is not None:
                await parts.govc.aclose()
            parts.documents.close()
            await git.aclose()


def _open(config: Config, state_dir: Path, *, is_known: bool) -> Repository:
    repository = open_repository(
        config.repository,
        branch=config.branch,
        create=not is_known,  # one that was moved away is not made anew
        object_dir=object_directory(config),
    )
    repository.refs.mark_locks_in(state_dir / _REF_LOCKS)
    return repository


def _build(
    channel: Channel,
    start: Start,
    config: Config,
    state: StateReader,
    core: tuple[GitBackend, Contents, Published, Pushes],
) -> Parts:
    git, contents, published, pushes = core
    govc = _build_govc(config, git, contents) if config.use_govc else None
    foreign = (
        ForeignCommits(govc, git, published, pushes, contents, writer_id=start.writer_id)
        if govc is not None
        else None
    )
    follower = Follower(published, pushes, govc, foreign, interval_s=config.poll_interval_s)
    tally = Tally(
        git, published, lambda: govc.cursor.tree if govc is not None and govc.cursor else None
    )
    writers = Identities(domain=config.author_domain)
    catch_up = (
        _build_catch_up(govc, git, published, (follower, tally, writers), start.writer_id)
        if govc is not None
        else None
    )
    comparison = (
        _build_comparison(govc, git, catch_up, follower, config)
        if govc is not None and catch_up is not None and config.enable_sync
        else None
    )
    stores = HybridStore(git, govc, catch_up, tally, config)
    if catch_up is not None:
        # As the primary it gets what fallback kept from it, whatever the settings.
        catch_up.in_background = config.enable_sync or stores.govc_is_primary

    documents = Documents(Path(start.state_dir))
    history = DocumentHistory(documents, git, published)
    pushes.learn = history.learn
    if govc is not None:
        govc.told_of = documents.told
    composer = Composer(start.writer_id, writers, git.repository.reader, documents, history)
    publisher_parts = _build_publisher_parts(channel, state, core, stores, follower, composer)
    return Parts(
        git.repository,
        git,
        govc,
        catch_up,
        comparison,
        stores,
        tally,
        contents,
        published,
        pushes,
        follower,
        foreign,
        build_remote(config, git, published, (pushes, contents)),
        publisher_parts,
        documents,
        history,
    )


def _build_publisher_parts(  # noqa: PLR0917  # each is a part
    channel: Channel,
    state: StateReader,
    core: tuple[GitBackend, Contents, Published, Pushes],
    stores: HybridStore,
    follower: Follower,
    composer: Composer,
) -> PublisherParts:
    git, contents, published, _ = core
    return PublisherParts(
        ops=state,
        contents=contents,
        reader=git.repository.reader,
        stores=stores,
        published=published,
        composer=composer,
        merging=_build_merging(git, contents, published),
        send=channel.send,
        take_in=follower.take_in,
        tell_damage=DamageTeller(contents, channel.send).tell,
    )


def _build_comparison(
    govc: GovcStore, git: GitBackend, catch_up: CatchUp, follower: Follower, config: Config
) -> Comparison:
    return Comparison(
        govc,
        git,
        catch_up,
        interval_s=config.sync_interval_s,
        take_foreign=follower.take_foreign,
    )


def _build_catch_up(
    govc: GovcStore,
    git: GitBackend,
    published: Published,
    others: tuple[Follower, Tally, Identities],
    writer_id: str,
) -> CatchUp:
    follower, tally, identities = others

    async def take_foreign(paths: Iterable[DocPath]) -> None:
        await follower.take_foreign(paths)

    return CatchUp(
        govc,
        git,
        published,
        writer_id=writer_id,
        author=identities.own,
        take_foreign=take_foreign,
        differing=tally.differing,
    )


def _build_merging(git: GitBackend, contents: Contents, published: Published) -> Merging:
    def foreign_time_ns(path: DocPath, _oid: ObjectId) -> int:
        noted = published.foreign_time_ns(path)
        if noted is not None or published.commit is None:
            return noted or 0
        return git.log_of.commit(published.commit).author.time_ns

    def merge(path: DocPath, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        return merge_text(base, ours, theirs, path=path)

    return Merging(contents.read_small, merge, conflict_name, foreign_time_ns)


def _build_govc(config: Config, git: GitBackend, contents: Contents) -> GovcStore:
    settings = GovcSettings.from_config(config)

    def make_backend(*, renewed: bool = False) -> GovcBackend:
        token = _read_token(config) if renewed else config.govc_auth_token
        logs.mask(token)
        return GovcBackend(replace(settings, token=token), contents)

    cursors = CursorStore(git, settings.url, settings.repo_name)
    return GovcStore(make_backend, cursors, config)


def _read_token(config: Config) -> str:
    """Return the token as its file has it now, else as it was configured."""
    if config.govc_auth_token_file is None:
        return config.govc_auth_token
    try:
        return config.govc_auth_token_file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return config.govc_auth_token


async def _tell_unheard(
    parts: Parts, state: StateReader, heard_seq: int, known: ObjectId | None
) -> None:
    """Tell the mount what came into the branch while it was not there to hear."""
    published, reader = parts.published, parts.repository.reader
    # Of a branch without a commit the mount has taken in all there was: nothing.
    before = EMPTY_TREE if known is None else known_tree(parts.git.log_of, known)
    if before is None and known is not None:
        await _rebase(parts, state, known)
    elif before is not None and before != published.tree:
        ops = read_settled(state, heard_seq, published.settled_seq)
        news = find_news(reader, before, await parts.git.diff(before, published.tree), ops)
        trees = changed_tree_ids(reader, before, published.tree)
        await parts.pushes.tell(news, trees, published.commit)


async def _rebase(parts: Parts, state: StateReader, known: ObjectId) -> None:
    """Bring the mount to the branch though the commit that it showed last is not in the repository."""
    published, repository = parts.published, parts.repository
    # One connection, which nobody else uses before this returns.
    found = await trio.to_thread.run_sync(
        lambda: find_difference(state, repository.new_reader(), published.tree)
    )
    parts.pushes.replaced = (
        f"the repository does not have commit {known}, which this mount showed last: it was restored from a"
        f" backup or replaced; {found.lost} documents that were saved since are not in it"
    )
    log.error("%s", parts.pushes.replaced)
    await parts.pushes.tell(found.changes, found.trees, published.commit, always=True)


async def _find_exact_last(parts: Parts, state: StateReader, writer_id: str) -> int:
    """Ask the primary for a group that it has and the branch has not: a crash came between the two."""
    govc, settled = parts.govc, parts.published.settled_seq
    following = state.next_seq(settled)
    if govc is None or not parts.stores.govc_is_primary or following is None:
        return 0
    with trio.move_on_after(_FIRST_LOOK_S):
        try:
            await govc.connect()
            newest = await govc.call("log", lambda: govc.backend.log(64), timeout_s=_FIRST_LOOK_S)
        except CaiaError:
            return 0
        return find_unfinished(newest, writer_id, following)
    return 0


async def _run(
    channel: Channel, parts: Parts, publisher: Publisher, saver: AttributeSaver | None
) -> None:
    reporter = Reporter(lambda: compose_report(parts, publisher, saver), channel.send)
    publisher.changed = reporter.changed
    service = Service(
        channel,
        published=parts.published,
        publisher=publisher,
        stores=parts.stores,
        follower=parts.follower,
        contents=parts.contents,
        attributes=saver,
        conflicts=ConflictHistory(parts.git, parts.published),
        remote=parts.remote,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_repository, parts.repository, parts.published)
        nursery.start_soon(run_lasting, reporter.run, "reporting")
        nursery.start_soon(publisher.run)
        if saver is not None:
            nursery.start_soon(saver.run)
        nursery.start_soon(run_lasting, parts.history.run, "learning ids of documents")
        nursery.start_soon(parts.follower.run)
        parts.tally.changed = reporter.changed
        nursery.start_soon(run_lasting, parts.tally.run, "counting documents")
        if parts.govc is not None and parts.catch_up is not None:
            parts.govc.changed = reporter.changed
            parts.catch_up.progress = reporter.changed
            nursery.start_soon(parts.catch_up.run)
        if parts.remote is not None:
            parts.remote.changed = reporter.changed
        if parts.comparison is not None:
            parts.comparison.progress = reporter.changed
            nursery.start_soon(parts.comparison.run)
        await service.run()
        nursery.cancel_scope.cancel()


def _publisher_settings(config: Config, writer_id: str) -> PublisherSettings:
    return PublisherSettings(
        writer_id=writer_id,
        limits=GroupLimits(
            documents=config.group_max_documents,
            size_bytes=config.group_max_bytes,
            versions=config.pending_max_per_document,
            # Only govc's log carries the trailers that this bounds.
            trailer_bytes=_TRAILER_BYTES if config.use_govc else 1 << 40,
        ),
        settle_s=config.commit_settle_s,
        policy=config.commit,
        interval_s=config.commit_interval_s,
        pending_max=config.pending_max_versions,
    )
