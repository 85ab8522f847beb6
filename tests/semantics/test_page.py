"""Every promise of caiafs-semantics(7) has a test that carries its words, and no test carries others."""

import importlib
import inspect
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.promises import PAGE, page_promises
from tests.support.requirements import require_tool


def proofs() -> Iterator[tuple[str, str]]:
    """Yield number and sentence of every test in this package that proves a promise."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"tests.semantics.{path.stem}")
        for name, test in inspect.getmembers(module):
            if name.startswith("test_") and hasattr(test, "promise"):
                yield test.promise


def test_every_promise_is_proved_by_a_test():
    assert set(page_promises()) == {number for number, _ in proofs()}


def test_each_proof_carries_the_words_of_its_promise():
    page = page_promises()

    differing = [number for number, sentence in proofs() if page.get(number) != sentence]

    assert differing == []


def test_page_is_good_roff():
    require_tool("groff")

    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", PAGE], capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
