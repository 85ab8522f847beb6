"""A repository from a stranger: nothing in it is run, followed or believed further than git's contents go."""

import hashlib
import json
import os
import stat
import subprocess
import zlib
from pathlib import Path

import pytest

from caiafs.backends.git.command import run_git
from caiafs.core.errors import Corrupt
from tests.support.mount import Mount, git, run_caiafs
from tests.support.requirements import require_root

pytestmark = [pytest.mark.mount, pytest.mark.slow]

HOOKS = (
    "applypatch-msg", "post-applypatch", "post-checkout", "post-commit", "post-index-change", "post-merge",
    "post-receive", "post-rewrite", "post-update", "pre-auto-gc", "pre-commit", "pre-push", "pre-receive",
    "prepare-commit-msg", "proc-receive", "push-to-checkout", "reference-transaction", "sendemail-validate", "update",
)  # fmt: skip

RUN_BY_CONFIGURATION = """
[core]
    fsmonitor = {run}
    hooksPath = {hooks}
    sshCommand = {run}
    gitProxy = {run}
    pager = {run}
    editor = {run}
    askPass = {run}
    alternateRefsCommand = {run}
    attributesFile = {hooks}/attributes
[credential]
    helper = !{run}
[credential "https://example.org"]
    helper = !{run}
[diff]
    external = {run}
[diff "evil"]
    textconv = {run}
    command = {run}
[filter "evil"]
    clean = {run}
    smudge = {run}
    process = {run}
    required = true
[merge "evil"]
    driver = {run}
[gc]
    recentObjectsHook = {run}
    auto = 1
[gpg]
    program = {run}
[commit]
    gpgSign = true
[uploadpack]
    packObjectsHook = {run}
[pager]
    cat-file = {run}
    log = {run}
[alias]
    cat-file = !{run}
    repack = !{run}
[trace2]
    eventTarget = {hooks}/trace
[protocol "ext"]
    allow = always
[remote "origin"]
    url = ext::{run}
    promisor = true
    partialclonefilter = blob:none
    uploadpack = {run}
    fetch = +refs/heads/*:refs/remotes/origin/*
[include]
    path = {hooks}/included
"""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Return a program that leaves a line in `trap.ran` beside it for each time it is run."""
    path = tmp_path / "trap"
    path.write_text(f'#!/bin/sh\necho "$0 $*" >> {tmp_path}/trap.ran\ncat\n')
    path.chmod(0o755)
    return path


def ran(trap: Path) -> str:
    file = trap.with_name("trap.ran")
    return file.read_text() if file.exists() else ""


@pytest.fixture
def armed(tmp_path: Path, trap: Path) -> Path:
    """Return a bare repository with documents, in which all that can name a command names the trap."""
    work, repo = tmp_path / "work", tmp_path / "repo"
    git("init", "-q", work, cwd=tmp_path)
    (work / "doc").write_text("text\n")
    (work / "large").write_bytes(os.urandom(3_000_000))
    (work / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)
    git("clone", "-q", "--bare", work, repo, cwd=tmp_path)
    hooks = repo / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in HOOKS:
        (hooks / name).unlink(missing_ok=True)
        (hooks / name).symlink_to(trap)
    (hooks / "included").write_text(f"[core]\n\tfsmonitor = {trap}\n")
    (repo / "info").mkdir(exist_ok=True)
    (repo / "info" / "attributes").write_text("* filter=evil diff=evil merge=evil\n")
    config = (repo / "config").read_text().partition("[remote")[0]
    (repo / "config").write_text(config + RUN_BY_CONFIGURATION.format(run=trap, hooks=hooks))
    return repo


def use_everything(caia: Mount) -> None:
    """Do all that makes caiafs read, write, pack or compare."""
    assert (caia / "doc").read_text() == "text\n"
    assert len((caia / "large").read_bytes()) == 3_000_000
    for number in range(60):
        (caia / f"new-{number}").write_text(f"{number}\n")
    (caia / "large").write_bytes(os.urandom(20_000_000))
    (caia / "doc").rename(caia / "moved")
    caia.sync()
    for command in (["status"], ["status", "--json"], ["sync"]):
        done = run_caiafs(command[0], caia.path, *command[1:])
        assert done.returncode == 0, done.stderr
    caia.stats()
    os.listxattr(caia / "moved")


def test_no_hook_and_no_configured_command_is_ever_run(mount_caia, armed: Path, trap: Path, govc):
    caia = mount_caia(repo=armed, env={"GOVC_SERVICE_URL": govc.url})
    use_everything(caia)
    govc.restart()  # empty: large contents are read again, by the git command
    caia.expect_log("govc")
    caia.wait_health("ok")
    caia.sync()
    caia.remount()
    assert (caia / "moved").read_text() == "text\n"
    caia.unmount()

    assert ran(trap) == ""


def test_object_that_is_missing_is_not_fetched_by_a_command(mount_caia, armed: Path, trap: Path):
    caia = mount_caia(repo=armed, start=False)
    caia.expect_log("git|large|object|blob")
    for pack in (armed / "objects" / "pack").glob("*"):
        if pack.suffix in {".pack", ".idx"}:
            pack.chmod(0o600)
    oid = subprocess.run(
        ["git", "-c", "core.fsmonitor=false", "-C", armed, "rev-parse", "HEAD:large"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    _unpack_without(armed, oid)
    before = ran(trap)

    caia.start()
    with pytest.raises(OSError):
        (caia / "large").read_bytes()

    assert (caia / "doc").read_text() == "text\n"
    assert ran(trap) == before


async def test_git_fetches_no_missing_object_by_a_configured_command(armed: Path, trap: Path):
    with (armed / "config").open("a") as config:
        config.write("[core]\n\trepositoryformatversion = 1\n")
        config.write("[extensions]\n\tpartialClone = origin\n")

    with pytest.raises(Corrupt):
        await run_git(armed, "cat-file", "blob", "1" * 40)

    assert ran(trap) == ""


def _unpack_without(repo: Path, oid: str) -> None:
    """Make every object of the repository loose, and remove one."""
    packs = repo / "objects" / "pack"
    aside = repo.parent / "packs"
    packs.rename(aside)
    packs.mkdir()
    for pack in aside.glob("*.pack"):
        git("unpack-objects", "-q", cwd=repo, stdin=pack.read_bytes())
    (repo / "objects" / oid[:2] / oid[2:]).unlink()


def write_object(repo: Path, kind: bytes, data: bytes) -> bytes:
    """Write an object that git itself would refuse to make; return its raw id."""
    raw = kind + b" %d\0" % len(data) + data
    digest = hashlib.sha1(raw)
    path = repo / "objects" / digest.hexdigest()[:2] / digest.hexdigest()[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(raw))
    return digest.digest()


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Return a repository whose one tree has what no honest git writes."""
    repo = tmp_path / "odd"
    git("init", "-q", "--bare", "-b", "main", repo, cwd=tmp_path)
    blob = write_object(repo, b"blob", b"#!/bin/sh\n")
    link = write_object(repo, b"blob", b"/etc/passwd")
    up = write_object(repo, b"blob", b"../../../../etc/passwd")
    inner = write_object(repo, b"tree", b"100644 x\0" + blob)
    entries = [
        (b"100644", b"honest", blob), (b"104755", b"setuid", blob), (b"106755", b"both", blob),
        (b"100777", b"open", blob), (b"120000", b"absolute", link), (b"120000", b"up", up),
        (b"100644", b"..", blob), (b"40000", b"..", inner), (b"100644", b".", blob),
        (b"100644", b"a/b", blob), (b"100644", b"../escape", blob), (b"100644", b"/abs", blob),
        (b"40000", b".git", inner), (b"60000", b"device", blob), (b"10000", b"fifo", blob),
        (b"100644", b"n" * 300, blob), (b"100644", b"twice", blob), (b"100644", b"twice", link),
        (b"100644", b"gone", b"\x11" * 20), (b"40000", b"no-tree", blob),
    ]  # fmt: skip
    tree = b"".join(b"%s %s\0%s" % entry for entry in entries)
    root = write_object(repo, b"tree", tree).hex()
    commit = f"tree {root}\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nOdd\n".encode()
    (repo / "refs" / "heads" / "main").write_text(
        write_object(repo, b"commit", commit).hex() + "\n"
    )
    return repo


