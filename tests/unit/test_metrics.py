"""Metrics have bounded labels and valid names, and cost their callers no waiting."""

import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from shutil import which
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter, Histogram, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from labelyard import errors
from labelyard.errors import all_errors
from labelyard.ledger import Backlog, BacklogKey
from labelyard.messages import ModelInfo
from labelyard.queues import Priority
from labelyard_worker import metrics, observations
from labelyard_worker.broker import loop_lag
from labelyard_worker.broker.loop_lag import LoopLag
from labelyard_worker.broker.thread_pool import PoolUsage
from labelyard_worker.metrics import FLEET_GAUGES, WORKER_GAUGES, ScrapedGauge
from labelyard_worker.operations import cached_read
from labelyard_worker.operations.cached_read import CachedRead
from labelyard_worker.operations.exposition import Exposition
from labelyard_worker.operations.fleet_gauges import fold_backlog
from labelyard_worker.operations.worker_gauges import WorkerGauges
from labelyard_worker.tenant_labels import TenantLabels
from tests.support.scraping import parse, parts_of
from tests.support.waiting import wait_until

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
TENANTS = ("a", "b", "c", metrics.OTHER)


def exported(*gauges: ScrapedGauge) -> Any:
    """Collect each gauge with one value for each of its labels."""
    return SimpleNamespace(
        collect=lambda: [gauge.family({("x",) * len(gauge.labels): 1.5}) for gauge in gauges]
    )


def count(metric: Counter, *labels: str) -> float:
    return float((metric.labels(*labels) if labels else metric)._value.get())


@given(st.lists(st.text(max_size=3)), st.integers(1, 5))
def test_no_more_tenants_have_a_label_than_the_limit(seen: list[str], limit: int) -> None:
    tenants = TenantLabels(limit, beyond="beyond the limit")

    labels = [tenants.value(tenant) for tenant in seen]

    named = list(dict.fromkeys(seen))[:limit]
    assert labels == [one if one in named else "beyond the limit" for one in seen]


def test_many_threads_name_no_tenant_too_many() -> None:
    tenants = TenantLabels(3, beyond=metrics.OTHER)

    with ThreadPoolExecutor(8) as threads:
        labels = set(threads.map(tenants.value, [str(number % 50) for number in range(2000)]))

    assert len(labels - {metrics.OTHER}) == 3


def test_codes_are_those_of_our_errors_and_any_other_is_one() -> None:
    ours = {error.code for error in all_errors() if error.__module__ == errors.__name__}

    assert {observations.code_label(code) for code in ours} == ours
    assert observations.code_label("MemoryError") == metrics.OTHER
    assert observations.code_label("") == ""


def test_a_job_counts_once_and_each_of_its_images_by_its_code() -> None:
    tenant = "counts-once"
    observations.count_job(tenant, "partial", ["succeeded", "image_not_found", "succeeded", "?"])

    assert count(metrics.JOBS, tenant, "partial") == 1
    codes = ("succeeded", "image_not_found", metrics.OTHER)
    assert [count(metrics.IMAGES, tenant, code) for code in codes] == [2, 1, 1]


@given(
    st.dictionaries(
        st.builds(BacklogKey, st.sampled_from(("bulk", "interactive")), st.sampled_from(TENANTS)),
        st.builds(Backlog, images=st.integers(1, 9), jobs=st.just(1)),
    ),
    st.integers(1, 4),
)
def test_a_folded_backlog_keeps_each_queues_sum_and_names_the_largest(
    backlog: dict[BacklogKey, Backlog], most: int
) -> None:
    folded = fold_backlog(backlog, max_tenants=most)

    for queue in ("bulk", "interactive"):
        true = sum(one.images for key, one in backlog.items() if key.queue == queue)
        assert sum(images for (_, one), images in folded.items() if one == queue) == true
    named = {tenant for tenant, _ in folded} - {metrics.OTHER}
    sizes = dict.fromkeys((key.tenant for key in backlog), 0)
    for key, one in backlog.items():
        sizes[key.tenant] += one.images
    assert len(named) <= most
    unnamed = [size for tenant, size in sizes.items() if tenant not in named]
    if metrics.OTHER not in sizes:
        assert all(sizes[tenant] >= size for tenant in named for size in unnamed)


