"""Compilers, Python, locks, watchers and everyday commands do on the mount what they do on a disk."""

import fcntl
import mmap
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.requirements import require_tool
from tests.support.waiting import wait_until
from tests.tools.shell import run, shell

pytestmark = [pytest.mark.mount, pytest.mark.slow]

HOLD_LOCK = """
import fcntl, sys
handle = open(sys.argv[1], "r+")
{lock}
print("held", flush=True)
sys.stdin.read()
"""


# --- gcc and make


def test_make_builds_a_program_and_only_what_changed(room: Path):
    require_tool("make")
    (room / "one.c").write_text("int one(void) { return 1; }\n")
    (room / "main.c").write_text("int one(void); int main(void) { return one() - 1; }\n")
    (room / "Makefile").write_text(
        "program: main.o one.o\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -c -o $@ $<\n"
    )

    assert run("make", cwd=room).count("gcc") == 3
    run(room / "program", cwd=room)
    assert "up to date" in run("make", cwd=room)
    (room / "one.c").write_text("int one(void) { return 2; }\n")
    assert run("make", cwd=room).count("gcc") == 2

    assert subprocess.run([room / "program"], check=False).returncode == 1


def test_static_and_shared_libraries_link_and_load(room: Path):
    (room / "one.c").write_text("int one(void) { return 1; }\n")
    (room / "main.c").write_text("int one(void); int main(void) { return one() - 1; }\n")
    shell(
        """
        gcc -g -fPIC -c one.c && ar rcs libone.a one.o && ranlib libone.a
        gcc -shared -o libone.so one.o && gcc -o static main.c libone.a
        gcc -o shared main.c -L. -l:libone.so -Wl,-rpath,'$ORIGIN'
        strip static && ./static && ./shared
        """,
        cwd=room,
    )


# --- Python


def test_shutil_copies_moves_archives_and_removes_trees(room: Path):
    (room / "tree" / "deep").mkdir(parents=True)
    (room / "tree" / "deep" / "doc").write_text("text")

    shutil.copytree(room / "tree", room / "copy", symlinks=True)
    shutil.move(room / "copy", room / "moved")
    archive = shutil.make_archive(str(room / "archive"), "zip", room / "tree")
    shutil.unpack_archive(archive, room / "unpacked")
    shutil.rmtree(room / "tree")

    assert (room / "moved" / "deep" / "doc").read_text() == "text"
    assert (room / "unpacked" / "deep" / "doc").read_text() == "text"
    assert not (room / "tree").exists()


def test_virtual_environment_runs_from_the_mount(room: Path):
    run(sys.executable, "-m", "venv", "--without-pip", "--copies", "env", cwd=room)

    assert run("env/bin/python", "-c", "print(6 * 7)", cwd=room) == "42\n"


def test_stores_through_a_shared_mapping_are_in_the_file(room: Path):
    (room / "doc").write_bytes(bytes(10_000))
    with (room / "doc").open("r+b") as handle, mmap.mmap(handle.fileno(), 0) as mapping:
        mapping[5000:5004] = b"text"
        mapping.flush()
        assert (room / "doc").read_bytes()[5000:5004] == b"text"
        mapping[9998:] = b"xy"

    assert (room / "doc").read_bytes()[9998:] == b"xy"


def test_write_is_seen_through_an_existing_mapping(room: Path):
    (room / "doc").write_bytes(bytes(10_000))
    with (room / "doc").open("r+b") as handle, mmap.mmap(handle.fileno(), 0) as mapping:
        assert mapping[100:104] == bytes(4)

        os.pwrite(handle.fileno(), b"text", 100)

        assert mapping[100:104] == b"text"


