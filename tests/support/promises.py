"""Ties a test to the promise of caiafs-semantics(7) that it proves."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.support.mount import PROJECT

PAGE = PROJECT / "man" / "caiafs-semantics.7"

F = TypeVar("F", bound=Callable[..., object])


def promise(number: str, sentence: str) -> Callable[[F], F]:
    """Mark a test as proof of promise `number`; `sentence` is its text on the page."""

    def mark(test: F) -> F:
        test.promise = (number, sentence)  # type: ignore[attr-defined]  # read by test_page
        return test

    return mark


def page_promises(page: Path = PAGE) -> dict[str, str]:
    """Return the numbered promises of the page, as plain text."""
    found = {}
    for part in re.split(r"^\.IP ", page.read_text(), flags=re.MULTILINE)[1:]:
        number, _, rest = part.partition("\n")
        text = re.split(r"^\.", rest, maxsplit=1, flags=re.MULTILINE)[0]
        found[number.split()[0]] = plain(text)
    return found


def plain(roff: str) -> str:
    """Return text without roff's escapes, on one line."""
    roff = re.sub(r"\\f[BIRP]|\\&", "", roff)
    return " ".join(roff.replace("\\-", "-").split())
