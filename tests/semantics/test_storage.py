"""Proofs of caiafs-semantics(7): what is stored where."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from caiafs.cli.exits import ExitCode
from tests.conftest import MountFactory
from tests.support.mount import Mount, children, git, run_caiafs
from tests.support.promises import promise
from tests.support.requirements import require_root
from tests.support.syscalls import kept_attributes
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@promise(
    "W1",
    "A published document is in git under its own path with its bytes as they are, with its"
    " executable bit or as a symbolic link; git clone gets it.",
)
def test_documents_are_in_git_as_they_are(caia: Mount, tmp_path: Path):
    folder = caia / "a folder" / "f\u00fcr"
    folder.mkdir(parents=True)
    contents = {"text": b"line\r\n", "binary": bytes(range(256)) * 500, "empty": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("text")

    caia.sync()

    cloned = caia.clone(tmp_path / "clone") / "a folder" / "f\u00fcr"
    assert {name: (cloned / name).read_bytes() for name in contents} == contents
    assert os.access(cloned / "run", os.X_OK)
    assert (cloned / "link").readlink() == Path("text")


@promise(
    "W2",
    "Every commit of caiafs carries the trailer Caiafs-Operation, which never occurs twice.",
)
def test_every_commit_carries_its_operation_once(caia: Mount):
    for i in range(20):
        (caia / "doc").write_text(f"version {i}\n")
        if i % 7 == 6:
            caia.kill9()
            caia.start()
    caia.sync()

    shown = caia.git("log", "--format=%(trailers:key=Caiafs-Operation,valueonly,separator=%x2C)")

    operations = shown.split("\n")[: len(caia.commits())]
    assert all(operations)
    assert not any("," in operation for operation in operations)
    assert len(set(operations)) == len(operations)


@promise(
    "W3",
    "Owners, modes, times to the nanosecond, extended attributes, hard links and empty directories"
    " are kept in the state directory and outlive a remount.",
)
def test_attributes_outlive_a_remount(caia: Mount):
    (caia / "empty").mkdir(mode=0o711)
    doc = caia / "doc"
    doc.write_text("text")
    doc.chmod(0o4751)
    if os.geteuid() == 0:
        os.chown(doc, 1234, 2345)
        doc.chmod(0o4751)
    os.setxattr(doc, "user.note", b"kept")
    (caia / "hard").hardlink_to(doc)
    os.utime(doc, ns=(1_111_111_111_111_111_111, 1_222_222_222_222_222_222))
    before = [kept_attributes(doc), kept_attributes(caia / "empty")]

    caia.remount()

    assert [kept_attributes(doc), kept_attributes(caia / "empty")] == before
    assert os.getxattr(doc, "user.note") == b"kept"
    assert (caia / "hard").stat().st_ino == doc.stat().st_ino


@promise(
    "W4",
    "FIFOs, sockets and devices are kept in the state directory and are never published.",
)
def test_special_files_are_kept_and_never_published(caia: Mount):
    os.mkfifo(caia / "fifo")
    os.mknod(caia / "socket", 0o600 | stat.S_IFSOCK)
    if os.geteuid() == 0:
        os.mknod(caia / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    (caia / "doc").write_text("text")

    caia.sync()
    caia.remount()

    assert stat.S_ISFIFO((caia / "fifo").stat().st_mode)
    assert stat.S_ISSOCK((caia / "socket").stat().st_mode)
    assert caia.git("ls-tree", "-r", "--name-only", "HEAD").split() == ["doc"]
    if os.geteuid() == 0:
        assert (caia / "device").stat().st_rdev == os.makedev(1, 3)


@promise(
    "W5",
    "Editors' temporary files (the setting local_patterns) are full files that outlive a remount"
    " and are never published; renaming one to another name publishes it.",
)
def test_temporary_files_are_kept_and_never_published(caia: Mount):
    names = [".doc.swp", "4913", "doc~", ".#doc", "#doc#", ".~lock.doc#", "~$doc", ".DS_Store"]
    for name in names:
        (caia / name).write_text(name)
    caia.sync()

    caia.remount()

    assert {name: (caia / name).read_text() for name in names} == {name: name for name in names}
    assert caia.commits() == []
    (caia / "doc~").rename(caia / "doc")
    caia.sync()
    assert caia.git("ls-tree", "-r", "--name-only", "HEAD").split() == ["doc"]


@promise(
    "W6",
    "A name that git refuses, such as .git, is kept in git under an escaped name; git fsck"
    " --strict finds nothing wrong.",
)
def test_names_that_git_refuses_are_escaped(caia: Mount):
    names = [".git", ".GIT", "git~1", ".g\u200cit", "a\\.git"]
    for name in names:
        (caia / "folder" / name).mkdir(parents=True)
        (caia / "folder" / name / "doc").write_text(name)

    caia.sync()
    caia.unmount()
    for path in (caia.repo / "caiafs").glob("*.db*"):
        path.unlink()  # so that the names come back from git
    caia.start()

    assert sorted(os.listdir(caia / "folder")) == sorted(names)
    assert {name: (caia / "folder" / name / "doc").read_text() for name in names} == {
        name: name for name in names
    }
    assert caia.git("fsck", "--strict", "--no-dangling") == ""


@promise(
    "W7",
    "The state directory can be read by its owner only, and lies in the repository's git directory"
    " unless state_dir says otherwise; the repository can be moved while it is not mounted, with"
    " all that is pending.",
)
def test_state_directory_is_private_and_moves_with_the_repository(
    mount_caia: MountFactory, tmp_path: Path
):
    caia = mount_caia(options=["commit=fsync", "commit_max_age=1h"])
    (caia / "doc").write_text("pending")
    caia.kill9()
    assert stat.S_IMODE((caia.repo / "caiafs").stat().st_mode) == 0o700
    caia.close()

    moved = mount_caia(repo=caia.repo.rename(tmp_path / "moved"))

    assert (moved / "doc").read_text() == "pending"
    moved.sync()
    assert moved.git("cat-file", "blob", "HEAD:doc") == "pending"


@promise(
    "W8",
    "caiafs never moves the branch that a working tree has checked out; it refuses to mount it.",
)
def test_checked_out_branch_is_refused(tmp_path: Path):
    work, mnt = tmp_path / "work", tmp_path / "mnt"
    mnt.mkdir()
    git("init", "-q", work, cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "Start", cwd=work)
    before = git("rev-parse", "HEAD", cwd=work)

    done = run_caiafs(work, mnt)

    assert done.returncode == ExitCode.REPOSITORY
    assert git("rev-parse", "HEAD", cwd=work) == before


@promise("W9", "Mounting and reading a repository changes none of its branches.")
def test_reading_changes_no_branch(mount_caia: MountFactory, tmp_path: Path):
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    (work / "doc").write_text("text")
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)
    git("clone", "-q", "--mirror", work, tmp_path / "bare", cwd=tmp_path)
    before = git("for-each-ref", "refs/heads", cwd=tmp_path / "bare")

    caia = mount_caia(repo=tmp_path / "bare")
    assert (caia / "doc").read_text() == "text"
    caia.sync()
    caia.unmount()

    assert git("for-each-ref", "refs/heads", cwd=caia.repo) == before


@promise(
    "W10",
    "With neither GOVC_SERVICE_URL nor CAIA_USE_GOVC=true nor CAIA_GIT_REMOTE nothing is sent over the"
    " network, and health is ok.",
)
def test_without_govc_no_process_has_a_network_socket(caia: Mount):
    for i in range(50):
        (caia / f"doc-{i}").write_text("text")
    caia.sync()

    assert network_sockets(caia.pid) | network_sockets(caia.store_pid) == set()
    assert children(caia.store_pid) == []
    caia.wait_health("ok")
    assert caia.health()["mode"] == "git only"


@promise(
    "W11",
    "Owners, modes, times to the nanosecond, extended attributes, hard links and empty directories"
    " are saved in git, under refs/caia/meta, when changes pause, by caiafs sync, and at unmount;"
    " where the state directory is lost, and in a mirror clone, the next mount begins with them.",
)
def test_attributes_outlive_the_state_directory(
    caia: Mount, mount_caia: MountFactory, tmp_path: Path
):
    def shown(mount: Mount) -> list[dict[str, int]]:
        found = [kept_attributes(mount / name) for name in ("doc", "d/hard", "empty")]
        # Both are new with a new state directory.
        return [{k: v for k, v in kept.items() if k not in {"ino", "ctime_ns"}} for kept in found]

    (caia / "empty").mkdir(mode=0o711)
    (caia / "d").mkdir()
    doc = caia / "doc"
    doc.write_text("text")
    if os.geteuid() == 0:
        os.chown(doc, 1234, 2345)
    doc.chmod(0o4751)
    (caia / "d/hard").hardlink_to(doc)
    os.setxattr(doc, "user.note", b"kept")
    os.utime(doc, ns=(1_111_111_111_111_111_111, 1_222_222_222_222_222_222))
    before = shown(caia)
    caia.sync()
    git("clone", "-q", "--mirror", caia.repo, tmp_path / "mirror", cwd=tmp_path)
    caia.unmount()

    shutil.rmtree(caia.repo / "caiafs")
    caia.start()
    mirror = mount_caia(repo=tmp_path / "mirror")

    for mount in (caia, mirror):
        assert shown(mount) == before
        assert os.getxattr(mount / "doc", "user.note") == b"kept"
        assert (mount / "d/hard").stat().st_ino == (mount / "doc").stat().st_ino


def saved_commits(caia: Mount) -> list[str]:
    """Return the commits that hold attributes."""
    found = caia.git("for-each-ref", "refs/caia/meta")
    return caia.git("rev-list", "refs/caia/meta").split() if found else []


@promise(
    "W12",
    "A change of attributes alone makes no commit on the branch, and a mount that changes nothing"
    " saves nothing.",
)
def test_attributes_alone_make_no_commit(caia: Mount):
    (caia / "doc").write_text("text")
    caia.sync()
    commits, saved = caia.commits(), saved_commits(caia)

    (caia / "doc").chmod(0o600)
    wait_until(lambda: len(saved_commits(caia)) > len(saved), "changes have paused")
    caia.remount()
    saved = saved_commits(caia)
    assert (caia / "doc").read_text() == "text"
    caia.remount()

    assert caia.commits() == commits
    assert saved_commits(caia) == saved


@pytest.mark.parametrize("trusted", [False, True])
@promise(
    "W13",
    "Owners, setuid and setgid bits, and extended attributes in the namespaces security and trusted"
    " come back from refs/caia/meta only where the same user saved them on the same machine, unless"
    " trust_meta is set.",
)
def test_power_comes_back_only_from_the_same_machine(mount_caia: MountFactory, *, trusted: bool):
    require_root()
    caia = mount_caia(options=[f"trust_meta={trusted}".lower()])
    run = caia / "run"
    run.write_text("#!/bin/sh\n")
    os.chown(run, 1234, 2345)
    run.chmod(0o6755)
    os.setxattr(run, "trusted.mark", b"value")
    caia.unmount()
    tree = caia.git("rev-parse", "refs/caia/meta^{tree}").strip()
    forged = f"Save attributes\n\nCaiafs-Seal: {'1' * 64}\n".encode()
    commit = git("commit-tree", tree, cwd=caia.repo, stdin=forged).strip()
    caia.git("update-ref", "refs/caia/meta", commit)

    shutil.rmtree(caia.repo / "caiafs")
    caia.start()

    found = run.stat()
    power = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, os.listxattr(run))
    if trusted:
        assert power == (0o6755, 1234, 2345, ["trusted.mark"])
    else:
        assert power == (0o755, os.geteuid(), os.getegid(), [])


@promise(
    "W14",
    "A repository without refs/caia/meta mounts with the mounting user as owner, the modes 0644 and"
    " 0755, and the time of its newest commit.",
)
def test_plain_repository_has_sensible_attributes(mount_caia: MountFactory, tmp_path: Path):
    work = tmp_path / "work"
    git("init", "-q", work, cwd=tmp_path)
    (work / "d").mkdir()
    (work / "d/run").write_text("#!/bin/sh\n")
    (work / "d/run").chmod(0o700)
    (work / "doc").write_text("text")
    (work / "doc").chmod(0o600)
    git("add", "-A", cwd=work)
    git("commit", "-qm", "Start", cwd=work)
    committed = int(git("log", "-1", "--format=%ct", cwd=work))
    git("clone", "-q", "--mirror", work, tmp_path / "bare", cwd=tmp_path)

    caia = mount_caia(repo=tmp_path / "bare")

    found = {name: (caia / name).stat() for name in ("", "d", "d/run", "doc")}
    assert [stat.S_IMODE(found[name].st_mode) for name in found] == [0o755, 0o755, 0o755, 0o644]
    assert {(s.st_uid, s.st_gid) for s in found.values()} == {(os.geteuid(), os.getegid())}
    assert {s.st_mtime_ns for s in found.values()} == {committed * 1_000_000_000}


@promise(
    "W15",
    "The extended attribute user.caia.state of a document says local, pending or published; it is"
    " not listed, and of the names that begin with user.caia. only user.caia.message and"
    " user.caia.source can be set.",
)
def test_state_of_a_document_can_be_asked(caia: Mount):
    def state(name: str) -> bytes:
        return os.getxattr(caia / name, "user.caia.state")

    (caia / "doc~").write_text("an editor's")
    with (caia / "doc").open("w") as handle:
        handle.write("text")
        handle.flush()
        assert state("doc") == b"pending"
    wait_until(lambda: state("doc") == b"published", "it is published")

    assert state("doc~") == b"local"
    assert os.listxattr(caia / "doc") == []
    for name in ("state", "id", "anything"):
        with pytest.raises(PermissionError):
            os.setxattr(caia / "doc", f"user.caia.{name}", b"published")
    os.setxattr(caia / "doc", "user.caia.message", b"Say why")
    os.setxattr(caia / "doc", "user.caia.source", b"a scan")
    assert os.listxattr(caia / "doc") == []


@promise(
    "W16",
    "A document that git has under a name of local_patterns stays published: changing it makes a"
    " commit.",
)
def test_document_that_git_has_under_a_local_name_stays_published(
    mount_caia: MountFactory, tmp_path: Path
):
    work = tmp_path / "work"
    work.mkdir()
    (work / "doc~").write_text("as git has it")
    git("init", "-q", "-b", "main", work, cwd=tmp_path)
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", "Begin", cwd=work)
    git("clone", "-q", "--bare", work, tmp_path / "repo.git", cwd=tmp_path)
    caia = mount_caia(repo=tmp_path / "repo.git")

    (caia / "doc~").write_text("changed")
    (caia / "other~").write_text("never published")
    caia.sync()

    assert caia.git("cat-file", "blob", "HEAD:doc~") == "changed"
    assert caia.git("ls-tree", "--name-only", "HEAD").split() == ["doc~"]


def network_sockets(pid: int) -> set[str]:
    """Return the TCP and UDP sockets that process `pid` holds."""
    inodes = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        inodes |= {line.split()[9] for line in lines}
    held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    return {inode for inode in inodes if f"socket:[{inode}]" in held}
