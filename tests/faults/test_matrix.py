"""Every operation, every fault, every step of the exchange with govc, in every dialect: nothing lost, nothing twice, all stores alike.

Without more, a sample: so many cells of each kind and dialect, chosen by CAIAFS_FAULT_SEED. CAIAFS_FAULTS says how many, or all of them:

    CAIAFS_FAULTS=full pytest -n 2 --timeout 7200 tests/faults/test_matrix.py
"""

import os
import re

import pytest

from caiafs.core.config import BackendName
from tests.conftest import FIGURES
from tests.faults.oracle import MAX_REQUEST, an_oracle, named
from tests.faults.steps import FAULTS, KINDS, STEPS, all_cells, sample
from tests.support.contract_server import ContractServers, contract_servers
from tests.support.govc_server import GovcServers

__all__ = ["contract_servers"]

pytestmark = [pytest.mark.govc, pytest.mark.slow]

CELLS = os.environ.get("CAIAFS_FAULTS", "9")
SEED = os.environ.get("CAIAFS_FAULT_SEED", "1")
COMMIT = "POST .*/commits"


@pytest.fixture
def serve(govc_servers: GovcServers, contract_servers: ContractServers):
    """Return a function that starts a server of a dialect, which takes large documents in parts."""
    forms = {"v2": "new", "v1": "old"}

    def make(dialect):
        if dialect == "contract":
            return contract_servers(max_request=MAX_REQUEST)
        return govc_servers(architecture=forms[dialect], max_request=MAX_REQUEST)

    return make


@pytest.mark.parametrize("dialect", STEPS)
async def test_operations_make_the_requests_that_the_table_says(tmp_path, serve, dialect):
    async with an_oracle(tmp_path, serve(dialect)) as oracle:
        await oracle.run("overwrite")
        # The second time it knows what the server takes, and asks less.
        for operation, steps in [*STEPS[dialect].items()] * 2:
            await oracle.prepare(operation)
            before = len(oracle.proxy.seen)
            with named(oracle, operation):
                await oracle.run(operation)
            seen = [line.rpartition(" ")[0] for line in oracle.proxy.seen[before:]]
            made = {
                kind: sum(bool(re.search(KINDS[dialect][kind], line)) for line in seen)
                for kind in steps
            }
            fewer = {
                kind: made[kind]
                for kind, count in steps.items()
                if made[kind] < (1 if kind == "log" else count)
            }
            assert fewer == {}, (operation, seen)

        oracle.is_all_there_once()


@pytest.mark.parametrize("group", FAULTS)
@pytest.mark.parametrize("dialect", STEPS)
async def test_one_fault_at_any_step_loses_and_doubles_nothing(
    tmp_path, serve, dialect, group, record_property
):
    cells = all_cells(dialect, FAULTS[group])
    if CELLS != "full":
        cells = sample(dialect, FAULTS[group], int(CELLS), SEED)
    async with an_oracle(tmp_path, serve(dialect)) as oracle:
        await oracle.run("overwrite")
        for cell in cells:
            with named(oracle, cell):
                await oracle.prepare(cell.operation)
                await oracle.run(cell.operation, cell.script, KINDS[dialect][cell.kind])

        oracle.is_all_there_once()
    if CELLS == "full":
        record_property(FIGURES, f"{dialect}, {group}: {len(cells)} cells")


SCRIPTS = (
    "ok ok 503 timeout torn ok",
    "reset reset reset reset ok cut",
    "done503 lost 429 ok empty",
    "garbled ok 500 done500 torn reset",
    "slow lost slow cut slow 503",
)


OPERATIONS = ("many", "rename", "overwrite", "delete", "binary")

ROUTES = {
    "govc first": {},
    "govc or nothing": {"enable_fallback": False},
    "git first": {"primary_backend": BackendName.GIT},
}


@pytest.mark.parametrize(
    ("dialect", "route"),
    [("v1", "govc first"), ("contract", "govc first"), *(("v2", route) for route in ROUTES)],
)
async def test_storms_of_faults_lose_and_double_nothing(tmp_path, serve, dialect, route):
    async with an_oracle(tmp_path, serve(dialect), **ROUTES[route]) as oracle:
        await oracle.run("overwrite")
        for operation, script in zip(OPERATIONS, SCRIPTS, strict=True):
            with named(oracle, f"{operation}: {script}"):
                await oracle.prepare(operation)
                await oracle.run(operation, script)

        oracle.is_all_there_once()


async def test_group_that_the_primary_may_have_comes_again_as_the_same_commit(tmp_path, serve):
    async with an_oracle(tmp_path, serve("v2"), enable_fallback=False, retry_max=1) as oracle:
        await oracle.run("overwrite")

        oracle.proxy.play("done503 503", on=COMMIT)
        oracle.number += 1
        await oracle.overwrite()
        oracle.world.due()
        await oracle.proxy.wait_played()
        oracle.put("saved meanwhile", b"1\n")
        assert await oracle.world.stored() == ""

        await oracle.agrees()
        oracle.is_all_there_once()


async def test_server_that_says_when_to_come_back_is_left_alone_until_then(tmp_path, serve):
    async with an_oracle(tmp_path, serve("v2")) as oracle:
        world, proxy = oracle.world, oracle.proxy
        await oracle.run("overwrite")

        proxy.play("429", on=COMMIT)
        oracle.number += 1
        await oracle.overwrite()
        assert await world.stored() == ""
        await world.wait_for(lambda: world.report["backends"]["govc"]["breaker"] == "open")
        assert (await world.sync()).left == {"git": 0, "govc": 0}

        [told] = [number for number, line in enumerate(proxy.seen) if line.endswith(" 429")]
        asked_before_it_knew = 0.1
        later = [when - proxy.times[told] for when in proxy.times[told + 1 :]]
        assert not [s for s in later if asked_before_it_knew < s < 1.0]
        await oracle.agrees()
