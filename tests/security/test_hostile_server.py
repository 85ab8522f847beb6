"""A govc server that means harm: what it says is refused, saves go to git, and the store process lives on in bounded memory."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
import trio

from caiafs.backends.govc import GovcBackend
from caiafs.core.errors import Corrupt, Misconfigured, Unreachable
from caiafs.core.types import DocPath, blob_id
from tests.security.conftest import a_world_on
from tests.support.govc_documents import Contents, a_change_set
from tests.support.hostile_server import BODIES, answer, said

pytestmark = pytest.mark.slow

MIB = 1 << 20
ROUTES = {
    "everything": r".*",
    "the log": r"GET .*/commits\?",
    "a listing": r"GET .*/files$",
    "a read": r"GET .*/files\?path=",
    "a commit": r"POST .*/commits$",
}


def spoil(server, route, make):
    """Have `server` answer what `make` makes wherever `route` matches."""
    pattern = re.compile(route)
    make()  # some take a while to make
    server.start_attack(
        lambda method, target: make() if pattern.match(f"{method} {target}") else None
    )


def commit_as_another(server, files, message="Write as another client"):
    """Commit `files` (name to text) past caiafs."""
    fields = {
        "message": message,
        "author": "Other",
        "email": "other@example.org",
        "files": [
            {"path": path, "content": text, "encoding": "utf-8"} for path, text in files.items()
        ],
    }
    request = urllib.request.Request(
        f"{server.url}/api/v1/repos/docs/commits",
        data=json.dumps(fields).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 201


def peak_bytes(pid):
    """Return the largest resident memory that the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[0]) * 1024


def bad_lines(world):
    lines = (world.state_dir / "log.store").read_text().splitlines()
    return [line for line in lines if " ERROR " in line or "Traceback" in line]


async def attacked(server, timeout_s=30):
    with trio.fail_after(timeout_s):
        while not server.attacked:  # noqa: ASYNC110 - it lives in threads
            await trio.sleep(0.02)


async def error_of(ask):
    """Await `ask()` and return the error of ours that comes of it, None without; any other error is raised."""
    try:
        await ask()
    except (Corrupt, Unreachable, Misconfigured) as exc:
        return exc
    return None


@pytest.mark.parametrize("what", BODIES)
async def test_nonsense_for_an_answer_is_an_error_of_ours_on_every_route(hostile, what):
    contents = Contents()
    backend = GovcBackend(
        hostile.settings(operation_timeout_s=2.0, request_timeout_s=2.0), contents
    )
    await backend.connect()
    await backend.commit(a_change_set({b"the/path": contents.put(b"text")}, operation="w-1-1"))
    more = a_change_set({b"another": contents.put(b"more")}, operation="w-2-2")
    asked = {
        "everything": backend.connect,
        "the log": lambda: backend.log(16),
        "a listing": backend.listing,
        "a read": lambda: backend.read(DocPath(b"the/path")),
        "a commit": lambda: backend.commit(more),
    }

    for name, ask in asked.items():
        spoil(hostile, ROUTES[name], BODIES[what])
        error = await error_of(ask)
        assert hostile.attacked
        if (
            name != "everything"
        ):  # nothing of the first answers is believed, so they need not make sense
            assert error is not None, name
        if name == "a read" and isinstance(error, Corrupt):
            assert "the/path" in str(error)
        hostile.stop_attack()
        await backend.connect()

    found = await backend.read(DocPath(b"the/path"))
    await backend.aclose()
    assert found is not None
    assert found.content == b"text"


@pytest.mark.parametrize("what", ["a swarm", "a body without end", "a nest", "a redirect"])
async def test_nonsense_for_an_answer_costs_no_save_no_process_and_no_memory(
    tmp_path, hostile, what
):
    async with a_world_on(tmp_path, hostile) as world:
        world.put("before", b"1\n")
        assert (await world.sync()).left == {"git": 0, "govc": 0}
        before = world.process.statistics()

        for number, (name, route) in enumerate([*ROUTES.items()][:3]):
            spoil(hostile, route, BODIES[what])
            commit_as_theirs = {f"theirs-{number}": f"{number}\n"}
            if name == "a listing":
                commit_as_another_honestly(hostile, commit_as_theirs)
            world.put(f"ours-{number}", b"%d\n" % number)
            assert await world.stored() == "", name
            assert world.content(f"ours-{number}") == f"{number}\n"
            await attacked(hostile)
            hostile.stop_attack()
            assert (await world.sync()).left == {"git": 0, "govc": 0}, name

        after = world.process.statistics()
        assert (after.pid, after.restarts) == (before.pid, 0)
        assert peak_bytes(after.pid) < 700 * MIB
        assert bad_lines(world) == []
    world.git("fsck", "--strict", "--no-dangling")


def commit_as_another_honestly(server, files):
    attack = server.service.attack
    server.service.attack = lambda *_: None
    commit_as_another(server, files)
    server.service.attack = attack


BAD_NAMES = (
    "../outside",
    "a/../../outside",
    "/absolute",
    "nul\0inside",
    "two//slashes",
    "ends/",
    "",
    ".",
    "..",
    "a/./b",
    "half \ud800 character",
    "x/" * 10_000 + "y",
    "n" * 300,
    "caiafs-escaped/%2E%2E/x",
    "caiafs-escaped/../x",
    "caiafs-long/../../x",
    "caiafs-parts/../x",
    "c" * 5_000_000,
)