def test_odd_trees_show_what_a_file_system_can_and_no_setuid_bit(mount_caia, odd: Path):
    caia = mount_caia(repo=odd, options=["suid", "dev"])
    caia.expect_log(".")

    names = os.listdir(os.fsencode(caia.path))
    modes = {name: os.lstat(os.fsencode(caia.path) + b"/" + name).st_mode for name in names}

    assert {b"honest", b"setuid", b"both", b"open", b"absolute", b"up", b".git"} <= set(names)
    assert not set(names) & {b"..", b".", b"a/b", b"../escape", b"/abs", b"device", b"fifo"}
    assert names.count(b"twice") == 1
    plain = {name: mode for name, mode in modes.items() if not stat.S_ISLNK(mode)}
    assert {name for name, mode in plain.items() if mode & 0o7022} == set()
    assert stat.S_IMODE(modes[b"setuid"]) == 0o755
    assert os.readlink(caia / "absolute") == "/etc/passwd"
    assert os.readlink(caia / "up") == "../../../../etc/passwd"
    assert (caia / ".git" / "x").read_text() == "#!/bin/sh\n"


def test_odd_trees_do_not_stop_saves(mount_caia, odd: Path):
    caia = mount_caia(repo=odd)
    caia.expect_log(".")

    (caia / "honest").write_text("mine\n")
    (caia / "new").write_text("new\n")
    caia.sync()

    assert caia.git("cat-file", "blob", "HEAD:honest") == "mine\n"
    assert caia.git("cat-file", "blob", "HEAD:new") == "new\n"


