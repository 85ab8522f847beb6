"""How much of the long runs the ordinary suite holds: kills, power cuts, a minute of soak, 200 examples of models."""

import inspect
import os
import re
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from tests.chaos import test_chaos
from tests.model import test_file_operations
from tests.sync import (
    test_convergence_model,
    test_crash_model,
    test_remote_convergence_model,
    test_remote_crash_model,
)
from tests.vfs import test_op_log_model

MODELS = (
    test_file_operations,
    test_convergence_model,
    test_crash_model,
    test_remote_convergence_model,
    test_remote_crash_model,
    test_op_log_model,
)


def models(module: ModuleType) -> Iterator[Callable[..., object]]:
    """Yield the tests of `module` that hypothesis gives examples to."""
    for name, test in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("test_") and hasattr(test, "hypothesis"):
            yield test


def test_models_run_at_least_200_examples():
    if {"CAIAFS_EXAMPLES", "CAIAFS_MODEL_EXAMPLES"} & os.environ.keys():
        pytest.skip("somebody asked for another number of examples")

    counts = [
        test._hypothesis_internal_use_settings.max_examples  # type: ignore[attr-defined]  # hypothesis has no other way
        for module in MODELS
        for test in models(module)
    ]

    assert len(counts) >= len(MODELS)
    assert sum(counts) >= 200


def asked(kind: str, option: str) -> float:
    """Return the number that the suite gives scripts/chaos with `option` for `kind`."""
    found = re.search(rf'"{kind}", "{option}", "(\d+)"', inspect.getsource(test_chaos))
    assert found, (kind, option)
    return float(found[1])


def test_chaos_kills_20_times_and_soaks_for_a_minute():
    assert asked("kills", "--count") >= 20
    assert asked("soak", "--minutes") >= 1
    assert asked("power", "--count") >= 10
