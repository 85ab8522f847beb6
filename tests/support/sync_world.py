"""The store process in the test's own loop: a real repository, a real state DB, a govc in memory, and a death at any step.

`SyncWorld` is `store_world.World` without the other process. A step is a point between two effects that last: objects,
references, commits in govc, messages to the mount. `die_at` ends everything at that step, as `kill -9` does.
"""

import math
from contextlib import ExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from unittest.mock import patch

import pygit2
import trio

from caiafs.backends.base import Capabilities, CommitResult, Document, Listing
from caiafs.backends.git.backend import GitBackend
from caiafs.core.config import config_from_json
from caiafs.core.errors import Corrupt, Unreachable
from caiafs.core.types import Change, ChangeSet, DocPath, Entry, ObjectId, Signature, blob_id
from caiafs.link import messages
from caiafs.state.reader import StateReader
from caiafs.sync import assembly
from tests.support.memory_backend import MemoryBackend, MemoryStore
from tests.support.store_world import WAIT_S, World

REPO = "docs"
_current: ContextVar["SyncWorld"] = ContextVar("world")


class Dead(BaseException):
    """Something was asked of a process that is dead."""


class Server:
    """A govc server: what it holds, and what is wrong with it now."""

    def __init__(self):
        self.store = MemoryStore()
        self.up = True
        self.hangs = False
        self.lists = True
        self.unreadable: set[bytes] = set()
        self.commits_tried = 0
        self.requests = 0

    @property
    def tree(self) -> dict[bytes, tuple[int, str]]:
        return {bytes(p): (d.entry.mode, d.entry.oid) for p, d in self.store.documents.items()}

    def wipe(self):
        """Come back empty, as the real one after a restart."""
        self.store.commits.clear()

    def rewind(self, commits):
        """Come back in an older state."""
        del self.store.commits[len(self.store.commits) - commits :]

    async def write(self, files, message="Write as another client", time_ns=10**18):
        """Commit as any other client would; None deletes."""
        held = {blob_id(c): c for c in files.values() if c is not None}
        changes = tuple(
            Change(DocPath(p), None, None if c is None else Entry(0o100644, blob_id(c), len(c)))
            for p, c in sorted(files.items())
        )
        author = Signature("Other", "other@example.org", time_ns)
        backend = MemoryBackend(self.store, _Held(held))
        await backend.commit(ChangeSet(f"x-{len(self.store.commits)}", author, message, changes))


class _Held:
    def __init__(self, contents):
        self._contents = contents

    async def read(self, oid):
        return self._contents[oid]


class FakeGovc(MemoryBackend):
    """`GovcBackend`, as far as the hybrid store uses it, on a `Server`."""

    name = "govc"

    def __init__(self, _settings, source):
        self._world = _current.get()
        self._server = self._world.server
        super().__init__(self._server.store, source)
        self._tried: set[str] = set()
        self._look_back = True
        self._connected = False

    @property
    def capabilities(self):
        kind = "memory" if self._connected else "none"
        lists = self._server.lists
        return Capabilities(kind, lists=lists, diffs=lists, max_content_bytes=None)

    @property
    def documents(self):
        return len(self._server.store.documents)

    async def _ask(self):
        await trio.lowlevel.checkpoint()
        self._server.requests += 1
        if self._world.dead:
            raise Dead
        if self._server.hangs:
            await trio.sleep_forever()
        if not self._server.up:
            raise Unreachable("the server is down", backend="govc", operation="any")

    async def connect(self):
        await self._ask()
        self._connected = self._look_back = True
        return self.capabilities

    async def head(self):
        await self._ask()
        return await super().head()

    async def log(self, limit):
        await self._ask()
        return await super().log(limit)

    async def read(self, path) -> Document | None:
        await self._ask()
        if path in self._server.unreadable:
            raise Corrupt("no content", backend="govc", operation="read")
        return await super().read(path)

    async def listing(self) -> Listing:
        await self._ask()
        found = await super().listing()
        if self._server.lists:
            return found
        top = {path: entry for path, entry in found.entries.items() if b"/" not in path}
        return replace(found, entries=top, complete=False)

    async def changed_paths(self, old, new):
        await self._ask()
        return await super().changed_paths(old, new) if self._server.lists else None

    async def current(self, paths):
        await self._ask()
        documents = self._server.store.documents
        return {path: documents[path].entry if path in documents else None for path in paths}

    async def commit(self, change_set) -> CommitResult:
        await self._world.step("before govc commit")
        await self._ask()
        self._server.commits_tried += 1
        operation = change_set.operation_id
        done = [op for _, op, _ in self._server.store.commits]
        if not self._look_back and operation not in self._tried and operation in done:
            change_set = replace(change_set, operation_id=f"{operation} again {len(done)}")
        self._tried.add(operation)
        result = await super().commit(change_set)
        self._look_back = False
        await self._world.step("after govc commit")
        return result


