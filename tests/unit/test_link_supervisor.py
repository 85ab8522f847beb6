"""The supervisor against a stand-in for the store process, a real process each time."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from caiafs.core.errors import DeadlineExceeded, Unreachable
from caiafs.core.types import EMPTY_TREE
from caiafs.link import child, supervisor
from caiafs.link.messages import Due, LoadDone, LoadRequest, Start, Stopped, StoredRequest
from caiafs.link.supervisor import StoreProcess
from tests.support.waiting import PATIENCE_S

STAND_IN = str(Path(__file__).parent.parent / "support" / "store_stand_in.py")


class Recorder:
    def __init__(self):
        self.events = []
        self.reports = []
        self.grew = trio.Event()

    def _add(self, message):
        self.events.append(message)
        self.grew.set()
        self.grew = trio.Event()

    async def on_current(self, message):
        pass

    async def on_ready(self, message):
        self._add(message)

    async def on_settled(self, message):
        self._add(message)

    async def on_damaged(self, message):
        self._add(message)

    async def on_changes(self, message):
        self._add(message)

    async def on_report(self, message):
        self.reports.append(message.report)
        self._add(message)

    async def wait_for(self, condition):
        with trio.fail_after(PATIENCE_S):
            while not condition():
                await self.grew.wait()


async def until(condition):
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await trio.sleep(0.01)


def a_start():
    return Start(
        config="{}", state_dir="/nowhere", settled_seq=0, known_commit=None, writer_id="0" * 8
    )


@pytest.fixture
def events():
    return Recorder()


@pytest.fixture
async def process(events, nursery, monkeypatch, tmp_path):
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 0.01)
    store = StoreProcess(
        a_start, events, command=(sys.executable, STAND_IN, "--lived", str(tmp_path / "lived"))
    )
    await nursery.start(lambda task_status: store.run(task_status=task_status))
    with trio.fail_after(PATIENCE_S):
        await store.wait_ready()
    yield store
    await store.stop(1)


async def test_ready_comes_before_anything_else(process, events):
    assert events.events[0].tree == EMPTY_TREE
    assert process.statistics().ready
    assert process.statistics().reason == ""


async def test_newest_due_arrives(process, events):
    for seq in range(1, 1000):
        process.notify(Due(last_seq=seq))

    await events.wait_for(lambda: "due 999" in events.reports)


async def test_reply_belongs_to_its_request(process):
    async def ask(oid, answers):
        answers[oid] = await process.request(LoadRequest(request_id=0, oid=oid))

    answers = {}
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, f"{number:040}", answers)

    assert {oid: reply.oid for oid, reply in answers.items()} == {oid: oid for oid in answers}
    assert len(answers) == 20


async def test_dead_process_is_started_again_and_requests_are_sent_again(process, events):
    first = process.statistics().pid
    answers = []

    async def ask():
        answers.append(await process.request(LoadRequest(request_id=0, oid="second-life")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await events.wait_for(lambda: "waiting" in events.reports)
        os.kill(first, signal.SIGKILL)

    assert isinstance(answers[0], LoadDone)
    assert process.statistics().restarts == 1
    assert process.statistics().pid != first


async def test_due_is_told_to_the_next_process(process, events):
    process.notify(Due(last_seq=5))
    await events.wait_for(lambda: "due 5" in events.reports)
    events.reports.clear()

    os.kill(process.statistics().pid, signal.SIGKILL)

    await events.wait_for(lambda: "due 5" in events.reports)


async def test_while_it_is_away_statistics_say_why(process, events, monkeypatch):
    # It has been steady: the next one waits for as long as this.
    monkeypatch.setattr(supervisor, "_STEADY_S", 0)
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 3600)

    os.kill(process.statistics().pid, signal.SIGKILL)

    await until(lambda: "restarted after SIGKILL" in process.statistics().reason)
    assert not process.statistics().ready


async def test_request_without_answer_ends_at_its_deadline(process):
    with pytest.raises(DeadlineExceeded):
        await process.request(LoadRequest(request_id=0, oid="never"), timeout_s=0.05)


async def test_stop_returns_what_is_left(process):
    assert await process.stop(5) == Stopped(left={"git": 0})
    with pytest.raises(Unreachable):
        await process.request(StoredRequest(request_id=0, last_seq=1, timeout_s=1))


async def test_process_that_does_not_stop_is_killed(process, events, monkeypatch):
    monkeypatch.setattr(supervisor, "_REPLY_SLACK_S", 0.1)
    monkeypatch.setattr(child, "EXIT_WAIT_S", 0.1)
    pid = process.statistics().pid
    with pytest.raises(DeadlineExceeded):
        await process.request(LoadRequest(request_id=0, oid="hang"), timeout_s=0.1)

    assert await process.stop(0.1) is None

    await until(lambda: not os.path.exists(f"/proc/{pid}"))


async def test_child_inherits_nothing_but_its_socket(process, events, tmp_path):
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        os.kill(process.statistics().pid, signal.SIGKILL)
        await events.wait_for(
            lambda: process.statistics().restarts == 1 and process.statistics().ready
        )
        links = os.listdir(f"/proc/{process.statistics().pid}/fd")
        targets = [os.readlink(f"/proc/{process.statistics().pid}/fd/{fd}") for fd in links]

    assert str(tmp_path / "secret") not in targets


async def test_request_made_while_others_are_sent_to_a_new_process_is_sent_too(
    process, events, monkeypatch
):
    reached, go = trio.Event(), trio.Event()
    send = supervisor.Channel.send

    async def slowly(self, message):
        if process.statistics().restarts and isinstance(message, LoadRequest) and not go.is_set():
            reached.set()
            await go.wait()
        await send(self, message)

    monkeypatch.setattr(supervisor.Channel, "send", slowly)
    answers = []

    async def ask(oid):
        answers.append(await process.request(LoadRequest(request_id=0, oid=oid)))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "second-life")
            await events.wait_for(lambda: "waiting" in events.reports)
            os.kill(process.statistics().pid, signal.SIGKILL)
            await reached.wait()
            nursery.start_soon(ask, "a" * 40)
            await trio.testing.wait_all_tasks_blocked()
            go.set()

    assert {reply.oid for reply in answers} == {"second-life", "a" * 40}


@pytest.mark.parametrize("what", ["socketpair", "pidfd_open", "Popen"])
async def test_process_that_cannot_be_started_again_is_tried_until_it_can(
    process, events, monkeypatch, what
):
    where = {"socketpair": socket, "pidfd_open": os, "Popen": subprocess}
    with monkeypatch.context() as patch:

        def refuse(*_args, **_named):
            raise OSError(errno.EMFILE, "too many open files")

        patch.setattr(where[what], what, refuse)
        os.kill(process.statistics().pid, signal.SIGKILL)
        await until(lambda: "cannot be started" in process.statistics().reason)

    await until(lambda: process.statistics().ready)
    assert await process.request(LoadRequest(request_id=0, oid="a" * 40))
