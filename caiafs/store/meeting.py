"""Whether govc and git may be brought together without asking.

Pure. Used when there is no cursor: a wrong GOVC_REPO_NAME must not mix two collections.
"""

import enum


class Meeting(enum.Enum):
    """What to do with two stores that have no cursor between them."""

    SEED = "seed"
    """govc is empty: it gets what git has."""
    TAKE = "take"
    """git is empty: it gets what govc has."""
    KNOWN = "known"
    """They share commits; only the cursor is lost. Compare, and send what differs."""
    ADOPT = "adopt"
    """Both hold documents and never met: a person has to say so."""


def decide_meeting(*, govc_is_empty: bool, git_is_empty: bool, shares_history: bool) -> Meeting:
    """Return what to do."""
    if govc_is_empty:
        return Meeting.SEED
    if git_is_empty:
        return Meeting.TAKE
    return Meeting.KNOWN if shares_history else Meeting.ADOPT
