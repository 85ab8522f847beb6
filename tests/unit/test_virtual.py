"""What .caia contains and what its control file takes."""

import json
from pathlib import Path

import pytest

from caiafs.core.config import Config
from caiafs.core.errors import DeadlineExceeded, InvalidArgument, NotFound
from caiafs.core.types import DocPath
from caiafs.status.report import MountReport
from caiafs.virtual.control import run_command
from caiafs.virtual.nodes import ControlFile, VirtualDirectory, VirtualFile
from caiafs.virtual.tree import Sources, build_caia


class RecordedCommands:
    """Commands that remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def sync(self, timeout_s: float) -> None:
        self.asked.append(("sync", timeout_s))
        if timeout_s == 0:
            raise DeadlineExceeded("not done")

    async def fetch(self, path: DocPath) -> None:
        self.asked.append(("fetch", path))
        if path == b"missing":
            raise NotFound("govc does not have it")

    async def adopt(self) -> None:
        self.asked.append("adopt")

    def reset_metrics(self) -> None:
        self.asked.append("reset-metrics")

    def begin(self) -> None:
        self.asked.append("begin")

    async def commit(self, message: str, uid: int) -> None:
        self.asked.append(("commit", message, uid))

    def end(self) -> None:
        self.asked.append("end")


class NoVersions:
    """A mount without conflicts."""

    def open_conflicts(self) -> list:
        return []


class Uptime:
    """Makes a new report at each call, with a growing uptime."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> MountReport:
        self.calls += 1
        return MountReport("1.0", 1, float(self.calls), "/mnt", "/repo", "/repo/caiafs")


def a_caia(**fields) -> VirtualDirectory:
    config = Config(Path("/repo"), Path("/mnt"), govc_auth_token="s3cr3t", **fields)
    sources = Sources(
        config, {"govc_auth_token": "GOVC_AUTH_TOKEN"}, "1.0", Uptime(), lambda: None, NoVersions()
    )
    return build_caia(sources, RecordedCommands())


def content(caia: VirtualDirectory, name: bytes) -> bytes:
    node = caia.children[name]
    assert isinstance(node, VirtualFile)
    return node.render()


def test_the_files_are_those_of_the_manual():
    names = {b"stats.json", b"health.json", b"metrics", b"config.json", b"version", b"control"}
    names |= {b"conflicts", b"conflicts.json"}

    assert set(a_caia().children) == names
    assert all(name == node.name for name, node in a_caia().children.items())


@pytest.mark.parametrize("name", [b"stats.json", b"health.json", b"config.json"])
def test_json_files_are_json_with_a_newline_at_the_end(name: bytes):
    text = content(a_caia(), name)

    assert isinstance(json.loads(text), dict)
    assert text.endswith(b"}\n")


def test_each_rendering_is_new():
    caia = a_caia()

    first, second = (json.loads(content(caia, b"stats.json")) for _ in range(2))

    assert first["mount"]["uptime_s"] < second["mount"]["uptime_s"]


def test_config_masks_the_token_and_keeps_its_origin():
    shown = json.loads(content(a_caia(), b"config.json"))

    assert shown["govc_auth_token"] == {"value": "********", "origin": "GOVC_AUTH_TOKEN"}


def test_nothing_can_be_written_but_control():
    for node in a_caia().children.values():
        assert bool(node.mode & 0o222) == isinstance(node, ControlFile)


@pytest.mark.parametrize(
    ("caia_dir", "name"), [("hidden", b".caia"), ("visible", b".caia"), ("_meta", b"_meta")]
)
def test_the_directory_answers_to_its_name(caia_dir: str, name: bytes):
    assert a_caia(caia_dir=caia_dir).name == name


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (b"sync\n", ("sync", 60.0)),
        (b"sync", ("sync", 60.0)),
        (b"sync 5s\n", ("sync", 5.0)),
        (b"fetch a b/\xff\n", ("fetch", b"a b/\xff")),
        (b"reset-metrics\n", "reset-metrics"),
        (b"adopt\n", "adopt"),
        (b"begin\n", "begin"),
        (b"commit Say why\n", ("commit", "Say why", 7)),
        (b'commit "Say why"\n', ("commit", "Say why", 7)),
        (b"commit 'Say why'", ("commit", "Say why", 7)),
        (b"commit Say why\n\nBecause.\n", ("commit", "Say why\n\nBecause.", 7)),
        ("commit Grüße\n".encode(), ("commit", "Grüße", 7)),
        (b"commit\n", ("commit", "", 7)),
        (b"end\n", "end"),
    ],
)
async def test_commands_are_carried_out(data: bytes, asked: object):
    commands = RecordedCommands()

    await run_command(commands, data, 7)

    assert commands.asked == [asked]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"rm -rf\n",
        b"begin now\n",
        b"end now\n",
        b"abort\n",
        b"rollback\n",
        b"commit \xff\n",
        b"commit a\0b\n",
        b"sync soon\n",
        b"sync -1s\n",
        b"sync \xff\n",
        b"fetch\n",
        b"fetch \n",
        b"fetch /etc\n",
        b"fetch a/../b\n",
        b"fetch a\nsync\n",
        b"SYNC\n",
        b"reset-metrics now\n",
        b"sync\nsync\n",
        b"x" * 100_000,
    ],
)
async def test_anything_else_is_refused_and_does_nothing(data: bytes):
    commands = RecordedCommands()

    with pytest.raises(InvalidArgument):
        await run_command(commands, data, 7)

    assert commands.asked == []


async def test_a_command_s_failure_is_the_writer_s():
    with pytest.raises(NotFound):
        await run_command(RecordedCommands(), b"fetch missing\n", 7)
    with pytest.raises(DeadlineExceeded):
        await run_command(RecordedCommands(), b"sync 0s\n", 7)