def test_the_exposition_is_valid_in_both_formats() -> None:
    page = Exposition([exported(*WORKER_GAUGES, *FLEET_GAUGES)]).page

    text_type, text = page("text/plain")
    open_type, open_text = page(OPEN_METRICS)

    assert text_type.startswith("text/plain; version=0.0.4")
    assert open_type.startswith("application/openmetrics-text")
    families = {family.name for family in text_string_to_metric_families(open_text.decode())}
    assert {gauge.name for gauge in (*WORKER_GAUGES, *FLEET_GAUGES)} <= families
    assert not {name for name in parse(text.decode()).names() if name.endswith("_created")}


@pytest.mark.skipif(which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_correct() -> None:
    collected = chain(metrics.REGISTRY.collect(), exported(*WORKER_GAUGES, *FLEET_GAUGES).collect())
    # prometheus_client's own process_open_fds has an abbreviation that promtool reports.
    ours = [family for family in collected if family.name.startswith("labelyard_")]
    text = generate_latest(SimpleNamespace(collect=lambda: ours))

    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False
    )

    assert (checked.stdout, checked.stderr, checked.returncode) == (b"", b"", 0)


def test_each_metric_has_our_prefix_and_each_gauge_an_exporter() -> None:
    members = list(vars(metrics).values())
    counted = [one for one in members if isinstance(one, Counter | Histogram)]
    gauges = {one.name for one in members if isinstance(one, ScrapedGauge)}

    assert all(one._name.startswith("labelyard_") for one in counted)
    assert gauges == {gauge.name for gauge in (*WORKER_GAUGES, *FLEET_GAUGES)}
    assert all(gauge.name.startswith("labelyard_fleet_") for gauge in FLEET_GAUGES)


def test_a_stage_is_observed_under_its_priority() -> None:
    before = parse(Exposition([]).page("")[1].decode())

    observations.observe_stage("score", 0.2, Priority.BULK)

    after = parse(Exposition([]).page("")[1].decode())
    name = "labelyard_stage_duration_seconds"
    risen = {key for key, value in after.items() if value > before.get(key, 0.0)}
    assert {dict(labels)["stage"] for one, labels in risen if one.startswith(name)} == {"score"}
    assert {dict(labels)["priority"] for one, labels in risen if one.startswith(name)} == {"bulk"}


def test_a_server_that_hangs_costs_a_caller_a_moment_and_one_thread() -> None:
    let_go = threading.Event()
    calls: list[None] = []

    def read() -> str:
        calls.append(None)
        let_go.wait(30)
        return "late"

    cached = CachedRead(read, name="labelyard-test-read", within_s=0.02)

    assert [cached.get() for _ in range(3)] == [None, None, None]
    assert len(calls) == 1
    let_go.set()
    wait_until(lambda: cached.get() == "late")
    wait_until(lambda: no_thread("labelyard-test-read"))


def no_thread(name: str) -> bool:
    return not any(thread.name == name for thread in threading.enumerate())


@pytest.mark.parametrize("outcome", ["value", None], ids=["answer", "error"])
def test_an_answer_and_an_error_are_kept_while_they_are_fresh(outcome: str | None) -> None:
    calls: list[None] = []

    def read() -> str:
        calls.append(None)
        if outcome is None:
            raise ConnectionError("away")
        return outcome

    cached = CachedRead(read, name="labelyard-test-read", fresh_s=60.0)

    assert [cached.get() for _ in range(3)] == [outcome] * 3
    assert len(calls) == 1


def test_an_old_answer_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(cached_read.time, "monotonic", lambda: clock.now)
    answers = iter(["old", "new"])
    cached = CachedRead(lambda: next(answers), name="labelyard-test-read", fresh_s=2.0)

    first = cached.get()
    clock.now += 2.0

    assert (first, cached.get()) == ("old", "new")


