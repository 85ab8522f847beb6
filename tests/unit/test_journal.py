"""The journal: one transaction an operation, nothing lost when the disk is full."""

import os

import pytest
import trio

from caiafs.core.errors import StateCorrupt, StateError, StateFull
from caiafs.core.types import DocPath, InodeNo
from caiafs.state import paths
from caiafs.state.database import StateDatabase, make_private
from caiafs.state.journal import Journal
from caiafs.state.ops import NewOp, OpKind
from caiafs.state.schema import SCHEMA_VERSION


@pytest.fixture
def db(tmp_path):
    database = StateDatabase.open(tmp_path / "state")
    yield database
    database.close()


def an_op(path=b"f"):
    return NewOp(kind=OpKind.REMOVE, path=DocPath(path), ino=2, uid=0, program="pytest", time_ns=1)


def fill_up(db):
    """Let the database not grow any more."""
    pages = db.rows("PRAGMA page_count")[0][0]
    db.rows(f"PRAGMA max_page_count={pages}")


async def test_ops_get_positions_in_the_order_in_which_they_were_logged(db):
    journal = Journal(db)
    told = []
    journal.on_logged = told.append

    first, second = journal.log_op(an_op()), journal.log_op(an_op())
    assert journal.last_seq == 0
    journal.commit()

    assert (second, journal.last_seq) == (first + 1, second)
    assert told == [second]


async def test_statements_run_in_the_order_in_which_they_were_given(db):
    journal = Journal(db)
    journal.put_dentry(InodeNo(1), b"f", InodeNo(2))
    journal.drop_dentry(InodeNo(1), b"f")
    journal.put_dentry(InodeNo(1), b"f", InodeNo(3))

    journal.commit()

    assert db.rows("SELECT ino FROM dentry") == [(3,)]


async def test_full_disk_fails_the_commit_and_loses_nothing(db):
    journal = Journal(db)
    fill_up(db)
    for number in range(2000):
        journal.put_dentry(InodeNo(1), b"name %d" % number, InodeNo(2))
    journal.log_op(an_op())

    with pytest.raises(StateFull):
        journal.commit()
    assert isinstance(journal.last_error, StateFull)
    assert db.rows("SELECT count(*) FROM dentry") == [(0,)]
    assert journal.last_seq == 0, "nobody hears of an op that is not committed"

    db.rows("PRAGMA max_page_count=1000000")
    journal.commit()
    assert db.rows("SELECT count(*) FROM dentry") == [(2000,)]
    assert db.rows("SELECT count(*) FROM op") == [(1,)]
    assert journal.last_error is None


async def test_failed_commit_is_tried_again_by_itself(db, autojump_clock, caplog):
    journal = Journal(db)
    fill_up(db)
    for number in range(2000):
        journal.put_dentry(InodeNo(1), b"name %d" % number, InodeNo(2))
    with pytest.raises(StateFull):
        journal.commit()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        await trio.sleep(2)
        assert "changes wait in memory" in caplog.text

        db.rows("PRAGMA max_page_count=1000000")
        await trio.sleep(2)

        assert db.rows("SELECT count(*) FROM dentry") == [(2000,)]
        nursery.cancel_scope.cancel()


async def test_what_may_lag_is_committed_within_its_delay(db, autojump_clock):
    journal = Journal(db)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        journal.put_dentry(InodeNo(1), b"f", InodeNo(2))
        journal.commit_within(0.5)
        await trio.sleep(0.4)
        assert db.rows("SELECT count(*) FROM dentry") == [(0,)]

        await trio.sleep(0.2)

        assert db.rows("SELECT count(*) FROM dentry") == [(1,)]
        nursery.cancel_scope.cancel()


async def test_numbers_are_never_used_twice_over_mounts(tmp_path):
    db = StateDatabase.open(tmp_path / "state")
    journal = Journal(db)
    inodes, contents = {journal.new_inode_number()}, {journal.new_content_id()}
    seq = journal.log_op(an_op())
    journal.commit()
    db.rows("DELETE FROM op")
    db.set_meta("settled_seq", seq)
    db.close()

    db = StateDatabase.open(tmp_path / "state")
    journal = Journal(db)

    assert journal.new_inode_number() not in inodes
    assert journal.new_content_id() not in contents
    assert journal.log_op(an_op()) > seq
    db.close()


def test_newer_schema_is_refused(tmp_path):
    db = StateDatabase.open(tmp_path / "state")
    db.rows(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()

    with pytest.raises(StateCorrupt, match="newer caiafs"):
        StateDatabase.open(tmp_path / "state")


def test_damaged_database_is_refused(tmp_path):
    db = StateDatabase.open(tmp_path / "state")
    db.close()
    paths.database(tmp_path / "state").write_bytes(b"not a database" * 1000)

    with pytest.raises(StateCorrupt):
        StateDatabase.open(tmp_path / "state")


def test_state_directory_is_private(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)

    StateDatabase.open(tmp_path / "state").close()

    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_state_directory_of_another_user_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)

    with pytest.raises(StateCorrupt, match="belongs to user 12345"):
        make_private(tmp_path / "state")


async def test_wal_that_cannot_be_reset_on_a_full_disk_ends_nothing(db, monkeypatch, caplog):
    def refuse(_self, _sql, *_arguments):
        raise StateFull("no space")

    monkeypatch.setattr("caiafs.state.database.RESTART_WAL_BYTES", 0)
    monkeypatch.setattr("caiafs.state.database.PASSIVE_WAL_BYTES", 0)
    monkeypatch.setattr(StateDatabase, "rows", refuse)
    db._committed.set()

    with trio.move_on_after(0.5) as scope:
        await db.run()

    assert scope.cancelled_caught
    assert "no space" in caplog.text


async def test_checkpoints_keep_the_wal_short(db, monkeypatch):
    monkeypatch.setattr("caiafs.state.database.RESTART_WAL_BYTES", 0)
    monkeypatch.setattr("caiafs.state.database.PASSIVE_WAL_BYTES", 1)
    with db.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('big', ?)", (b"x" * 1_000_000,))
    length = db.wal_bytes

    await db._checkpoint()
    with db.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('small', 1)")

    assert db.wal_bytes == length, "it is written from its start again"
    assert db.statistics().checkpoints == 1


def test_half_a_transaction_is_none(db):
    def break_off():
        with db.transaction() as connection:
            connection.execute("INSERT INTO meta VALUES ('a', 1)")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()

    assert db.meta("a") is None


def test_every_error_of_sqlite_is_one_of_ours(db):
    with pytest.raises(StateError):
        db.rows("SELECT nothing FROM nowhere")