class SteppingGit(GitBackend):
    """The git backend, mortal between its steps."""

    def __init__(self, repository, source):
        super().__init__(repository, source)
        self._world = _current.get()

    async def build_merge(self, change_set, parents):
        await self._world.step("before objects")
        built = await super().build_merge(change_set, parents)
        await self._world.step("after objects")
        return built

    async def move_refs(self, updates):
        name = updates[0].name
        await self._world.step(f"before {name}")
        if name.startswith("refs/heads/") and self._world.branch_fails:
            self._world.branch_fails -= 1
            raise Unreachable("the disk is full", backend="git", operation="commit")
        await super().move_refs(updates)
        await self._world.step(f"after {name}")


@dataclass
class InProcess:
    """What `link.supervisor.StoreProcess` is to a world, in the same loop; also the store process's channel."""

    world: "SyncWorld"
    ready: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self):
        self._out, self._in = trio.open_memory_channel(math.inf)
        self._waiting = {}
        self._numbers = 0
        self._stopped = None

    # --- the store process's end

    async def receive(self):
        return await self._in.receive()

    async def send(self, message):
        kind = type(message).__name__
        if isinstance(message, messages.Report):
            await self.world.on_report(message)
            return
        await self.world.step(f"before {kind}")
        if isinstance(message, messages.Ready):
            await self.world.on_ready(message)
            self.notify(messages.Due(self.world.last_seq))
            self.ready.set()
        elif isinstance(message, messages.Settled):
            await self.world.on_settled(message)
        elif isinstance(message, messages.Damaged):
            await self.world.on_damaged(message)
        elif isinstance(message, messages.Changes):
            await self.world.on_changes(message)
        elif isinstance(message, messages.Stopped):
            self._stopped = message
        elif hasattr(message, "request_id") and not isinstance(message, messages.SyncProgress):
            event, box = self._waiting[message.request_id]
            box.append(message)
            event.set()
        await self.world.step(f"after {kind}")

    # --- the mount's end

    def notify(self, message):
        self._out.send_nowait(message)

    async def request(self, message, progress=None):
        self._numbers += 1
        event, box = self._waiting[self._numbers] = trio.Event(), []
        self.notify(replace(message, request_id=self._numbers))
        await event.wait()
        return box[0]

    async def run(self):
        world = self.world
        _current.set(world)
        world.dead, world.scope = False, trio.CancelScope()
        start = world.start_message()
        try:
            with world.scope, StateReader(world.state_dir) as state:
                await assembly.run_parts(self, start, config_from_json(start.config), state)
        except* Dead:
            pass
        finally:
            self.ended.set()
            self.ready.set()