def test_private_mapping_changes_nothing(room: Path):
    (room / "doc").write_bytes(b"original")
    with (
        (room / "doc").open("r+b") as handle,
        mmap.mmap(handle.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapping,
    ):
        mapping[:4] = b"CHAN"

    assert (room / "doc").read_bytes() == b"original"


# --- locks


@pytest.mark.parametrize(
    "lock",
    [
        "fcntl.flock(handle, fcntl.LOCK_EX)",
        "fcntl.lockf(handle, fcntl.LOCK_EX)",
        "fcntl.lockf(handle, fcntl.LOCK_EX, 10, 5)",
    ],
    ids=["flock", "fcntl", "fcntl range"],
)
def test_lock_of_one_process_keeps_another_out_until_it_ends(room: Path, lock: str):
    (room / "doc").write_text("0123456789" * 3)
    attempt = lock.replace("LOCK_EX", "LOCK_EX | fcntl.LOCK_NB")
    code = HOLD_LOCK.format(lock=lock)
    holder = subprocess.Popen(
        [sys.executable, "-c", code, room / "doc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder, (room / "doc").open("r+") as handle:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            exec(attempt, {"fcntl": fcntl, "handle": handle})
        holder.communicate("")

        exec(attempt, {"fcntl": fcntl, "handle": handle})


# --- watching


def test_inotifywait_sees_each_kind_of_change(room: Path, tmp_path: Path):
    require_tool("inotifywait")
    events = tmp_path / "events"
    events.touch()
    watcher = subprocess.Popen(["inotifywait", "-m", "-q", "-o", events, "--format", "%e %f", room])

    def is_watching() -> bool:
        (room / "probe").touch()
        return "probe" in events.read_text()

    try:
        wait_until(is_watching, "inotifywait watches")
        (room / "new").write_text("text")
        (room / "new").chmod(0o600)
        (room / "new").rename(room / "moved")
        (room / "moved").unlink()
        (room / "folder").mkdir()
        (room / "end").touch()
        wait_until(lambda: "CREATE end" in events.read_text(), "the last event")
    finally:
        watcher.terminate()
        watcher.wait()
    seen = events.read_text().splitlines()
    for event in (
        "CREATE new",
        "MODIFY new",
        "CLOSE_WRITE,CLOSE new",
        "ATTRIB new",
        "MOVED_FROM new",
        "MOVED_TO moved",
        "DELETE moved",
        "CREATE,ISDIR folder",
    ):
        assert event in seen


def test_tail_f_follows_a_file_that_grows(room: Path):
    (room / "log").write_text("one\n")
    tail = subprocess.Popen(["tail", "-n", "+1", "-f", room / "log"], stdout=subprocess.PIPE)
    assert tail.stdout is not None
    try:
        assert tail.stdout.readline() == b"one\n"
        with (room / "log").open("a") as handle:
            handle.write("two\n")
        assert tail.stdout.readline() == b"two\n"
    finally:
        tail.terminate()
        tail.wait()
        tail.stdout.close()


# --- everyday commands


def test_find_newer_and_touch_d_agree(room: Path):
    run("touch", "-d", "2001-02-03 04:05:06.789012345 UTC", "old", cwd=room)
    run("touch", "-d", "2011-02-03 04:05:06 UTC", "middle", cwd=room)
    run("touch", "-r", "middle", "same", cwd=room)
    run("touch", "new", cwd=room)

    assert (room / "old").stat().st_mtime_ns == 981_173_106_789_012_345
    assert run("find", ".", "-type", "f", "-newer", "middle", cwd=room).split() == ["./new"]
    assert run("find", ".", "-type", "f", "-newermt", "2010-01-01", cwd=room).count("./") == 3
    assert run("find", ".", "-type", "f", "-mmin", "-5", cwd=room).split() == ["./new"]


def test_times_before_1970_and_after_2106_are_kept(room: Path):
    for seconds in (-1_000_000_000, -1, 0, 1 << 31, 1 << 32, (1 << 33) - 1):
        (room / "doc").touch()
        os.utime(room / "doc", (seconds, seconds))

        assert (room / "doc").stat().st_mtime == seconds


def test_reading_is_no_change(room: Path):
    (room / "doc").write_text("text")
    os.utime(room / "doc", ns=(1, 1))
    before = (room / "doc").stat()

    (room / "doc").read_text()

    after = (room / "doc").stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_df_shows_the_space_of_the_state_directory(shared_caia: Mount):
    shown = run("df", "-B1", "--output=size,fstype", shared_caia.path, cwd=shared_caia.path)
    beside = run("df", "-B1", "--output=size", shared_caia.repo, cwd=shared_caia.repo)

    size, kind = shown.splitlines()[1].split()
    assert kind == "fuse.caiafs"
    assert size == beside.split()[1]


def test_du_adds_up_what_was_written(room: Path):
    for i in range(10):
        (room / f"doc-{i}").write_bytes(b"x" * 50_000)
    (room / "hard").hardlink_to(room / "doc-0")

    apparent = run("du", "-sb", "--apparent-size", ".", cwd=room).split()[0]
    used = run("du", "-s", "-B1", ".", cwd=room).split()[0]

    assert 500_000 <= int(apparent) < 510_000
    assert 500_000 <= int(used) < 600_000


def test_a_farm_of_symbolic_links_resolves(room: Path):
    (room / "real").mkdir()
    for i in range(200):
        (room / "real" / f"{i}").write_text(f"{i}")
        (room / f"link-{i}").symlink_to(f"real/{i}")
    (room / "chain-0").symlink_to("real/7")
    for i in range(1, 40):
        (room / f"chain-{i}").symlink_to(f"chain-{i - 1}")
    (room / "loop").symlink_to("loop")
    (room / "folder").symlink_to("real")
    long_target = "x/" * 2000
    (room / "long").symlink_to(long_target)

    assert [(room / f"link-{i}").read_text() for i in range(200)] == [str(i) for i in range(200)]
    assert (room / "chain-39").read_text() == "7"
    with pytest.raises(OSError, match="Too many levels"):
        (room / "loop").read_text()
    assert (room / "folder" / "9").read_text() == "9"
    assert os.readlink(room / "long") == long_target


def test_patch_diff_split_sort_and_tee_work(room: Path):
    shell(
        """
        seq 1000 | tee numbers | sort -R > shuffled
        sort -n -o shuffled shuffled && cmp numbers shuffled
        split -l 100 numbers part. && cat part.* | cmp - numbers
        cp numbers other && sed -i 500d other
        (diff -u numbers other || true) > change.patch
        dd if=numbers of=copy bs=7 conv=fsync 2>&1 && cmp numbers copy
        truncate -s 10 copy && test $(stat -c %s copy) = 10
        install -m 640 -D numbers sub/dir/installed && test $(stat -c %a sub/dir/installed) = 640
        gzip -k numbers && zcat numbers.gz | cmp - numbers
        mkfifo pipe && (cat numbers > pipe &) && cmp pipe numbers
        """,
        cwd=room,
    )


def test_process_can_work_in_a_directory_that_is_moved_and_removed(room: Path):
    (room / "a" / "b").mkdir(parents=True)
    shell("cd a/b; mv ../../a ../../c; pwd -P > /dev/null; echo x > doc; cat doc", cwd=room)
    assert (room / "c" / "b" / "doc").read_text() == "x\n"

    shell("cd c/b; rm doc; rmdir ../b; ls -a; ! touch new 2>/dev/null", cwd=room)

    assert list((room / "c").iterdir()) == []


def test_time_of_the_mount_is_that_of_the_machine(room: Path):
    before = time.time_ns()
    (room / "doc").write_text("text")

    assert before - 20_000_000 <= (room / "doc").stat().st_mtime_ns <= time.time_ns() + 1
