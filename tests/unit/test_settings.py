"""Settings are read once, and a mistake in one stops the start with a sentence that helps."""

import os

import pytest

from labelyard.errors import ServiceConfigError
from labelyard.settings import ClientSettings, unknown_variables
from labelyard_worker.broker.visibility_heartbeat import HeartbeatStep
from labelyard_worker.celery_app import build_app, build_redis_options, inflight_limits
from labelyard_worker.settings import WorkerSettings, read_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LABELYARD_")]:
        monkeypatch.delenv(name)


def test_nothing_needs_to_be_set() -> None:
    assert read_settings() == WorkerSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LABELYARD_CONCURRENCY", "0"),
        ("LABELYARD_DEVICE", "gpu"),
        ("LABELYARD_DTYPE", "int3"),
        ("LABELYARD_BULK_SHARE", "1.5"),
        ("LABELYARD_HEALTH_PORT", "70000"),
        ("LABELYARD_NAMESPACE", "with a space"),
        ("LABELYARD_ATOMIC_CLAIM", "perhaps"),
        ("LABELYARD_LOG_FORMAT", "xml"),
    ],
)
def test_a_value_that_is_refused_is_named_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused value could be a password in the wrong place."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ServiceConfigError, match=f"{name}: ") as raised:
        read_settings()

    assert raised.value.code == "service_config"
    assert f"input_value={value!r}" not in str(raised.value)


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELYARD_CONCURRENCY", "many")
    monkeypatch.setenv("LABELYARD_DRAIN_S", "-1")

    with pytest.raises(ServiceConfigError) as raised:
        read_settings()

    assert "LABELYARD_CONCURRENCY: " in str(raised.value)
    assert "LABELYARD_DRAIN_S: " in str(raised.value)


def test_a_misspelt_variable_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELYARD_CONCURENCY", "8")

    with pytest.raises(ServiceConfigError, match="LABELYARD_CONCURENCY: no such setting"):
        read_settings()


@pytest.mark.parametrize(
    "switch", ["SAFE_POOL", "HEARTBEAT", "SINGLE_FLIGHT", "RECONCILER", "WATCHDOG"]
)
def test_a_switch_that_was_folded_names_the_one_that_replaced_it(
    switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LABELYARD_{switch}", "0")

    with pytest.raises(
        ServiceConfigError, match=f"LABELYARD_{switch}: replaced by LABELYARD_STOCK_CELERY"
    ):
        read_settings()


def test_stock_celery_runs_celerys_own_parts() -> None:
    guarded, stock = (build_app(WorkerSettings(stock_celery=is_on)) for is_on in (False, True))

    assert guarded.conf.worker_pool == "labelyard_worker.broker.thread_pool:TaskPool"
    assert HeartbeatStep in guarded.steps["consumer"]
    assert stock.conf.worker_pool == "threads"
    assert HeartbeatStep not in stock.steps["consumer"]


def test_a_producers_variables_may_stand_beside_a_workers() -> None:
    environ = {"LABELYARD_TENANT": "shop", "LABELYARD_CONCURRENCY": "8", "PATH": "/bin"}

    assert unknown_variables(environ, [WorkerSettings, ClientSettings]) == set()


@pytest.mark.parametrize(
    ("text", "names"),
    [("a,b", ("a", "b")), (" a , b ,", ("a", "b")), ("a", ("a",)), ("", ())],
)
def test_lists_are_written_as_an_environment_file_would(
    text: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELYARD_ALLOWED_BUCKETS", text)

    assert read_settings().allowed_buckets == names


@pytest.mark.parametrize(
    ("concurrency", "share", "slots"), [(64, 0.75, 48), (1, 0.75, 1), (2, 0.9, 1), (8, 1.0, 8)]
)
def test_bulk_jobs_leave_a_share_of_the_slots_free(
    concurrency: int, share: float, slots: int
) -> None:
    settings = WorkerSettings(concurrency=concurrency, bulk_share=share)
    limits = inflight_limits(settings)

    assert (limits["labelyard.bulk"], limits["labelyard.quarantine"]) == (slots, 1)
    assert "labelyard.interactive" not in limits


def test_shards_are_limited_where_they_are_queued() -> None:
    options = build_redis_options(WorkerSettings(namespace="yard", shards_at_once=2))

    assert options["shard_limits"] == {"yard.bulk": 2}
