"""What was written while requests were spoiled, and that all of it is where it should be.

The oracle is a dictionary of contents by path. A run is one operation with a fault at one step of its exchange with govc; afterwards the
mount's view, git and govc are compared with the oracle.
"""

import contextlib
import json
import re
import urllib.request
from contextlib import asynccontextmanager

import trio

from caiafs.core.types import GitMode, blob_id
from tests.support.fault_proxy import FaultProxy
from tests.support.govc_peek import REPO, Peek
from tests.support.store_world import WAIT_S, a_world

MAX_REQUEST = 120_000
"""Of the servers: what is larger than this goes to them in parts."""
LARGE = 260_000
MANY = 12


class OldPeek(Peek):
    """A plain client of the real server's old architecture."""

    def write(self, files, message="Write as another client"):
        for path, text in files.items():
            self._ask("POST", "add", {"path": path, "content": text})
        author = {"author": "Other", "email": "other@example.org"}
        return self._ask("POST", "commit", {"message": message, **author})["hash"]


class ContractPeek(Peek):
    """A plain client of the contract's reference service."""

    def __init__(self, server):
        super().__init__(server.url)
        self._server = server

    def messages(self):
        return [entry["message"] for entry in self._server.service.repositories[REPO].commits]

    def write(self, files, message="Write as another client"):
        body = {
            "message": message,
            "author": "Other",
            "email": "other@example.org",
            "files": [{"path": p, "content": t, "encoding": "utf-8"} for p, t in files.items()],
        }
        request = urllib.request.Request(
            f"{self.url}/api/v1/repos/{self.repo}/commits",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)["hash"]


def peek_of(server):
    """Return a plain client of `server`, whatever it speaks."""
    if not hasattr(server, "architecture"):
        return ContractPeek(server)
    kind = Peek if server.architecture == "new" else OldPeek
    return kind(server.url, architecture=server.architecture)