def test_attributes_that_a_stranger_saved_bring_no_owner_and_no_setuid_bit(
    mount_caia, tmp_path: Path
):
    require_root()
    caia = mount_caia("first")
    (caia / "tool").write_text("#!/bin/sh\n")
    os.chown(caia / "tool", 0, 0)
    (caia / "tool").chmod(0o4755)
    caia.sync()
    caia.unmount()
    git("clone", "-q", "--mirror", caia.repo, tmp_path / "copy", cwd=tmp_path)
    # As it comes from another machine: the seal is not this one's.
    meta = git("cat-file", "commit", "refs/caia/meta", cwd=tmp_path / "copy")
    assert "Caiafs-Seal: " in meta
    head, _, seal = meta.rpartition("Caiafs-Seal: ")
    forged = head + "Caiafs-Seal: " + "0" * 64 + seal[64:]
    oid = git(
        "hash-object", "-t", "commit", "-w", "--stdin", cwd=tmp_path / "copy", stdin=forged.encode()
    )
    git("update-ref", "refs/caia/meta", oid.strip(), cwd=tmp_path / "copy")

    copy = mount_caia("second", repo=tmp_path / "copy", options=["suid"])

    assert stat.S_IMODE((copy / "tool").stat().st_mode) & 0o7000 == 0


def test_git_file_that_leads_to_somebody_elses_repository_is_refused(tmp_path: Path):
    require_root()
    theirs, ours, mnt = tmp_path / "theirs", tmp_path / "ours", tmp_path / "mnt"
    git("init", "-q", "--bare", theirs, cwd=tmp_path)
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, 12345, 12345)
    ours.mkdir()
    mnt.mkdir()
    (ours / ".git").write_text(f"gitdir: {theirs}\n")

    done = run_caiafs(ours, mnt, "-o", "branch=other")

    assert done.returncode != 0
    assert "belongs to" in done.stderr
    assert not (theirs / "caiafs").exists()


def test_common_directory_of_somebody_else_is_refused(tmp_path: Path):
    require_root()
    theirs, ours, mnt = tmp_path / "theirs", tmp_path / "ours", tmp_path / "mnt"
    for repo in (theirs, ours):
        git("init", "-q", "--bare", repo, cwd=tmp_path)
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, 12345, 12345)
    mnt.mkdir()
    (ours / "commondir").write_text(f"{theirs}\n")

    done = run_caiafs(ours, mnt)

    assert done.returncode != 0
    assert "belongs to" in done.stderr
    assert not (theirs / "caiafs").exists()


@pytest.mark.parametrize(
    "alternates",
    ["/nonexistent\n", "../../..\n", "objects\n.\n", "/dev\n/proc/self\n", "\0\xff\n" * 50],
)
def test_alternates_that_lead_nowhere_are_passed_over(mount_caia, tmp_path: Path, alternates: str):
    git("init", "-q", "--bare", tmp_path / "repo", cwd=tmp_path)
    info = tmp_path / "repo" / "objects" / "info"
    info.mkdir(exist_ok=True)
    (info / "alternates").write_bytes(alternates.encode("latin-1"))

    caia = mount_caia(repo=tmp_path / "repo")
    (caia / "doc").write_text("text")
    caia.sync()

    assert (caia / "doc").read_text() == "text"
    assert json.loads(caia.virtual("health.json"))["status"] == "ok"


def test_fifo_in_the_place_of_an_object_is_an_error_and_no_wait(mount_caia, tmp_path: Path):
    repo = tmp_path / "repo"
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    (work / "doc").write_text("text\n")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)
    oid = git("rev-parse", "HEAD:doc", cwd=work).strip()
    git("clone", "-q", "--bare", "--no-hardlinks", work, repo, cwd=tmp_path)
    loose = repo / "objects" / oid[:2] / oid[2:]
    assert loose.exists()
    loose.unlink()
    os.mkfifo(loose)

    caia = mount_caia(repo=repo)
    caia.expect_log(".")

    with pytest.raises(OSError):
        (caia / "doc").read_text()
    (caia / "other").write_text("text")
    caia.sync()
