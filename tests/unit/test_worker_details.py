"""Details that a worker writes about itself: its state, its faults, and their size."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from labelyard.ledger.workers import WorkerInfo
from labelyard.messages import ModelInfo
from labelyard_worker.operations.worker_details import WorkerDetails, worker_facts
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.device_names import name_device

MODEL = ModelInfo(checkpoint="lite", fingerprint="sha256:abc", dtype="float32", device="cpu")


def details(
    *, away: tuple[str, ...] = (), failing: tuple[str, ...] = (), is_draining: bool = False
) -> WorkerDetails:
    stand_in: Any = SimpleNamespace
    return WorkerDetails(
        facts=worker_facts(
            WorkerSettings(concurrency=7),
            stand_in(info=MODEL, device=torch.device("cpu")),
            worker="w1",
            started_at=1.0,
            health_port=9464,
        ),
        intake=stand_in(sources_away=list(away)),
        deliveries=stand_in(hosts_failing=list(failing)),
        is_draining=lambda: is_draining,
    )


def described(one: WorkerDetails) -> WorkerInfo:
    return WorkerInfo.model_validate({**json.loads(one.describe()), "name": "w1"})


def test_a_worker_is_starting_until_it_consumes_then_ready_then_draining() -> None:
    one, draining = details(), details(is_draining=True)
    states = [described(one).state]
    one.ready(["interactive"])
    draining.ready(["interactive"])
    states += [described(each).state for each in (one, draining)]

    assert states == ["starting", "ready", "draining"]


def test_a_worker_names_its_device_its_model_and_its_probes() -> None:
    info = described(details())

    assert (info.checkpoint, info.fingerprint, info.dtype) == ("lite", "sha256:abc", "float32")
    assert (info.device, info.device_memory_bytes) == ("cpu", None)
    assert info.device_name.endswith(("core)", "cores)"))
    assert (info.health_address, info.concurrency) == ("127.0.0.1:9464", 7)
    assert info.has_atomic_claim is True
    assert info.version


def test_open_breakers_are_counted_and_the_first_are_named() -> None:
    info = described(details(away=("pets", "cars"), failing=("s3://results",)))

    assert info.open_breakers == ("deliver s3://results", "fetch cars", "fetch pets")
    assert info.open_breaker_count == 3


def test_details_stay_small_however_many_hosts_fail() -> None:
    hosts = tuple(f"{number:03}-{'x' * 250}.example.com:443" for number in range(300))
    one = details(away=hosts, failing=hosts)

    assert len(one.describe()) < 2000
    assert described(one).open_breaker_count == 600
    assert len(details().describe()) < 1000


def test_a_gpu_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA of {device}")

    assert name_device(torch.device("cuda:1")) == "NVIDIA of cuda:1"
