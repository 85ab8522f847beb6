"""sqlite3 databases in the mount are sound in each journal mode, after kill -9 of the mount too."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mount import Mount
from tests.support.waiting import wait_until
from tests.tools.shell import run

pytestmark = [pytest.mark.mount, pytest.mark.slow]

WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=" + sys.argv[2])
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS document (id INTEGER PRIMARY KEY, text TEXT)")
for i in range(1_000_000):
    db.execute("INSERT INTO document (text) VALUES (?)", (f"text {i} " * 50,))
    if i % 7 == 3:
        db.execute("UPDATE document SET text = text || 'x' WHERE id % 3 = 0")
    print(i, flush=True)
"""


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST", "WAL"])
def test_a_database_is_whole_after_kill_9_of_the_mount(caia: Mount, mode: str, tmp_path: Path):
    database = caia / "library.db"
    progress = tmp_path / "progress"
    with progress.open("wb") as out:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, database, mode],
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
    try:
        wait_until(lambda: len(progress.read_bytes().splitlines()) > 20, "twenty transactions")
        caia.kill9()
    finally:
        writer.kill()
        writer.wait()
    acknowledged = len(progress.read_bytes().splitlines())

    caia.start()

    with contextlib.closing(sqlite3.connect(database)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM document").fetchone()[0] >= acknowledged


def test_readers_and_a_writer_share_a_database_in_wal_mode(caia: Mount):
    database = caia / "library.db"
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as writer:
        assert writer.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
        writer.execute("CREATE TABLE document (text TEXT)")
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM document").fetchone() == (0,)
            for i in range(100):
                writer.execute("INSERT INTO document VALUES (?)", (f"text {i}",))
            assert reader.execute("SELECT count(*) FROM document").fetchone() == (0,)
            reader.execute("COMMIT")
            assert reader.execute("SELECT count(*) FROM document").fetchone() == (100,)


def test_second_writer_finds_the_database_locked(caia: Mount):
    database = caia / "library.db"
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as first:
        first.execute("CREATE TABLE document (text TEXT)")
        first.execute("BEGIN IMMEDIATE")
        second = subprocess.run(
            ["sqlite3", "-bail", database, "INSERT INTO document VALUES ('x')"],
            capture_output=True,
            text=True,
            check=False,
        )
        first.execute("COMMIT")

    assert "locked" in second.stderr
    run("sqlite3", database, "INSERT INTO document VALUES ('x')", cwd=caia.path)


def test_a_closed_database_is_published_whole(caia: Mount, tmp_path: Path):
    with contextlib.closing(sqlite3.connect(caia / "library.db")) as db:
        db.execute("CREATE TABLE document (text TEXT)")
        db.executemany("INSERT INTO document VALUES (?)", [(f"text {i}",) for i in range(500)])
        db.commit()
    caia.sync()

    clone = caia.clone(tmp_path / "clone")

    with contextlib.closing(sqlite3.connect(clone / "library.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM document").fetchone() == (500,)