async def test_names_that_no_file_can_have_are_left_out_and_the_others_come(tmp_path, hostile):
    def listing():
        files = hostile.service.repositories["docs"].files
        honest = [hostile.service.repositories["docs"].describe(path) for path in files]
        bad = [{"path": n, "hash": blob_id(b"x"), "size": 1, "mode": "100644"} for n in BAD_NAMES]
        return said({"head": "", "files": [*bad, *honest, {"path": "no hash", "size": "x"}]})

    async with a_world_on(tmp_path, hostile) as world:
        world.put("ours", b"1\n")
        await world.sync()
        spoil(hostile, ROUTES["a listing"], listing)

        commit_as_another_honestly(
            hostile,
            {"theirs": "2\n", ".git/config": "[core]\n\tfsmonitor = false\n", "a\\b": "3\n"},
        )
        await world.wait_for(lambda: b"theirs" in world.shown, "the honest document comes")

        assert hostile.attacked
        assert sorted(world.shown) == [b".git/config", b"a\\b", b"ours", b"theirs"]
        assert not (tmp_path / "outside").exists()
        assert bad_lines(world) == []
    world.git("fsck", "--strict", "--no-dangling")


@pytest.mark.parametrize(
    "lie",
    [
        {"hash": blob_id(b"something else")},
        {"hash": "../../etc/passwd"},
        {"hash": 7},
        {"size": 1 << 50},
        {"size": -5},
        {"size": True},
        {"mode": "104755"},
        {"mode": "040000"},
        {"mode": "160000"},
        {"mode": 7},
        {"kind": "caiafs-envelope"},
        {"kind": ["x"]},
        {"path": "another"},
        {"encoding": "rot13"},
        {"content": None},
    ],
    ids=str,
)
async def test_lies_about_a_document_bring_its_true_content_or_its_name_into_the_log(
    tmp_path, hostile, lie
):
    text = b"the true content\n"

    def one(described):
        # Under another name in the listing, nobody could know of it.
        is_it = described["path"] == "lied-about" and "path" not in lie
        return described | lie if is_it else described

    def shown(method, target):
        if method != "GET" or "/files" not in target:
            return None
        repository = hostile.service.repositories["docs"]
        if "?path=lied-about" in target:
            return said(repository.show("lied-about") | lie)
        if target.endswith("/files"):
            return said(
                {"head": "", "files": [one(repository.describe(p)) for p in repository.files]}
            )
        return None

    async with a_world_on(tmp_path, hostile) as world:
        world.put("ours", b"1\n")
        await world.sync()
        hostile.start_attack(shown)
        commit_as_another_honestly(hostile, {"lied-about": text.decode(), "theirs": "2\n"})

        await world.wait_for(lambda: b"theirs" in world.shown, "the honest document comes")
        log = world.state_dir / "log.store"
        await world.wait_for(
            lambda: b"lied-about" in world.shown or "lied-about" in log.read_text(),
            "it is there, or named",
        )

        if b"lied-about" in world.shown:
            assert world.shown[b"lied-about"].oid == blob_id(text)
            assert world.content("lied-about").encode() == text
        world.put("later", b"3\n")
        assert await world.stored() == ""
        assert world.process.statistics().restarts == 0
        assert bad_lines(world) == []
    world.git("fsck", "--strict", "--no-dangling")


@pytest.mark.parametrize(
    "change",
    [
        {"message": "x" * 5_000_000},
        {
            "message": "half \ud800 of a character\n\nCaiafs-Put: \udfff\nCaiafs-Operation: \ud800-1-2"
        },
        {"message": "T\n\nCaiafs-Operation: ../../x-9999999999999999999999-1"},
        {"message": "T\n\nCaiafs-Put: %00%ff/../../x " + "f" * 40 + " " + "0" * 39 + "g"},
        {"author": "A\nB <x>\0", "email": "<<>>\n"},
        {"author": "\ud800" * 100},
        {"timestamp": "9999-12-31T23:59:59.999999999Z"},
        {"timestamp": "0001-01-01T00:00:00Z"},
        {"timestamp": "2024-02-30T00:00:00Z"},
        {"timestamp": 12},
        {"parent": "\0" * 1000},
    ],
    ids=lambda change: ascii(change)[:60],
)
async def test_commit_of_somebody_hostile_brings_its_documents_and_nothing_else(
    tmp_path, hostile, change
):
    def log(method, target):
        if method != "GET" or "/commits?" not in target:
            return None
        commits = hostile.service.repositories["docs"].commits
        return said({"commits": [c | change if c["author"] == "Other" else c for c in commits]})

    async with a_world_on(tmp_path, hostile) as world:
        world.put("ours", b"1\n")
        await world.sync()
        hostile.start_attack(log)
        commit_as_another_honestly(hostile, {"theirs": "2\n"})
        world.put("later", b"3\n")
        assert await world.stored() == ""

        hostile_number = change.get("timestamp") == 12
        if not hostile_number:  # such a log is refused as a whole
            await world.wait_for(lambda: b"theirs" in world.shown, "their document comes")
        hostile.stop_attack()
        await world.wait_for(lambda: b"theirs" in world.shown, "their document comes")

        assert world.process.statistics().restarts == 0
        assert bad_lines(world) == []
        assert world.agrees()
    world.git("fsck", "--strict", "--no-dangling")


async def test_server_that_says_it_is_not_json_is_told_apart_from_govc(tmp_path, hostile):
    async with a_world_on(tmp_path, hostile) as world:
        spoil(hostile, ".*", lambda: answer(b"<html>", Content_Type="text/html"))
        world.put("ours", b"1\n")

        assert await world.stored() == ""
        await world.wait_for(
            lambda: "not govc" in str(world.report["backends"]["govc"]["reasons"]), "health says so"
        )
