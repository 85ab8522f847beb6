"""When refused documents are sent again."""

from caiafs.backends.govc.limits import OVER_LIMIT
from caiafs.core.types import DocPath, ObjectId
from caiafs.store.cursors import RefusedContent
from caiafs.store.refusals import FIRST_S, LONGEST_S, Refusals

F = DocPath(b"f")


def refused(digit="1", reason="400"):
    return {F: RefusedContent(ObjectId(digit * 40), reason)}


def tries(refusals, found, start, stop):
    """Return when they were tried, looking every half second."""
    at = []
    for half in range(int(start * 2), int(stop * 2)):
        if refusals.due(found, half / 2):
            at.append(half / 2)
            refusals.tried([F], half / 2)
    return at


def test_it_is_soon_and_then_less_and_less():
    at = tries(Refusals(), refused(), 0, 24 * 3600)

    assert at[0] <= FIRST_S + 0.5
    assert len(at) < 40
    assert at[-1] - at[-2] <= LONGEST_S + 0.5


def test_another_content_is_due_soon_again():
    refusals = Refusals()
    tries(refusals, refused(), 0, 5000)

    assert tries(refusals, refused("2"), 5000, 5000 + 2 * FIRST_S)


def test_a_new_connection_makes_all_due():
    refusals = Refusals()
    tries(refusals, refused(), 0, 5000)

    refusals.begin_again()

    assert refusals.due(refused(), 5000) == [F]


def test_what_our_own_limit_keeps_back_is_never_due():
    refusals = Refusals()
    refusals.begin([])

    assert tries(refusals, refused(reason=f"{OVER_LIMIT} (5 bytes)"), 0, 5000) == []


def test_what_the_limit_of_an_earlier_process_kept_back_is_due_once():
    refusals = Refusals()
    refusals.begin([F])
    refusals.begin([F])

    assert tries(refusals, refused(reason=f"{OVER_LIMIT} (5 bytes)"), 0, 5000) == [0]
