"""The store process: `python -m caiafs.store_process --fd N --parent PID`, started by `link.supervisor`.

Its composition root. Everything it needs comes with the first message over descriptor N. It ends with the mount process:
at the end of the stream, at SIGTERM, which the kernel sends when the parent dies, and by an alarm where its loop hangs.
"""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

import trio

from caiafs.backends.git.backend import GitBackend
from caiafs.backends.git.log import CommitLog
from caiafs.backends.git.repository import open_repository
from caiafs.core.config import Config, config_from_json
from caiafs.core.errors import CaiaError
from caiafs.core.types import NO_OBJECT, DocPath, ObjectId
from caiafs.link.channel import Channel, LinkClosed, LinkError
from caiafs.link.messages import Failed, Ready, Start
from caiafs.link.report import StoreReport
from caiafs.state import paths
from caiafs.state.lock import RepositoryLock
from caiafs.state.reader import StateReader
from caiafs.store.hybrid import HybridStore
from caiafs.sync import reporter as reports
from caiafs.sync.contents import Contents
from caiafs.sync.groups import GroupLimits
from caiafs.sync.identity import Identities
from caiafs.sync.published import Published
from caiafs.sync.publisher import Publisher, PublisherParts, PublisherSettings
from caiafs.sync.pushes import Pushes
from caiafs.sync.recovery import find_settled, known_tree
from caiafs.sync.replay import Merging
from caiafs.sync.service import Service

log = logging.getLogger("caiafs.store_process")

LOCK_WAIT_S = 20.0
_HANG_S = 10
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the store process to its end."""
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    _die_with(int(arguments["--parent"]))
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s store %(name)s: %(message)s",
    )
    trio.run(_serve_until_signal, int(arguments["--fd"]))


def _die_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the mount process dies; end now where it died already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)


async def _serve_until_signal(fd: int) -> None:
    stream = trio.SocketStream(trio.socket.socket(fileno=fd))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_sigterm, nursery.cancel_scope)
        channel = Channel(stream)
        try:
            await serve(channel)
        except LinkError as exc:
            log.info("the link ended: %s", exc)
        finally:
            # From here on nothing may hold the process up.
            signal.alarm(_HANG_S)
        nursery.cancel_scope.cancel()


async def _cancel_at_sigterm(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            signal.alarm(_HANG_S)
            scope.cancel()


async def serve(channel: Channel) -> None:
    """Serve one mount process over `channel`."""
    start = await channel.receive()
    if start is None:
        return
    if not isinstance(start, Start):
        raise LinkError(f"a {type(start).__name__} came before Start")
    lock: RepositoryLock | None = None
    try:
        state_dir = Path(start.state_dir)
        lock = await RepositoryLock.acquire(paths.store_lock(state_dir), timeout_s=LOCK_WAIT_S)
        config = config_from_json(start.config)
        logging.getLogger().setLevel(config.log_level)
        with StateReader(state_dir) as state:
            await _run(channel, start, config, state)
    except LinkClosed:
        raise
    except CaiaError as exc:
        log.error("%s", exc)  # noqa: TRY400  # said to a person; it is no bug
        await channel.send(Failed(str(exc)))
    finally:
        if lock is not None:
            lock.release()


async def _run(channel: Channel, start: Start, config: Config, state: StateReader) -> None:
    """Build the parts, say Ready, run until the end."""
    state_dir = Path(start.state_dir)
    repository = open_repository(config.repository, branch=config.branch)
    git = GitBackend(repository, source := _LateSource())
    contents = Contents(state, state_dir, git.contents, repository.reader)
    source.become(contents)
    history = CommitLog(repository.reader)
    head = repository.head_commit()
    known = start.known_commit if start.known_commit != NO_OBJECT else None
    settled = max(start.settled_seq, find_settled(history, head, known, start.writer_id))
    published = Published(head, repository.tree_of(head), settled)
    stores = HybridStore(git)
    pushes = Pushes(git, published, channel.send)

    async def take_push() -> None:
        await pushes.take()

    publisher = Publisher(
        _publisher_settings(config, start.writer_id),
        PublisherParts(
            ops=state,
            contents=contents,
            reader=repository.reader,
            stores=stores,
            published=published,
            identities=Identities(),
            merging=Merging(contents.read_small, _no_text_merge, _conflict_name, lambda _p, _o: 0),
            send=channel.send,
            take_push=take_push,
        ),
    )

    def compose() -> StoreReport:
        done = publisher.statistics()
        return StoreReport(
            mode="git only",
            backends={"git": stores.git_report(published.commit)},
            reasons=(done.reason,) if done.reason else (),
            settled_seq=published.settled_seq,
            last_seq=done.last_seq,
            pending_ops=done.pending_ops,
            groups=done.groups,
            documents_published=done.documents,
            conflicts=done.conflicts,
            commit=published.commit,
            tree=published.tree,
            branch=repository.branch_ref,
            uptime_s=reports.uptime_s(),
            rss_bytes=reports.rss_bytes(),
        )

    reporter = reports.Reporter(compose, channel.send)
    publisher.changed = reporter.changed
    service = Service(channel, published=published, publisher=publisher, contents=contents)
    await channel.send(Ready(published.commit, published.tree, settled))
    before = known_tree(history, known)
    if before is not None and before != published.tree:
        await pushes.announce(before, published.tree, published.commit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        nursery.start_soon(reporter.run)
        await service.run()
        nursery.cancel_scope.cancel()


class _LateSource:
    """The content source that the git backend is built with, before there are contents."""

    _contents: Contents

    def become(self, contents: Contents) -> None:
        self._contents = contents

    async def read(self, oid: ObjectId) -> bytes:
        return await self._contents.read(oid)

    async def read_range(self, oid: ObjectId, start: int, stop: int) -> bytes:
        return await self._contents.read_range(oid, start, stop)

    async def size(self, oid: ObjectId) -> int:
        return await self._contents.size(oid)


def _publisher_settings(config: Config, writer_id: str) -> PublisherSettings:
    return PublisherSettings(
        writer_id=writer_id,
        limits=GroupLimits(
            documents=config.group_max_documents,
            size_bytes=config.group_max_bytes,
            trailer_bytes=84_000 if config.use_govc else 1 << 30,
        ),
        settle_s=config.commit_settle_s,
        policy=config.commit,
        interval_s=config.commit_interval_s,
        pending_max=config.pending_max_versions,
    )


def _no_text_merge(path: DocPath, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    return None


def _conflict_name(path: DocPath, time_ns: int, oid: ObjectId) -> DocPath:
    return DocPath(path + b".conflict-" + oid.encode())


if __name__ == "__main__":
    main()
