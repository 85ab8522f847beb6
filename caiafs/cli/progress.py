"""A progress bar on standard error, where that is a terminal; silence elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(
    what: str, *, total: int | None = None, unit: str = "B"
) -> Iterator[Callable[[int], None]]:
    """Give a function that is told how much was done since it was last called."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from tqdm import tqdm  # only where it shows

    with tqdm(desc=what, total=total, unit=unit, unit_scale=unit == "B", leave=False) as bar:

        def advance(amount: int) -> None:
            bar.update(amount)

        yield advance
