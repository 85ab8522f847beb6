"""Decisions of catch-up and meeting."""

from caiafs.core.types import Change, DocPath, Entry, blob_id
from caiafs.store.meeting import Meeting, decide_meeting
from caiafs.store.pieces import BATCH_BYTES, BATCH_DOCUMENTS, plan_pieces

ENTRY = Entry(0o100644, blob_id(b"x"))


def changes(count):
    return [Change(DocPath(b"%d" % n), None, ENTRY) for n in range(count)]


def test_pieces_hold_every_change_once_and_in_order():
    everything = changes(BATCH_DOCUMENTS * 2 + 1)

    pieces = plan_pieces(everything, [1] * len(everything))

    assert [len(piece.changes) for piece in pieces] == [BATCH_DOCUMENTS, BATCH_DOCUMENTS, 1]
    assert [change for piece in pieces for change in piece.changes] == everything


def test_large_document_is_a_piece_of_its_own():
    pieces = plan_pieces(changes(3), [1, BATCH_BYTES * 2, 1])

    assert [piece.size_bytes for piece in pieces] == [1, BATCH_BYTES * 2, 1]


def test_two_stores_with_documents_meet_only_when_told():
    both = {"govc_is_empty": False, "git_is_empty": False}

    assert decide_meeting(**both, shares_history=False) is Meeting.ADOPT
    assert decide_meeting(**both, shares_history=True) is Meeting.KNOWN


def test_an_empty_store_takes_what_the_other_has():
    assert (
        decide_meeting(govc_is_empty=True, git_is_empty=False, shares_history=False) is Meeting.SEED
    )
    assert (
        decide_meeting(govc_is_empty=False, git_is_empty=True, shares_history=False) is Meeting.TAKE
    )