class SyncWorld(World):
    """One mount whose store process runs in the test's loop."""

    def __init__(self, root, *, server=None, **more):
        self.server = server
        self.steps = 0
        self.trace: list[str] = []
        self.die_at: int | None = None
        self.dead = False
        self.branch_fails = 0
        self.at = {}
        """What somebody else does at a step, once: its name to a function."""
        self.versions: set[ObjectId] = set()
        more.setdefault("poll_interval_s", 0.02)
        more.setdefault("breaker_reset_s", 0.05)
        more.setdefault("retry_backoff_s", 0.02)
        more.setdefault("operation_timeout_s", 2.0)
        more.setdefault("commit_settle_s", 0.005)
        if server is not None:
            more |= {"use_govc": True, "govc_url": "http://127.0.0.1:1", "govc_repo_name": REPO}
        super().__init__(root, **more)

    async def step(self, name):
        if self.dead:
            raise Dead
        self.steps += 1
        self.trace.append(name)
        if name in self.at:
            self.at.pop(name)()
        if self.steps == self.die_at:
            self.kill()
            await trio.lowlevel.checkpoint()

    def kill(self):
        self.dead = True
        self.scope.cancel()

    def put(self, path, content, **more):
        seq = super().put(path, content, **more)
        path = path.encode() if isinstance(path, str) else path
        self.versions.add(self.shown[path].oid)
        return seq

    async def on_changes(self, message):
        # As in the mount: a name that is a directory there, or below a document, shows something.
        ordered = sorted(message.changes, key=lambda change: change.after is not None)
        gone = {bytes(c.path) for c in ordered if c.after is None}
        shown = self.shown.keys() - gone

        def clashes(path):
            above = any(path.startswith(other + b"/") for other in shown)
            return above or any(other.startswith(path + b"/") for other in shown)

        kept = tuple(c for c in ordered if c.after is None or not clashes(bytes(c.path)))
        await super().on_changes(replace(message, changes=kept))
        if message.number and not self.deaf:
            self.process.notify(messages.Seen(message.number, self.last_seq))

    def set_mode(self, path, mode):
        """Do as chmod: the same content with another mode."""
        before = self.shown[path]
        entry = replace(before, mode=int(mode))
        row = self.db.execute(
            "SELECT content FROM op WHERE oid=? AND content NOT NULL", (bytes.fromhex(entry.oid),)
        ).fetchone()
        self._op("put", path, entry=entry, content=row and row[0], replaced=before.oid)
        self.shown[path] = entry

    @asynccontextmanager
    async def running(self, *, grace_s=5):
        """Run the store process until the body ends, or it dies."""
        process = self.process = InProcess(self)
        with ExitStack() as stack:
            stack.enter_context(patch.object(assembly, "GitBackend", SteppingGit))
            stack.enter_context(patch.object(assembly, "GovcBackend", FakeGovc))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.run)
                with trio.fail_after(WAIT_S):
                    await process.ready.wait()
                try:
                    yield self
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + WAIT_S):
                        if not process.ended.is_set():
                            process.notify(messages.Stop(grace_s))
                        await process.ended.wait()
                        self.stopped = process._stopped

    async def until_dead(self, timeout_s=WAIT_S):
        with trio.fail_after(timeout_s):
            await self.process.ended.wait()

    async def live_through(self, body):
        """Run `body` unless the process dies before it ends; return whether it lived."""
        async with trio.open_nursery() as nursery:

            async def watch():
                await self.process.ended.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await body()
            nursery.cancel_scope.cancel()
        return not self.dead

    # --- what must hold

    def history(self) -> set[str]:
        """Return every blob that any commit of the branch holds."""
        if self.head() is None:
            return set()
        listed = self.git("rev-list", "--objects", "--no-object-names", "main").split()
        repo = pygit2.Repository(str(self.repo))
        return {oid for oid in listed if repo[oid].type == pygit2.enums.ObjectType.BLOB}

    def check(self):
        """Assert what holds of a mount at rest, whatever it went through."""
        tree = self.tree() if self.head() else {}
        shown = {p: (e.mode, e.oid) for p, e in self.shown.items()}
        assert {p: (e.mode, e.oid) for p, e in tree.items()} == shown
        if self.head() is None:
            return
        if self.process.ended.is_set():  # else a reference may move under it
            self.git("fsck", "--strict")
        operations = [
            line
            for line in self.git("log", "--format=%B", "main").splitlines()
            if line.startswith(f"Caiafs-Operation: {self.writer}")
        ]
        assert len(operations) == len(set(operations)), operations
        pairs = self.git("log", "--format=%T %P", "main").splitlines()
        for pair in pairs:
            tree_id, *parents = pair.split()
            if len(parents) == 1:
                assert tree_id != self.git("rev-parse", f"{parents[0]}^{{tree}}").strip(), "empty"


@asynccontextmanager
async def a_sync_world(root, **settings):
    world = SyncWorld(root, **settings)
    try:
        async with world.running():
            yield world
    finally:
        world.close()
