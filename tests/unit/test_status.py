"""stats.json, health.json and metrics from the two reports."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caiafs.core.config import BackendName, Config
from caiafs.core.metrics import OperationMetrics
from caiafs.link.report import BackendReport, Condition, RefusedDocument, StoreReport
from caiafs.status.health import health
from caiafs.status.prometheus import METRICS, prometheus
from caiafs.status.report import (
    CacheReport,
    KernelReport,
    MountReport,
    StateReport,
    StoreProcessReport,
)
from caiafs.status.stats import stats

GIT_ONLY = Config(Path("/repo"), Path("/mnt"), primary_backend=BackendName.GIT)
HYBRID = Config(Path("/repo"), Path("/mnt"), use_govc=True)


def some_operations() -> OperationMetrics:
    metrics = OperationMetrics()
    metrics.record(0.010)
    metrics.record(0.030, error="time-out")
    return metrics


def a_mount(**fields: Any) -> MountReport:
    known: dict[str, Any] = {
        "version": "1.2.3",
        "pid": 42,
        "uptime_s": 12.3456,
        "mountpoint": "/mnt",
        "repository": "/repo",
        "state_dir": "/repo/caiafs",
        "fuse": {"read": some_operations().statistics()},
        "store_process": StoreProcessReport(running=True),
    }
    return MountReport(**(known | fields))


def a_backend(condition: Condition = Condition.OK, **fields: Any) -> BackendReport:
    return BackendReport(configured=True, condition=condition, **fields)


def a_store(*, govc: BackendReport | None = None, **fields: Any) -> StoreReport:
    git = a_backend(implementation="git", documents=5)
    known: dict[str, Any] = {
        "mode": "hybrid" if govc else "git only",
        "backends": {"git": git, "govc": govc or BackendReport(configured=False)},
    }
    return StoreReport(**(known | fields))


class TestStats:
    def test_names_and_units_of_the_caia_documents_are_kept(self):
        govc = a_backend(implementation="rest-v2", documents=7)

        shown = stats(a_mount(), a_store(govc=govc), HYBRID)["storage_stats"]

        assert shown["config"]["primary_backend"] == "govc"
        assert shown["config"]["enable_fallback"] is True
        assert shown["config"]["operation_timeout"] == 5_000_000_000
        assert shown["govc"]["documents_in_memory"] == 7
        assert shown["govc"]["govc_integrated"] is True
        assert shown["govc"]["implementation"] == "rest-v2"

    def test_without_govc_it_is_not_integrated(self):
        shown = stats(a_mount(), a_store(), GIT_ONLY)["storage_stats"]["govc"]

        assert shown["govc_integrated"] is False
        assert shown["implementation"] == "none"
        assert shown["documents_in_memory"] == 0

    def test_umount_finds_process_and_state_directory(self):
        shown = stats(a_mount(), None, GIT_ONLY)["mount"]

        assert (shown["pid"], shown["state_dir"]) == (42, "/repo/caiafs")

    def test_each_operation_has_its_figures(self):
        shown = stats(a_mount(), None, GIT_ONLY)["fuse"]["read"]

        assert (shown["count"], shown["success"], shown["failure"]) == (2, 1, 1)
        assert shown["success_rate"] == 0.5
        assert shown["min_s"] == pytest.approx(0.010)
        assert shown["avg_s"] == pytest.approx(0.020)
        assert shown["last_error"] == "time-out"

    @pytest.mark.parametrize("store", [None, a_store()])
    def test_shape_does_not_depend_on_the_store_process(self, store: StoreReport | None):
        def keys(value: Any) -> Any:
            if not isinstance(value, dict):
                return None
            return {k: keys(v) for k, v in value.items() if k != "operations"}

        full = stats(a_mount(), a_store(govc=a_backend()), HYBRID)

        assert keys(stats(a_mount(), store, HYBRID)) == keys(full)

    def test_it_is_json(self):
        json.dumps(stats(a_mount(), a_store(govc=a_backend()), HYBRID), allow_nan=False)

    def test_cache_hit_rate_without_a_lookup_is_zero(self):
        assert stats(a_mount(), None, GIT_ONLY)["cache"]["hit_rate"] == 0.0
        warm = a_mount(cache=CacheReport(hits=3, misses=1))
        assert stats(warm, None, GIT_ONLY)["cache"]["hit_rate"] == 0.75


class TestHealth:
    def test_git_alone_is_ok_without_reasons(self):
        shown = health(a_mount(), a_store(), GIT_ONLY)

        assert (shown["status"], shown["mode"], shown["reasons"]) == ("ok", "git only", [])
        assert shown["listing"] == "complete"

    def test_no_report_yet_is_degraded_with_its_reason(self):
        shown = health(a_mount(), None, HYBRID)

        assert (shown["status"], shown["mode"]) == ("degraded", "hybrid")
        assert shown["reasons"] == ["the store process has not reported yet"]
        assert shown["backends"]["govc"]["configured"] is True

    def test_a_dead_store_process_is_degraded_and_says_that_saves_are_kept(self):
        dead = StoreProcessReport(running=False, restarts=3, reasons=("it ended with -9",))

        shown = health(a_mount(store_process=dead), a_store(), GIT_ONLY)

        assert shown["status"] == "degraded"
        assert shown["reasons"][0] == "it ended with -9"
        assert "kept" in shown["reasons"][1]

    def test_an_absent_govc_is_degraded_and_says_why(self):
        govc = a_backend(Condition.FAILED, reasons=("connection refused",), breaker="open")

        shown = health(a_mount(), a_store(govc=govc), HYBRID)

        assert shown["status"] == "degraded"
        assert shown["reasons"] == ["govc: connection refused"]
        assert shown["backends"]["govc"]["breaker"] == "open"

    def test_a_failed_store_without_words_gets_some(self):
        govc = a_backend(Condition.FAILED, last_error="reset by peer")

        assert health(a_mount(), a_store(govc=govc), HYBRID)["reasons"] == ["govc: reset by peer"]

    def test_no_store_at_all_is_failed(self):
        store = a_store(govc=a_backend(Condition.FAILED))
        store = replace(store, backends={**store.backends, "git": a_backend(Condition.FAILED)})

        assert health(a_mount(), store, HYBRID)["status"] == "failed"

    def test_a_damaged_state_db_is_failed(self):
        shown = health(a_mount(state=StateReport(read_only=True)), a_store(), GIT_ONLY)

        assert shown["status"] == "failed"
        assert "read-only" in shown["reasons"][0]

    def test_refused_documents_are_named(self):
        refused = (RefusedDocument("a/b.txt", "too large"),)
        govc = a_backend(Condition.DEGRADED, refused=refused)

        shown = health(a_mount(), a_store(govc=govc), HYBRID)

        assert shown["status"] == "degraded"
        assert "a/b.txt: too large" in shown["reasons"][0]

    def test_a_partial_listing_is_shown(self):
        govc = a_backend(listing="partial")

        assert health(a_mount(), a_store(govc=govc), HYBRID)["listing"] == "partial"

    @pytest.mark.parametrize(
        ("mount", "says"),
        [
            (a_mount(kernel=KernelReport(broken_requests=2)), "2 requests met a bug"),
            (a_mount(shadowed=(".caia",)), "hidden by .caia"),
            (a_mount(reasons=("disk nearly full",)), "disk nearly full"),
        ],
    )
    def test_what_the_mount_process_knows_is_a_reason(self, mount: MountReport, says: str):
        shown = health(mount, a_store(), GIT_ONLY)

        assert shown["status"] == "degraded"
        assert says in shown["reasons"][0]


SAMPLE = re.compile(r'^([a-z_]+)(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? (-?[0-9.e+-]+)$')


class TestPrometheus:
    def lines(self, store: StoreReport | None = None) -> list[str]:
        return prometheus(a_mount(), store, HYBRID).splitlines()

    @pytest.mark.parametrize("store", [None, a_store(govc=a_backend(documents=3))])
    def test_every_line_is_exposition_format(self, store: StoreReport | None):
        seen: set[str] = set()
        for line in self.lines(store):
            if line.startswith("# HELP "):
                name = line.split(" ")[2]
                assert name not in seen
                seen.add(name)
            elif line.startswith("# TYPE "):
                assert line.split(" ")[3] in {"gauge", "counter"}
            else:
                match = SAMPLE.fullmatch(line)
                assert match, line
                assert match[1] in seen

    def test_no_sample_is_given_twice(self):
        names = [line.rpartition(" ")[0] for line in self.lines(a_store(govc=a_backend()))]

        assert len(names) == len(set(names))

    def test_health_is_one_of_three(self):
        values = {
            line.partition('"')[2].partition('"')[0]: line.rpartition(" ")[2]
            for line in self.lines()
            if line.startswith("caiafs_health{")
        }

        assert values == {"ok": "0", "degraded": "1", "failed": "0"}

    def test_operations_of_kernel_and_stores_are_told_apart(self):
        git = a_backend(operations={"commit": some_operations().statistics()})
        store = StoreReport(mode="git only", backends={"git": git})

        text = prometheus(a_mount(), store, GIT_ONLY)

        wanted = 'caiafs_operations_total{backend="%s",operation="%s",outcome="failure"} 1'
        assert wanted % ("fuse", "read") in text
        assert wanted % ("git", "commit") in text

    def test_tasks_of_both_processes_are_told_apart(self):
        text = prometheus(a_mount(tasks=21), a_store(tasks=34), GIT_ONLY)

        assert 'caiafs_tasks{process="mount"} 21\n' in text
        assert 'caiafs_tasks{process="store"} 34\n' in text

    def test_hostile_label_values_are_escaped(self):
        text = prometheus(a_mount(version='1"\n\\'), None, GIT_ONLY)

        assert r'caiafs_info{version="1\"\n\\"} 1' in text

    def test_the_table_keeps_its_own_rules(self):
        for metric in METRICS:
            assert metric.name.startswith("caiafs_")
            assert metric.name.endswith("_total") == (metric.kind == "counter")
            assert metric.help.endswith(".")
            if metric.unit in {"seconds", "bytes"}:
                assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}")
