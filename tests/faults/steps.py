"""Which requests each operation makes of govc, in each dialect: where a fault can be put. And the faults.

`test_matrix` holds the table to what the operations really do.
"""

import random
from dataclasses import dataclass

KINDS = {
    "v2": {
        "log": "GET .*/commits",
        "read": "GET .*/files",
        "list": "GET .*/tree",
        "add": "POST .*/files",
        "commit": "POST .*/commits",
    },
    "v1": {
        "log": "GET .*/log",
        "read": "GET .*/read",
        "diff": "GET .*/diff",
        "add": "POST .*/add",
        "remove": "DELETE .*/remove",
        "commit": "POST .*/commit",
    },
    "contract": {
        "log": "GET .*/commits",
        "read": r"GET .*/files\?",
        "list": "GET .*/files$",
        "commit": "POST .*/commits",
    },
}
"""Kinds of requests, as patterns for the proxy's "METHOD target"."""

_ONE = {"log": 2, "add": 1, "commit": 1}
_REAL = {
    "create": _ONE,
    "overwrite": _ONE,
    "binary": _ONE,
    "change_mode": _ONE,
    "large": {"log": 2, "add": 5, "commit": 1},
    "many": {"log": 2, "add": 12, "commit": 1},
}
_WHOLE = {"log": 2, "commit": 1}

STEPS = {
    "v2": _REAL
    | {
        "delete": _ONE,
        "rename": {"log": 2, "add": 2, "commit": 1},
        "rename_directory": {"log": 2, "add": 6, "commit": 1},
        "foreign": {"log": 2, "read": 3, "list": 1},
    },
    "v1": _REAL
    | {
        "delete": {"log": 2, "remove": 1, "commit": 1},
        "rename": {"log": 2, "add": 1, "remove": 1, "commit": 1},
        "rename_directory": {"log": 2, "add": 3, "remove": 3, "commit": 1},
        "foreign": {"log": 2, "read": 1, "diff": 1},
    },
    "contract": {
        "create": _WHOLE,
        "overwrite": _WHOLE,
        "binary": _WHOLE,
        "change_mode": _WHOLE,
        "delete": _WHOLE,
        "rename": _WHOLE,
        "rename_directory": _WHOLE,
        "many": _WHOLE,
        "large": {"log": 2, "commit": 4},
        "foreign": {"log": 2, "read": 1, "list": 1},
    },
}
"""How many requests of each kind an operation makes; of logs and reads the first few, which polls add to."""

FAULTS = {
    "on the way": ("slow", "twice", "reset", "cut", "torn", "timeout", "lost"),
    "refused": ("400", "401", "403", "404", "408", "409", "413", "422", "425", "429", "done400"),
    "at the server": (
        *("500", "502", "503", "504", "done500", "done503"),
        *("garbled", "empty", "echo", "mixed"),
    ),
}
"""The proxy's words, by what they have in common."""


BEYOND_US = {("v1", "commit", "twice")}
"""v1 makes an empty commit of the same message where a request reaches it twice; no client can prevent that."""


REFUSED_READS = {"400", "404", "409", "413", "422", "done400"}
"""Said of a read, they are the server's word that the name is not to be shown: the next comparison of the stores looks again."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: `operation` with `fault` at the `step`th request of a kind."""

    operation: str
    kind: str
    step: int
    fault: str

    def __str__(self):
        return f"{self.operation}: {self.fault} at {self.kind} {self.step}"

    @property
    def script(self):
        """The proxy's script."""
        return "ok " * (self.step - 1) + self.fault


def all_cells(dialect, faults):
    """Return every operation x fault x step of a dialect."""
    return [
        Cell(operation, kind, step, fault)
        for operation, kinds in STEPS[dialect].items()
        for kind, count in kinds.items()
        for step in range(1, count + 1)
        for fault in faults
        if (dialect, kind, fault) not in BEYOND_US
        and not (kind == "read" and fault in REFUSED_READS)
    ]


def sample(dialect, faults, count, seed):
    """Return `count` cells, by seed: each fault first, then operations as different as can be."""
    chooser = random.Random(f"{seed} {dialect} {faults}")
    waiting = all_cells(dialect, faults)
    chooser.shuffle(waiting)
    chosen: list[Cell] = []
    while waiting and len(chosen) < count:
        seen = [(cell.fault, cell.operation) for cell in chosen]
        faults_seen, operations_seen = (
            (list(part) for part in zip(*seen, strict=True)) if seen else ([], [])
        )
        best = min(
            waiting,
            key=lambda cell: (faults_seen.count(cell.fault), operations_seen.count(cell.operation)),
        )
        waiting.remove(best)
        chosen.append(best)
    return chosen
