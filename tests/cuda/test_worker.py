"""A worker process on the device, from a bucket to results, and its end when the device is lost."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from labelyard_worker.local.worker_process import WorkerProcess
from tests.support import pictures
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(170)]

ROOT = Path(__file__).parent.parent.parent
LABELS = ["a cat", "a dog", "a rocket"]
TIMEOUT_S = 60.0
EXIT_CODE = 70
LOSING = ("celery", "-A", "tests.support.apps.losing_worker", "worker", "--loglevel", "WARNING")


@pytest.fixture
def settings(device: torch.device, folder_of: Callable[[str], Path]) -> dict[str, str]:
    """Set a worker up for the device under test."""
    return {
        "device": device.type,
        "checkpoint": str(folder_of("clip")),
        "intake_children": "2",
        "image_cache_bytes": "0",
    }


def test_jobs_of_one_and_of_many_images_succeed(
    service: Service, settings: dict[str, str], device: torch.device
) -> None:
    images = [
        service.pictures.put(f"{number}.jpg", pictures.jpeg((80, 60), seed=number))
        for number in range(64)
    ]

    with (
        service.worker(name="device", **settings).start(within_s=READY_WITHIN_S),
        service.client() as client,
    ):
        singles = [client.submit([image], labels=LABELS) for image in images[:8]]
        whole = client.classify(images, labels=LABELS, timeout_s=TIMEOUT_S)
        records = client.wait(singles, timeout_s=TIMEOUT_S)

    assert whole.status == "succeeded"
    assert whole.model is not None
    assert whole.model.device == device.type
    assert [record.state for record in records] == ["succeeded"] * 8
    for record, image in zip(records, whole.images, strict=False):
        assert record.result is not None
        alone = record.result.images[0]
        assert alone.labels[0].score == pytest.approx(image.labels[0].score, abs=0.05)


def test_a_lost_device_ends_the_worker_and_its_job_stays(
    service: Service, settings: dict[str, str], tmp_path: Path
) -> None:
    """On a GPU an assertion in a kernel really takes the process's context away."""
    image = service.pictures.put("lost.jpg", pictures.jpeg())
    (tmp_path / "lose").touch()
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    worker = service.worker(
        name="losing",
        command=(sys.executable, "-m", *LOSING),
        variables={"TEST_LOSE": str(tmp_path / "lose"), "PYTHONPATH": python_path},
        namespace="losing",
        **settings,
    )

    with service.client(namespace="losing") as client, worker.start(within_s=READY_WITHIN_S):
        job = client.submit([image], labels=LABELS)
        wait_until(lambda: not worker.is_running(), within_s=TIMEOUT_S)
        code = exit_code(worker)
        state = job.state()

    assert code == EXIT_CODE
    assert state not in {"succeeded", "failed", "dead"}
    assert "worker_stops" in worker.log_path.read_text()


def exit_code(worker: WorkerProcess) -> int:
    """Return the code that the process ended with."""
    assert worker._guardian is not None
    return int(worker._guardian.returncode)
