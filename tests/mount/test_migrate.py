"""`caiafs migrate` brings every document over by its hash, goes on where it was, and overwrites nothing unasked."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import MountFactory, govc_environment
from tests.mount.agreement import differences, document_paths
from tests.support.fresh_reader import read_govc
from tests.support.govc_peek import Peek
from tests.support.govc_server import GovcServer, GovcServers
from tests.support.mount import Mount, caiafs_command, clean_environment, git, run_caiafs
from tests.support.upkeep import NEVER, digests, save_some
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.fixture
def saved(mount_caia: MountFactory) -> Mount:
    """Return a mount with odd, empty, binary and large documents, synced and unmounted."""
    caia = mount_caia()
    save_some(caia.path)
    for name in ("sp ace.txt", "日本語.md", "#hash%41", "con:colon", "quote'\"", "a" * 200):
        (caia / "odd").mkdir(exist_ok=True)
        (caia / "odd" / name).write_text(f"document {name}\n")
    (caia / ".hidden").write_text("at the root")
    (caia / "binary").write_bytes(bytes(range(256)) * 40)
    (caia / "huge").write_bytes(os.urandom(1 << 20) * 12)
    caia.sync(timeout_s=60)
    caia.unmount()
    return caia


def migrate(
    source: object, target: object, *args: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_caiafs("migrate", str(source), str(target), *args, env=env, timeout_s=200)


def place(govc: GovcServer, name: str = "docs") -> str:
    return f"{govc.url}#{name}"


def check_govc(caia: Mount, govc: GovcServer, scratch: Path) -> None:
    """Check that a new process reads from govc what a clone of the repository has."""
    clone = caia.clone(scratch / "clone")
    read = read_govc(govc.url, document_paths(clone), scratch / "read", repository="docs")
    assert differences(clone, read) == ""


# --- git to govc


@pytest.mark.govc
@pytest.mark.parametrize("architecture", ["new", "old"])
def test_every_document_of_a_repository_arrives_in_govc(
    saved: Mount, govc_servers: GovcServers, tmp_path: Path, architecture: str
):
    govc = govc_servers(architecture=architecture)

    done = migrate(saved.repo, place(govc))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified" in done.stdout
    check_govc(saved, govc, tmp_path)
    again = migrate(saved.repo, place(govc))
    assert again.returncode == 0
    assert ": 0 copied" in again.stdout


@pytest.mark.govc
def test_a_mount_goes_on_with_that_govc_without_adopting(
    saved: Mount, govc: GovcServer, mount_caia: MountFactory
):
    assert migrate(saved.repo, place(govc)).returncode == 0
    env = {**govc_environment(govc), "GOVC_REPO_NAME": "docs"}

    caia = mount_caia("again", repo=saved.repo, env=env)

    (caia / "small").write_text("written through the mount\n")
    caia.sync(timeout_s=60)
    assert Peek(govc.url).text("small") == "written through the mount\n"


@pytest.mark.govc
def test_what_differs_in_govc_is_named_and_left_alone(saved: Mount, govc: GovcServer):
    assert migrate(saved.repo, place(govc)).returncode == 0
    Peek(govc.url).write({"small": "somebody else's\n"})

    done = migrate(saved.repo, place(govc))

    assert done.returncode == 3
    assert "differs in the target, left as it is: small\n" in done.stdout
    assert Peek(govc.url).text("small") == "somebody else's\n"
    assert migrate(saved.repo, place(govc), "--overwrite").returncode == 0
    assert Peek(govc.url).text("small") == "small \n"


@pytest.mark.govc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_migration_to_govc_goes_on(
    caia: Mount, govc: GovcServer, tmp_path: Path, number: signal.Signals
):
    (caia / "many").mkdir()
    for index in range(900):
        (caia / "many" / f"doc-{index}").write_text(f"document {index}\n")
    caia.sync(timeout_s=100)
    caia.unmount()
    process = subprocess.Popen(
        caiafs_command("migrate", caia.repo, place(govc)),
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: len(Peek(govc.url).log()) >= 2, "two batches arrived", timeout_s=60)
    process.send_signal(number)
    process.communicate(timeout=60)

    done = migrate(caia.repo, place(govc))

    assert done.returncode == 0, done.stdout + done.stderr
    copied, there = (int(word) for word in done.stdout.split() if word.isdigit())
    assert there >= 400
    assert copied + there == 900
    check_govc(caia, govc, tmp_path)


# --- govc to git


@pytest.mark.govc
@pytest.mark.parametrize("architecture", ["new", "old"])
def test_every_document_of_govc_arrives_in_a_new_repository(
    saved: Mount, govc_servers: GovcServers, tmp_path: Path, architecture: str
):
    govc = govc_servers(architecture=architecture)
    assert migrate(saved.repo, place(govc)).returncode == 0

    done = migrate(place(govc), tmp_path / "new.git")

    # The default architecture lists the first level only: the rest is known from the log.
    assert done.returncode == (3 if architecture == "new" else 0), done.stdout + done.stderr
    git("clone", "-q", tmp_path / "new.git", tmp_path / "clone", cwd=tmp_path)
    assert digests(tmp_path / "clone") == digests(saved.clone(tmp_path / "origin"))
    assert git("fsck", "--strict", "--no-dangling", cwd=tmp_path / "new.git") == ""
    message = git("log", "--format=%B", cwd=tmp_path / "new.git")
    assert f"Caiafs-Source: {place(govc)}" in message
    assert "Bring" in message
    again = migrate(place(govc), tmp_path / "new.git")
    assert ": 0 copied" in again.stdout


@pytest.mark.govc
def test_documents_that_govc_cannot_list_are_named_by_a_file(govc: GovcServer, tmp_path: Path):
    assert ": 0 copied" in migrate(place(govc), tmp_path / "empty.git").stdout  # makes it in govc
    Peek(govc.url).write({"top.txt": "a\n", "deep/er/doc.txt": "b\n"})
    (tmp_path / "list").write_text("deep/er/doc.txt\n")

    without = migrate(place(govc), tmp_path / "one.git")
    done = migrate(place(govc), tmp_path / "new.git", "--from", str(tmp_path / "list"))

    assert without.returncode == 3
    assert "--from" in without.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert git("show", "HEAD:deep/er/doc.txt", cwd=tmp_path / "new.git") == "b\n"
    assert git("show", "HEAD:top.txt", cwd=tmp_path / "new.git") == "a\n"


@pytest.mark.govc
def test_what_differs_in_git_is_named_and_left_alone(saved: Mount, govc_servers: GovcServers):
    govc = govc_servers(architecture="old")
    assert migrate(saved.repo, place(govc)).returncode == 0
    head = git("rev-parse", "HEAD", cwd=saved.repo)
    clone = saved.clone(saved.base / "work")
    (clone / "small").write_text("newer in git\n")
    git("commit", "-qam", "Change", cwd=clone)
    git("push", "-q", cwd=clone)

    done = migrate(place(govc), saved.repo)

    assert done.returncode == 3
    assert "left as it is: small" in done.stdout
    assert git("show", "HEAD:small", cwd=saved.repo) == "newer in git\n"
    assert git("rev-parse", "HEAD^", cwd=saved.repo) == head
    assert migrate(place(govc), saved.repo, "--overwrite").returncode == 0
    assert git("show", "HEAD:small", cwd=saved.repo) == "small \n"
    assert git("show", "HEAD^:small", cwd=saved.repo) == "newer in git\n"


@pytest.mark.govc
def test_mounted_repository_is_no_target(caia: Mount, govc: GovcServer):
    done = migrate(place(govc), caia.repo)

    assert done.returncode == 6
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.govc
def test_token_is_never_an_argument(govc: GovcServer, tmp_path: Path):
    secret = "govc_secret-token"

    done = migrate(place(govc), tmp_path / "new.git", "--govc-auth-token", secret)

    assert done.returncode == 2
    assert secret not in done.stdout + done.stderr


def test_govc_that_is_away_is_one_line(saved: Mount):
    done = migrate(saved.repo, "http://127.0.0.1:9#docs")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9", "http://127.0.0.1:9#", "http://127.0.0.1:9#a/b"]
)
def test_govc_without_a_good_repository_name_is_a_usage_error(tmp_path: Path, target: str):
    assert migrate(tmp_path, target).returncode == 2


# --- repository to repository


def test_repository_arrives_with_its_history_and_attributes(
    saved: Mount, mount_caia: MountFactory, tmp_path: Path
):
    done = migrate(saved.repo, tmp_path / "new.git")

    assert done.returncode == 0, done.stdout + done.stderr
    assert git("for-each-ref", cwd=tmp_path / "new.git") == git("for-each-ref", cwd=saved.repo)
    assert git("fsck", "--strict", "--no-dangling", cwd=tmp_path / "new.git") == ""
    hashes = digests(saved.clone(tmp_path / "clone"))
    caia = mount_caia("new", repo=tmp_path / "new.git")
    assert digests(caia.path) == hashes


def test_what_is_new_since_follows_and_what_went_another_way_stays(saved: Mount, tmp_path: Path):
    target = tmp_path / "new.git"
    assert migrate(saved.repo, target).returncode == 0
    saved.start()
    (saved / "later").write_text("saved later")
    saved.sync()
    saved.unmount()
    assert migrate(saved.repo, target).returncode == 0
    assert git("show", "HEAD:later", cwd=target) == "saved later"
    git("clone", "-q", target, tmp_path / "work", cwd=tmp_path)
    (tmp_path / "work" / "small").write_text("of the target")
    git("commit", "-qam", "Go another way", cwd=tmp_path / "work")
    git("push", "-q", cwd=tmp_path / "work")
    other = git("rev-parse", "HEAD", cwd=target).strip()
    saved.start()
    (saved / "small").write_text("of the source")
    saved.sync()
    saved.unmount()

    done = migrate(saved.repo, target)

    assert done.returncode == 3
    assert "refs/heads/main: small" in done.stdout
    assert git("rev-parse", "HEAD", cwd=target).strip() == other
    assert migrate(saved.repo, target, "--overwrite").returncode == 0
    assert git("show", "HEAD:small", cwd=target) == "of the source"
    assert git("rev-parse", f"refs/caia/lost/{other}", cwd=target).strip() == other


def test_state_directory_of_the_source_takes_nothing_of_the_target(
    mount_caia: MountFactory, tmp_path: Path
):
    git("init", "-q", "--bare", tmp_path / "old.git", cwd=tmp_path)
    where = tmp_path / "state"
    caia = mount_caia(repo=tmp_path / "old.git", options=(f"state_dir={where}",))
    (caia / "doc").write_text("saved")
    caia.sync()
    caia.unmount()

    done = migrate(caia.repo, tmp_path / "new.git", env={"CAIAFS_STATE_DIR": str(where)})

    assert done.returncode == 0, done.stdout + done.stderr
    assert git("show", "HEAD:doc", cwd=tmp_path / "new.git") == "saved"


def test_source_with_pending_saves_is_refused(mount_caia: MountFactory, tmp_path: Path):
    caia = mount_caia(options=NEVER)
    (caia / "doc").write_text("pending")
    caia.kill9()

    done = migrate(caia.repo, tmp_path / "new.git")

    assert done.returncode == 3
    assert "not published yet" in done.stderr
    assert not (tmp_path / "new.git").exists()


def test_damaged_source_moves_no_reference(saved: Mount, tmp_path: Path):
    git("repack", "-adq", cwd=saved.repo)
    (pack,) = (saved.repo / "objects" / "pack").glob("*.pack")
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(b"damage" * 20)

    done = migrate(saved.repo, tmp_path / "new.git")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert git("for-each-ref", cwd=tmp_path / "new.git") == ""


def test_mount_point_that_is_named_like_a_command_needs_mount(tmp_path: Path):
    (tmp_path / "backup").mkdir()

    done = run_caiafs("backup", cwd=tmp_path)

    assert done.returncode == 2
    assert "caiafs backup --help" in done.stderr
