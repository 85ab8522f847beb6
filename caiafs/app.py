"""The mount from start to end: what is opened in which order, and what happens when it ends.

Used by cli. Order: repository, lock, state DB, store process (exec'd before the FUSE descriptor
exists), mount. At the end the other way round: unmount, publish what is pending within
`unmount_grace`, say what is left.
"""

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial

import trio

from caiafs import __version__
from caiafs.backends.git.repository import open_repository
from caiafs.core import locations
from caiafs.core.config import Config, config_to_json
from caiafs.core.errors import CaiaError, ConfigError, StateFull, leaf
from caiafs.fuse import session
from caiafs.fuse.caia import CaiaDirectory
from caiafs.fuse.convert import Presentation
from caiafs.fuse.operations import CaiaOperations
from caiafs.mount_process import MountProcess, build
from caiafs.mount_report import Reporter
from caiafs.state import paths
from caiafs.state.database import StateDatabase, make_private
from caiafs.state.lock import RepositoryLock
from caiafs.store_link import StoreLink
from caiafs.virtual.tree import Sources, build_caia

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 20.0
_CURRENT_TIMEOUT_S = 5.0
_HASH_GRACE_S = 5.0


def serve(config: Config, origins: Mapping[str, str], *, on_ready: Callable[[str], None]) -> int:
    """Mount, serve until unmounted, publish, and return the exit code.

    `on_ready` is called once the mount answers, with a few words on the stores ("" for none).

    Raises:
        ConfigError, StateError: it could not be mounted; the message says what to do.
    """
    try:
        return trio.run(_serve, config, origins, on_ready)
    except* CaiaError as group:
        # Tasks fail together; the first error is the one that a person can do something about.
        raise leaf(group) from None


async def _serve(
    config: Config, origins: Mapping[str, str], on_ready: Callable[[str], None]
) -> int:
    repository = open_repository(
        config.repository,
        branch=config.branch,
        object_dir=locations.object_directory(config),
    )
    state_dir = locations.state_directory(config)
    make_private(state_dir)
    lock = await RepositoryLock.acquire(
        paths.mount_lock(state_dir), timeout_s=config.unmount_grace_s
    )
    try:
        db = StateDatabase.open(state_dir)
        try:
            db.check()
            link = StoreLink(config_to_json(config))
            mount = build(config, repository, db, link)
            await _run(mount, link, origins, on_ready)
        finally:
            db.close()
    finally:
        lock.release()
    return 0


async def _run(
    mount: MountProcess,
    link: StoreLink,
    origins: Mapping[str, str],
    on_ready: Callable[[str], None],
) -> None:
    """Run the parts around the mount, and end them after it."""
    operations = _operations(mount, link, origins)
    async with trio.open_nursery() as nursery:
        await nursery.start(link.process.run)
        for part in (
            mount.journal.run,
            mount.db.run,
            mount.settlement.run,
            link.run,
            mount.files.run,
            mount.hasher.run,
            mount.transactions.run,
            mount.remote.run,
            mount.conflicts.run,
            mount.disk_cache.run,
        ):
            nursery.start_soon(part)
        # So that the first reader sees what was pushed meanwhile; without a store process, the past.
        with trio.move_on_after(_CURRENT_TIMEOUT_S):
            await link.wait_current()
        with session.mounted(operations, mount.config):
            async with trio.open_nursery() as serving:
                await serving.start(_stop_on_signal)
                serving.start_soon(mount.kernel.run)
                serving.start_soon(_announce, mount, on_ready)
                await session.serve()
                serving.cancel_scope.cancel()
        await _publish_rest(mount, link)
        nursery.cancel_scope.cancel()


async def _announce(mount: MountProcess, on_ready: Callable[[str], None]) -> None:
    """Say that the mount is there once the kernel gets an answer from it."""
    stat = partial(os.stat, mount.config.mountpoint)
    with trio.move_on_after(_ANSWER_TIMEOUT_S) as scope:
        await trio.to_thread.run_sync(stat, abandon_on_cancel=True)
    if scope.cancelled_caught:
        raise ConfigError(f"the mount on {mount.config.mountpoint} does not answer", exit_code=1)
    log.info("mounted %s on %s", mount.config.repository, mount.config.mountpoint)
    on_ready("")


async def _stop_on_signal(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("got %s, unmounting", signal.Signals(number).name)
            session.stop_serving()


async def _publish_rest(mount: MountProcess, link: StoreLink) -> None:
    """Publish what is pending within the grace period, and write down what is left."""
    with trio.CancelScope(shield=True):
        with contextlib.suppress(StateFull):  # the next mount makes versions of what was flushed
            mount.files.settle_everything(unflushed=True)
        if mount.transactions.is_open:
            log.warning("the unmount ends a transaction: what it holds is published one by one")
            mount.transactions.end()
        with trio.move_on_after(_HASH_GRACE_S):
            await mount.hasher.wait_idle()
        with contextlib.suppress(StateFull):
            mount.journal.commit_everything()
        with trio.move_on_after(mount.config.unmount_grace_s):
            await link.process.wait_ready()
        stopped = await link.process.stop(mount.config.unmount_grace_s)
    left = stopped.left if stopped is not None else {"git": link.pending_ops}
    text = json.dumps({"left": left, "time_ns": time.time_ns(), "pid": os.getpid()})
    try:
        file = mount.db.state_dir / locations.LAST_UNMOUNT_NAME
        file.touch(mode=0o600)
        file.write_text(text + "\n")
    except OSError as exc:  # a full disk must not make the end of the mount a crash
        log.warning("what the unmount left is not written down: %s", exc)
    if any(left.values()):
        log.warning("unmounted with documents left to publish: %s", left)


def _operations(mount: MountProcess, link: StoreLink, origins: Mapping[str, str]) -> CaiaOperations:
    config = mount.config
    reporter = Reporter(mount, link)
    sources = Sources(
        config=config,
        origins=origins,
        version=__version__,
        mount=reporter.report,
        store=link.report,
        versions=mount.versions,
    )
    caia = CaiaDirectory(
        build_caia(sources, link),
        visible=config.caia_dir == "visible",
        changes=lambda: (operations.changes, mount.conflicts.answers),
        news=lambda: link.report_moment,
    )
    operations = CaiaOperations(
        mount.parts(),
        caia,
        Presentation.from_config(config),
        read_only=config.read_only,
    )
    reporter.operations = operations
    link.on_reset = operations.reset_metrics
    return operations
