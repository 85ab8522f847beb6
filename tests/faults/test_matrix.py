"""Every kind of spoiled request, at each step of what a mount does: nothing lost, nothing twice, all stores alike.

One server and one store process for each fault; the oracle is a dictionary of what was written. A run is an operation with a
fault at one of its steps; after each run the mount's view, git and govc are compared with the oracle.
"""

import contextlib
from contextlib import asynccontextmanager

import pytest
import trio

from caiafs.core.config import BackendName
from caiafs.core.types import blob_id
from tests.support.fault_proxy import FaultProxy
from tests.support.govc_peek import REPO, Peek
from tests.support.store_world import a_world

pytestmark = [pytest.mark.govc, pytest.mark.slow]

FAULTS = (
    "slow",
    "twice",
    "reset",
    "timeout",
    "cut",
    "lost",
    "torn",
    "429",
    "500",
    "503",
    "done500",
    "done503",
    "garbled",
    "empty",
    "echo",
)
READ, LOG, STAGE, COMMIT = "GET .*/files", "GET .*/commits", "POST .*/files", "POST .*/commits"

RUNS = (
    ("save", STAGE, 1),
    ("save", STAGE, 3),
    ("save", COMMIT, 1),
    ("save", LOG, 1),
    ("remove", COMMIT, 1),
    ("rename", STAGE, 2),
    ("foreign", LOG, 1),
    ("foreign", READ, 1),
)


class Oracle:
    """What was written, by whom it may be, and that it is where it should be."""

    def __init__(self, world, proxy, peek):
        self.world, self.proxy, self.peek = world, proxy, peek
        self.files = {}
        self.versions = set()
        self.saves = 0
        self.number = 0

    def _put(self, path, content):
        self.world.put(path, content)
        self.files[path] = content
        self.versions.add(blob_id(content))

    async def save(self):
        self._put("edited", b"version %d\n" % self.number)
        self._put(f"new/text-{self.number}", b"new %d\n" % self.number)
        self._put(f"new/binary-{self.number}", b"\xff\0 %d" % self.number)

    async def remove(self):
        path = next(path for path in self.files if path.startswith("new/text"))
        del self.files[path]
        self.world.remove(path)

    async def rename(self):
        path = next(path for path in self.files if path.startswith("new/binary"))
        self.files[f"moved/{self.number}"] = self.files.pop(path)
        self.world.move(path, f"moved/{self.number}")

    async def foreign(self):
        text = f"theirs {self.number}\n"
        self.files["foreign"] = text.encode()
        await trio.to_thread.run_sync(self.peek.write, {"foreign": text})
        self.world.due()
        await self.world.wait_for(
            lambda: getattr(self.world.shown.get(b"foreign"), "oid", "") == blob_id(text.encode()),
            "their edit",
        )

    async def run(self, operation, script, on):
        """Do `operation` while `script` spoils it, and see that all is well afterwards."""
        self.number += 1
        self.proxy.play(script, on=on)
        await getattr(self, operation)()
        assert await self.world.stored() == ""
        done = await self.world.sync()
        assert done.left == {"git": 0, "govc": 0}, done
        with trio.fail_after(10):
            # What is left of the script meets the next polls.
            await self.proxy.wait_played()
        assert (await self.world.sync()).left == {"git": 0, "govc": 0}
        await self.agrees()

    async def agrees(self):
        world = self.world
        expected = {p.encode(): blob_id(c) for p, c in self.files.items()}
        assert {p: e.oid for p, e in world.tree().items()} == expected
        assert {p: e.oid for p, e in world.shown.items()} == expected
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
    proxy = FaultProxy(server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: proxy.run(task_status=task_status))
        settings = {
            "use_govc": True,
            "govc_url": proxy.url,
            "govc_repo_name": REPO,
            "operation_timeout_s": 0.5,
            "retry_max": 2,
            "retry_backoff_s": 0.02,
            "breaker_failures": 3,
            "breaker_reset_s": 0.1,
            "poll_interval_s": 0.1,
            "commit_settle_s": 0.02,
            **more,
        }
        async with a_world(tmp_path, **settings) as world:
            yield Oracle(world, proxy, Peek(server.url, architecture=server.architecture))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fault", FAULTS)
async def test_one_fault_at_any_step_loses_and_doubles_nothing(tmp_path, server, fault):
    async with an_oracle(tmp_path, server) as oracle:
        await oracle.run("save", "", "")
        await oracle.run("foreign", "", "")
        for operation, on, step in RUNS:
            with _named(operation, fault, on, step, oracle):
                await oracle.run(operation, "ok " * (step - 1) + fault, on)

        oracle.is_all_there_once()


SCRIPTS = (
    "ok ok 503 timeout torn ok",
    "reset reset reset reset ok cut",
    "done503 lost 429 ok empty",
    "garbled ok 500 done500 torn reset",
    "slow lost slow cut slow 503",
)


OPERATIONS = ("save", "rename", "save", "remove", "save")

ROUTES = {
    "govc first": {},
    "govc or nothing": {"enable_fallback": False},
    "git first": {"primary_backend": BackendName.GIT},
}


@pytest.mark.parametrize(
    ("architecture", "route"), [("old", "govc first"), *(("new", route) for route in ROUTES)]
)
async def test_storms_of_faults_lose_and_double_nothing(
    tmp_path, govc_servers, architecture, route
):
    server = govc_servers(architecture=architecture)
    async with an_oracle(tmp_path, server, **ROUTES[route]) as oracle:
        await oracle.run("save", "", "")
        for operation, script in zip(OPERATIONS, SCRIPTS, strict=True):
            with _named(operation, script, "", 0, oracle):
                await oracle.run(operation, script, "")

        oracle.is_all_there_once()


@contextlib.contextmanager
def _named(operation, script, on, step, oracle):
    """Say which run it was that failed."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(
            f"{operation}: {script} at {on or 'anything'} {step}; {oracle.proxy.seen[-25:]}"
        )
        raise


async def test_group_that_the_primary_may_have_comes_again_as_the_same_commit(tmp_path, server):
    async with an_oracle(tmp_path, server, enable_fallback=False, retry_max=1) as oracle:
        await oracle.run("save", "", "")

        oracle.proxy.play("done503 503", on=COMMIT)
        oracle.number += 1
        await oracle.save()
        oracle.world.due()
        await oracle.proxy.wait_played()
        oracle._put("saved meanwhile", b"1\n")
        assert await oracle.world.stored() == ""

        await oracle.agrees()
        oracle.is_all_there_once()


async def test_server_that_says_when_to_come_back_is_left_alone_until_then(tmp_path, server):
    async with an_oracle(tmp_path, server) as oracle:
        world, proxy = oracle.world, oracle.proxy
        await oracle.run("save", "", "")

        proxy.play("429", on=COMMIT)
        oracle.number += 1
        await oracle.save()
        assert await world.stored() == ""
        await world.wait_for(lambda: world.report["backends"]["govc"]["breaker"] == "open")
        assert (await world.sync()).left == {"git": 0, "govc": 0}

        [told] = [number for number, line in enumerate(proxy.seen) if line.endswith(" 429")]
        asked_before_it_knew = 0.1
        later = [when - proxy.times[told] for when in proxy.times[told + 1 :]]
        assert not [s for s in later if asked_before_it_knew < s < 1.0]
        await oracle.agrees()
