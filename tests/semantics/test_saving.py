"""Proofs of caiafs-semantics(7): what close, fsync and sync promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mount import Mount
from tests.support.promises import promise
from tests.support.requirements import require_root, require_tool
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def shell(caia: Mount, line: str) -> None:
    subprocess.run(["bash", "-ec", line], cwd=caia.path, check=True, capture_output=True)


def texts(caia: Mount, name: str) -> list[str]:
    """Return the document's content in each commit that changed it, oldest first."""
    commits = caia.git("log", "--reverse", "--format=%H", "--", name).split()
    return [caia.git("cat-file", "blob", f"{commit}:{name}") for commit in commits]


@promise("S1", "What was written is seen at once by every process that uses the same mount.")
def test_another_process_sees_a_write_before_the_close(room: Path):
    with (room / "doc").open("wb", buffering=0) as handle:
        for size in (1, 5000, 100_000):
            handle.write(b"x" * size)
            read = f"import sys; print(len(open({str(room / 'doc')!r}, 'rb').read()))"
            shown = subprocess.run([sys.executable, "-c", read], capture_output=True, check=True)

            assert int(shown.stdout) == handle.tell()


@promise(
    "S2",
    "When close(2) has returned 0, the content outlives the death of the mount process, of the"
    " store process, or of both.",
)
@pytest.mark.parametrize("dies", ["mount", "store", "both"])
def test_closed_content_outlives_each_process(caia: Mount, dies: str):
    caia.expect_log("store process")
    saved = {f"doc-{i}": os.urandom(i * 7000) for i in range(30)}
    for name, content in saved.items():
        (caia / name).write_bytes(content)

    if dies in {"store", "both"}:
        caia.kill9_store()
    if dies in {"mount", "both"}:
        caia.kill9()
        caia.start()

    assert {name: (caia / name).read_bytes() for name in saved} == saved
    caia.sync()
    assert len(caia.git("ls-tree", "--name-only", "HEAD").split()) == 30


@promise(
    "S3",
    "A death of the mount process between truncating a file and closing it leaves the version"
    " before.",
)
def test_death_between_truncate_and_close_leaves_the_version_before(caia: Mount):
    (caia / "doc").write_text("version one")
    handle = os.open(caia / "doc", os.O_WRONLY | os.O_TRUNC)
    os.write(handle, b"half of ver")

    caia.kill9()
    caia.start()

    with pytest.raises(OSError):
        os.close(handle)
    assert (caia / "doc").read_text() == "version one"


@promise(
    "S4",
    "When fsync(2) or fdatasync(2) has returned 0, the content has been flushed to the disk that"
    " holds the state directory.",
)
@pytest.mark.parametrize("size", [100, 1_000_000])
def test_fsync_flushes_the_files_that_hold_the_content(caia: Mount, tmp_path: Path, size: int):
    require_root()
    require_tool("strace")
    trace = tmp_path / "trace"
    tracer = subprocess.Popen(
        [
            "strace",
            "-f",
            "-y",
            "-qq",
            "-e",
            "trace=fsync,fdatasync",
            "-o",
            trace,
            "-p",
            str(caia.pid),
        ],
        stderr=subprocess.DEVNULL,
    )
    status = Path(f"/proc/{caia.pid}/status")
    wait_until(lambda: re.search(r"TracerPid:\s+[1-9]", status.read_text()), "strace is attached")

    handle = os.open(caia / "doc", os.O_WRONLY | os.O_CREAT)
    os.write(handle, os.urandom(size))
    os.fsync(handle)
    flushed = trace.read_text()
    tracer.terminate()
    tracer.wait()
    os.close(handle)

    assert re.search(r"f(data)?sync\(\d+<[^>]*-wal>\)\s+= 0", flushed), flushed
    if size > 64 * 1024:
        assert re.search(r"f(data)?sync\(\d+<[^>]*spool[^>]*>\)\s+= 0", flushed), flushed


