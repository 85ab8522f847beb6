"""What a store process finds when it starts: ops that the branch has, and a group that only the primary has."""

from contextlib import closing

from caiafs.backends.base import Revision
from caiafs.state.ops import Op, OpKind
from caiafs.sync.recovery import find_unfinished, pass_gap, read_settled
from tests.support.sync_world import SyncWorld, a_sync_world
from tests.sync.test_publishing import until

WRITER = "0badcafe"
GAP = 1 << 20


def a_log(*operations):
    """Return govc's log, `operations` newest first."""
    return [
        Revision(f"c{index}", f"Save\n\nCaiafs-Operation: {operation}\n", "A", "a@b", 0)
        for index, operation in enumerate(operations)
    ]


def test_group_that_only_the_primary_has_is_recognised():
    log = a_log(f"{WRITER}-4-6", f"{WRITER}-1-3")

    assert find_unfinished(log, WRITER, 4) == 6
    assert find_unfinished(log, WRITER, 7) == 0


def test_group_right_after_the_gap_that_a_power_cut_leaves_is_recognised():
    log = a_log(f"{WRITER}-{GAP + 4}-{GAP + 6}", f"{WRITER}-1-3")

    assert find_unfinished(log, WRITER, GAP + 4) == GAP + 6


def test_group_that_a_power_cut_took_back_is_not_the_next_one():
    assert find_unfinished(a_log(f"{WRITER}-4-6", f"{WRITER}-1-3"), WRITER, GAP + 4) == 0


def test_others_commits_are_passed_over():
    log = a_log("1badcafe-4-6", f"{WRITER}-4-5")

    assert find_unfinished(log, WRITER, 4) == 5


def test_gap_that_a_power_cut_leaves_does_not_count_as_waiting():
    assert pass_gap(Log(first=GAP), 3) == GAP - 1
    assert pass_gap(Log(first=4), 3) == 3
    assert pass_gap(Log(first=None), 3) == 3


async def test_save_after_the_gap_is_published_and_nothing_waits(tmp_path):
    async with a_sync_world(tmp_path) as world:
        world.put("f", "1\n")
        assert await world.stored() == ""
    with closing(SyncWorld(tmp_path)) as world:
        world.last_seq += GAP
        for number in range(3):
            world.put("f", f"{number} after\n")
        async with world.running():
            assert await world.stored() == ""
            await until(lambda: world.report and not world.report["pending_ops"])

            assert len(world.subjects()) == 4


class Log:
    """An op log of a million ops that counts what is read."""

    def __init__(self, first=None):
        self.read = 0
        self._first = first

    def next_seq(self, _seq):
        return self._first

    def ops_after(self, seq, limit):
        last = min(seq + limit, 10**6)
        self.read += last - seq
        return [an_op(number) for number in range(seq + 1, last + 1)]


def an_op(seq):
    return Op(
        seq=seq,
        kind=OpKind.REMOVE,
        path=b"f",
        target=None,
        mode=0,
        oid=None,
        size_bytes=0,
        content_id=None,
        replaced=None,
        ino=0,
        uid=0,
        program="",
        time_ns=0,
    )


def test_settled_ops_are_read_without_all_that_wait():
    log = Log()

    ops = read_settled(log, 10, 15_010)

    assert [ops[0].seq, ops[-1].seq, len(ops)] == [11, 15_010, 15_000]
    assert log.read <= 30_000
    assert read_settled(log, 10, 10) == []
