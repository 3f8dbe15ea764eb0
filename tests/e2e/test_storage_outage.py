"""While a bucket fails as a whole its jobs wait, and none uses up its attempts."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from labelyard import Client
from labelyard_worker.local.worker_process import WorkerProcess
from tests.conftest import SESSION_SERVERS
from tests.e2e.instant import COMMAND, ROOT, SETTINGS
from tests.support import pictures
from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.service import PICTURES, READY_WITHIN_S, Service
from tests.support.waiting import wait_until

LABELS = ["a cat", "a dog"]
TIMEOUT_S = 60.0
JOBS = 12
NAMESPACE = "outage"


@dataclass(frozen=True)
class Stage:
    """A worker behind a proxy that can fail."""

    service: Service
    worker: WorkerProcess
    faults: FaultyS3

    def log(self) -> str:
        return self.worker.log_path.read_text()

    def picture(self, number: int) -> str:
        raw = pictures.jpeg(seed=number) + os.urandom(8)
        return self.service.pictures.put(f"outage-{number}.jpg", raw)


@pytest.fixture(scope="module")
def stage(service: Service) -> Iterator[Stage]:
    with faulty_s3(service.seaweed.port) as (faults, port):
        (service.folder / "outage-flags").mkdir(exist_ok=True)
        variables = {
            "PYTHONPATH": str(ROOT),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "TEST_EFFECTS": str(service.folder / "outage-effects.log"),
            "TEST_FLAGS": str(service.folder / "outage-flags"),
        }
        settings = {
            **SETTINGS,
            "namespace": NAMESPACE,
            "max_attempts": "2",
            "storage_wait_s": "600",
        }
        worker = service.worker(name="outage", command=COMMAND, variables=variables, **settings)
        with worker.start(within_s=READY_WITHIN_S):
            SESSION_SERVERS.append(worker)
            yield Stage(service, worker, faults)
            SESSION_SERVERS.remove(worker)


@pytest.fixture
def producer(stage: Stage) -> Iterator[Client]:
    with stage.service.client(namespace=NAMESPACE) as client:
        yield client


def test_no_job_fails_in_an_outage_that_outlasts_its_attempts(
    stage: Stage, producer: Client
) -> None:
    """Each is sent again more often than it has attempts, and these are all left."""
    stage.faults.failing.add(PICTURES)
    jobs = [producer.submit([stage.picture(number)], labels=LABELS) for number in range(JOBS)]
    wait_until(lambda: all(stage.log().count(job.id) >= 3 for job in jobs), within_s=TIMEOUT_S)

    stage.faults.failing.clear()
    results = [job.result(timeout_s=TIMEOUT_S) for job in jobs]

    assert {result.status for result in results} == {"succeeded"}
    assert "intake_source_away" in stage.log()
    assert "intake_source_back" in stage.log()
    assert not any(f"job_retry job_id={job.id}" in stage.log() for job in jobs)


def test_an_object_that_always_fails_is_that_images_error(stage: Stage, producer: Client) -> None:
    """Other objects of the bucket are fetched without waiting for it."""
    stage.faults.failing_keys.add("broken.jpg")

    job = producer.submit([f"s3://{PICTURES}/broken.jpg", stage.picture(99)], labels=LABELS)
    result = job.result(timeout_s=TIMEOUT_S)

    assert [image.error and image.error.code for image in result.images] == [
        "storage_unavailable",
        None,
    ]