@promise(
    "S5",
    "Each save, from opening for writing to the last close, is exactly one version and one commit;"
    " the truncated file in between is none.",
)
def test_a_save_is_one_commit(caia: Mount):
    shell(caia, "echo one > doc")
    caia.sync()
    shell(caia, "(echo two; sleep 0.2; echo three) > doc")  # not timing: pauses inside a save
    caia.sync()

    assert texts(caia, "doc") == ["one\n", "two\nthree\n"]
    assert len(caia.commits()) == 2


@promise(
    "S6",
    "Opening, reading, touching, or saving the same content again makes no commit.",
)
def test_nothing_new_is_no_commit(caia: Mount):
    (caia / "doc").write_text("text")
    caia.sync()

    shell(caia, "cat doc; touch doc; : >> doc; cp doc /dev/null; printf text > doc")
    caia.sync()

    assert len(caia.commits()) == 1


@promise(
    "S7",
    "Saves of one document that follow each other closely are commits of their own, in order; none"
    " is skipped.",
)
def test_every_save_of_a_burst_is_in_the_history(caia: Mount):
    wanted = [f"version {i}\n" for i in range(25)]
    for text in wanted:
        (caia / "doc").write_text(text)

    caia.sync()

    assert texts(caia, "doc") == wanted


@promise("S8", "With commit=close, close(2) returns when a store has acknowledged the version.")
def test_close_waits_for_the_store_with_commit_close(mount_caia: MountFactory):
    caia = mount_caia(options=["commit=close"])

    for text in ("one", "two", "three"):
        (caia / "doc").write_text(text)
        assert caia.git("cat-file", "blob", "HEAD:doc") == text


@promise(
    "S9",
    'Writing "sync" to .caia/control, or caiafs sync, returns when every configured store has'
    " everything that was closed before.",
)
def test_sync_returns_when_the_store_has_everything(caia: Mount):
    for i in range(300):
        (caia / f"doc-{i}").write_text(f"document {i}\n")

    (caia / ".caia" / "control").write_text("sync\n")

    assert len(caia.git("ls-tree", "--name-only", "HEAD").split()) == 300


@promise(
    "S10",
    "Unmounting publishes what is pending; what cannot be published within unmount_grace is kept"
    " and published by the next mount.",
)
def test_unmount_publishes_and_the_next_mount_does_the_rest(
    mount_caia: MountFactory, tmp_path: Path
):
    caia = mount_caia(options=["commit=fsync", "commit_max_age=1h"])
    caia.expect_log("left to publish")
    (caia / "doc").write_text("pending")
    assert caia.commits() == []

    caia.unmount()

    assert caia.git("cat-file", "blob", "HEAD:doc") == "pending"
    caia.options = ("commit=fsync", "commit_max_age=1h", "unmount_grace=0s")
    caia.start()
    for i in range(200):
        (caia / f"doc-{i}").write_text(f"document {i}\n")
    caia.unmount()
    caia.options = ()
    caia.start()
    caia.sync()
    assert len(caia.git("ls-tree", "--name-only", "HEAD").split()) == 201


@promise(
    "S11",
    "A save by a temporary file that is renamed over the document (sed -i, vim, rsync) is one"
    " commit of that document alone.",
)
@pytest.mark.parametrize(
    "save",
    [
        "sed -i s/one/two/ doc",
        "vim -N -u NONE --cmd 'set backup backupcopy=no' -es -c '%s/one/two/' -c wq doc",
        "printf two > /tmp/$$-doc; rsync -c /tmp/$$-doc doc; rm /tmp/$$-doc",
        "printf two > doc.tmp; mv doc.tmp doc",
    ],
    ids=["sed", "vim", "rsync", "mv"],
)
def test_save_by_rename_is_one_commit_of_one_document(patient_caia: Mount, save: str):
    caia = patient_caia
    (caia / "doc").write_text("one")
    caia.sync()

    shell(caia, save)
    caia.sync()

    assert len(caia.commits()) == 2
    assert caia.git("diff", "--name-status", "HEAD~1", "HEAD").split() == ["M", "doc"]
    assert caia.git("cat-file", "blob", "HEAD:doc").strip() == "two"