class Oracle:
    """What was written, by whom it may be, and that it is where it should be."""

    def __init__(self, world, proxy, peek):
        self.world, self.proxy, self.peek = world, proxy, peek
        self.files = {}
        self.versions = set()
        self.number = 0

    def put(self, path, content, *, mode=GitMode.FILE):
        self.world.put(path, content, mode=mode)
        self.files[path] = (content, mode)
        self.versions.add(blob_id(content))

    # --- operations

    async def create(self):
        self.put(f"new/{self.number}", b"new %d\n" % self.number)

    async def overwrite(self):
        self.put("edited", b"version %d\n" % self.number)

    async def binary(self):
        self.put(f"new/binary-{self.number}", b"\xff\0 %d" % self.number)

    async def delete(self):
        self._remove(self._any("new/"))

    async def rename(self):
        path = self._any("new/")
        self.files[f"moved-{self.number}"] = self.files.pop(path)
        self.world.move(path, f"moved-{self.number}")

    async def rename_directory(self):
        old, new = self._any("tree-").partition("/")[0], f"tree-{self.number}"
        self.world.move(old, new)
        for path in [path for path in self.files if path.startswith(old + "/")]:
            self.files[new + path[len(old) :]] = self.files.pop(path)

    async def change_mode(self):
        path = "edited"
        content, mode = self.files[path]
        other = GitMode.EXECUTABLE if mode == GitMode.FILE else GitMode.FILE
        self.put(path, content, mode=other)

    async def large(self):
        self.put("large", (b"%09d\n" % self.number) * (LARGE // 10))

    async def many(self):
        for index in range(MANY):
            self.put(f"many/{index}", b"%d of round %d\n" % (index, self.number))

    async def foreign(self):
        text = f"theirs {self.number}\n"
        self.files["foreign"] = (text.encode(), GitMode.FILE)
        await trio.to_thread.run_sync(self.peek.write, {"foreign": text})
        self.world.due()
        await self.world.wait_for(
            lambda: getattr(self.world.shown.get(b"foreign"), "oid", "") == blob_id(text.encode()),
            "their edit",
        )

    def _any(self, prefix):
        return min(path for path in self.files if path.startswith(prefix))

    def _remove(self, path):
        del self.files[path]
        self.world.remove(path)

    # --- runs

    async def prepare(self, operation):
        """Have there be what `operation` works on, without faults."""
        self.number += 1
        before = self.world.last_seq
        if operation in {"delete", "rename"}:
            self.put(f"new/{self.number}-a", b"to be used %d\n" % self.number)
        if operation == "rename_directory" and not [p for p in self.files if p.startswith("tree-")]:
            for name in ("a", "b/c", "b/d"):
                self.put(f"tree-{self.number}/{name}", f"{name}\n".encode())
        if operation == "change_mode" and "edited" not in self.files:
            await self.overwrite()
        if self.world.last_seq != before:
            await self.settle()

    async def settle(self):
        """Wait until both stores have everything."""
        assert await self.world.stored() == ""
        give_up = trio.current_time() + WAIT_S
        # A sync does not wait for a store that is away; it is asked again once that answers.
        while (done := await self.world.sync()).left != {"git": 0, "govc": 0}:
            assert trio.current_time() < give_up, done
            await trio.sleep(0.05)

    async def run(self, operation, script="", on=""):
        """Do `operation` while `script` spoils it, and see that all is well afterwards."""
        self.number += 1
        self.proxy.play(script, on=on)
        await getattr(self, operation)()
        await self.settle()
        with trio.fail_after(20):
            # What is left of the script meets the next polls.
            await self.proxy.wait_played()
        await self.heal(script)
        await self.settle()
        await self.agrees()

    async def heal(self, script):
        """Have govc met again where it may have refused a document: what it refused is then sent once more."""
        if not re.search(r"\b(done)?4\d\d\b", script):
            return
        before = self.world.report
        await self.world.wait_for(lambda: self.world.report is not before, "a report from now")
        if not self.world.report["backends"]["govc"]["refused"]:
            return
        self.proxy.play("503 503 503 503", on="GET ")
        await self.proxy.wait_played()
        await self.world.wait_for(
            lambda: not self.world.report["backends"]["govc"]["refused"], "it takes what it refused"
        )

    async def agrees(self):
        world = self.world
        expected = {p.encode(): (int(m), blob_id(c)) for p, (c, m) in self.files.items()}
        assert {p: (e.mode, e.oid) for p, e in world.tree().items()} == expected
        assert {p: (e.mode, e.oid) for p, e in world.shown.items()} == expected
        assert await self.peek.agrees(world)

    def is_all_there_once(self):
        """Whether each version is in the history, and each operation once in either log."""
        raw = self.world.git("log", "--raw", "--no-abbrev", "--format=", "main")
        assert not [oid for oid in self.versions if oid not in raw]
        git, govc = (_operations(m) for m in (self.world.messages(), self.peek.messages()))
        assert git
        assert len(git) == len(set(git))
        assert len(govc) == len(set(govc))
        # What catch-up sends as a difference has an id of its own.
        assert {operation for operation in govc if "-diff-" not in operation} <= set(git)
        lines = (self.world.state_dir / "log.store").read_text().splitlines()
        assert not [line for line in lines if " ERROR " in line or "Traceback" in line]
        self.world.git("fsck", "--strict", "--no-dangling")


def _operations(messages):
    return [
        line
        for message in messages
        for line in message.splitlines()
        if line.startswith("Caiafs-Operation")
    ]


@asynccontextmanager
async def an_oracle(tmp_path, server, **more):
    """Run a store process behind a proxy, in step with the server."""
    port = getattr(server, "port", None) or server.service.server_port
    proxy = FaultProxy(port)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: proxy.run(task_status=task_status))
        settings = {
            "use_govc": True,
            "govc_url": proxy.url,
            "govc_repo_name": REPO,
            "operation_timeout_s": 0.5,
            "govc_timeout_s": 1.0,
            "retry_max": 2,
            "retry_backoff_s": 0.02,
            "breaker_failures": 3,
            "breaker_reset_s": 0.1,
            "poll_interval_s": 0.1,
            "commit_settle_s": 0.02,
            **more,
        }
        async with a_world(tmp_path, **settings) as world:
            yield Oracle(world, proxy, peek_of(server))
        nursery.cancel_scope.cancel()


@contextlib.contextmanager
def named(oracle, what):
    """Say which run it was that failed."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"{what}; {oracle.proxy.seen[-25:]}")
        raise
