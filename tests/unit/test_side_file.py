"""A database beside the state DB: all of a transaction or nothing, whatever ends it; made anew when it is damaged."""

import pytest

from caiafs.sync.side_file import SideFile

SCHEMA = "CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY) STRICT;"


@pytest.fixture
def side(tmp_path):
    opened = SideFile(tmp_path / "side.db", SCHEMA)
    yield opened
    opened.close()


class Stop(BaseException):
    """Ends a block as a cancellation does."""


@pytest.mark.parametrize("ended_by", [ValueError, Stop])
def test_transaction_that_is_ended_by_anything_leaves_nothing_and_the_next_one_works(
    side, ended_by
):
    def half_of_it():
        with side.transaction() as db:
            db.execute("INSERT INTO t VALUES (1)")
            raise ended_by

    with pytest.raises(ended_by):
        half_of_it()
    with side.transaction() as db:
        db.execute("INSERT INTO t VALUES (2)")

    assert side.rows("SELECT x FROM t") == [(2,)]


def test_damaged_file_is_made_anew(tmp_path):
    (tmp_path / "side.db").write_bytes(b"no database" * 1000)

    side = SideFile(tmp_path / "side.db", SCHEMA)

    assert side.rows("SELECT * FROM t") == []
    assert side.state("anything") is None
    side.close()