def test_an_old_answer_is_not_given_while_a_new_one_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(cached_read.time, "monotonic", lambda: clock.now)
    let_go = threading.Event()
    let_go.set()
    cached = CachedRead(lambda: let_go.wait(30), name="labelyard-test-read", within_s=0.02)
    assert cached.get()
    clock.now += cached_read.FRESH_S
    let_go.clear()

    assert cached.get() is None
    let_go.set()
    wait_until(lambda: no_thread("labelyard-test-read"))


def test_a_timer_that_fires_late_is_observed_as_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(loop_lag.time, "monotonic", lambda: clock.now)
    timers: list[tuple[float, Callable[[], None]]] = []

    class Hub:
        def call_later(self, delay_s: float, call: Callable[[], None]) -> SimpleNamespace:
            timers.append((delay_s, call))
            return SimpleNamespace(cancel=timers.clear)

    before = metrics.LOOP_LAG._sum.get()
    lag = LoopLag(Hub(), every_s=1.0)
    clock.now = 103.5
    timers[0][1]()

    assert metrics.LOOP_LAG._sum.get() - before == pytest.approx(2.5)
    assert [delay_s for delay_s, _ in timers] == [1.0, 1.0]
    lag.stop()
    assert timers == []


def worker_parts() -> SimpleNamespace:
    """Stand in for the parts of a worker that has something to show."""
    health = SimpleNamespace(
        batcher=SimpleNamespace(waiting=3, busy_for_s=0.5),
        text_vectors=SimpleNamespace(busy_for_s=1.5),
        intake=SimpleNamespace(
            pending=4,
            budget=SimpleNamespace(taken=2, places=8),
            count_circuits=lambda: {"open": 2, "probing": 1},
        ),
        deliveries=SimpleNamespace(count_circuits=lambda: {"open": 1, "probing": 0}),
        watchdog=SimpleNamespace(hung=lambda: "a job hangs"),
        executor=SimpleNamespace(is_draining=True),
        pool_usage=lambda: PoolUsage(total=64, busy=5, leaked=1),
    )
    model = ModelInfo(checkpoint="clip", fingerprint="f", dtype="float32", device="cpu")
    checkpoint = SimpleNamespace(
        info=model, device=torch.device("cpu"), pixel_spec=SimpleNamespace(max_bytes=100)
    )
    leader = SimpleNamespace(is_leading=True, worker="w1")
    return SimpleNamespace(health=health, checkpoint=checkpoint, leader=leader)


def test_gauges_of_a_worker_show_what_its_parts_say() -> None:
    parts = worker_parts()
    gauges = WorkerGauges(parts.health, parts.leader, parts.checkpoint)

    shown = parts_of(gauges.collect())

    (identity,) = shown.pop("labelyard_build_info")
    assert identity[1:] == ("w1", "clip", "f", "cpu", "float32")
    assert shown.pop("labelyard_circuits") == {
        ("source", "open"): 2,
        ("source", "probing"): 1,
        ("delivery", "open"): 1,
        ("delivery", "probing"): 0,
    }
    assert {name.removeprefix("labelyard_"): value[()] for name, value in shown.items()} == {
        "leader": 1,
        "draining": 1,
        "job_slots": 64,
        "job_slots_busy": 5,
        "job_slots_leaked": 1,
        "intake_pending_images": 4,
        "batch_queue_images": 3,
        "pixels_in_flight_bytes": 200,
        "pixels_in_flight_limit_bytes": 800,
        "forward_pass_running_seconds": 1.5,
        "watchdog_hung": 1,
    }


def test_a_part_that_fails_costs_only_its_own_gauges() -> None:
    parts = worker_parts()
    parts.health.intake = None

    shown = parts_of(WorkerGauges(parts.health, parts.leader, parts.checkpoint).collect())

    assert "labelyard_circuits" not in shown
    assert shown["labelyard_job_slots"] == {(): 64}
