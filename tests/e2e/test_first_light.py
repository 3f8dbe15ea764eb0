"""From a bucket to a stored result, on real photographs, through real processes."""

import json
import sys

import pytest

from labelyard import Client
from labelyard.messages import Deliver, ImageRef, Label, LabelSet
from labelyard_worker.local.photographs import EVERYDAY_LABELS
from labelyard_worker.local.worker_process import WorkerProcess
from tests.support.pictures import photo
from tests.support.service import PICTURES, READY_WITHIN_S, Service
from tests.support.shell import shell
from tests.support.waiting import wait_until

SHOWN = {
    "cat": "a cat",
    "coffee": "a cup of coffee",
    "rocket": "a rocket",
    "astronaut": "an astronaut",
    "temple": "a temple",
    "flower": "a flower",
}
TIMEOUT_S = 60.0


@pytest.mark.usefixtures("worker")
def test_six_photographs_get_the_right_label(service: Service, client: Client):
    images = [(name, service.pictures.put(f"{name}.img", photo(name))) for name in SHOWN]

    result = client.classify(images, labels=list(EVERYDAY_LABELS), timeout_s=TIMEOUT_S)

    assert result.status == "succeeded"
    assert {image.id: image.labels[0].name for image in result.images} == SHOWN
    assert all(image.matched == (image.labels[0].name,) for image in result.images)


@pytest.mark.usefixtures("worker")
def test_a_worker_describes_itself(client: Client):
    wait_until(lambda: [worker.state for worker in client.workers()] == ["ready"])

    [worker] = client.workers()

    assert worker.queues == ("control", "interactive", "bulk", "quarantine")
    assert worker.device == "cpu"
    assert worker.checkpoint
    assert worker.health_address.startswith("127.0.0.1:")


def test_the_doctor_finds_no_fault_beside_a_worker_and_measures_the_model(
    service: Service, worker: WorkerProcess, client: Client
):
    # It serves its health port a moment before the ledger knows that it is ready.
    wait_until(lambda: [one.state for one in client.workers()] == ["ready"], within_s=TIMEOUT_S)
    variables = {**service.variables, "LABELYARD_HEALTH_PORT": str(worker.port)}
    variables |= {"LABELYARD_ALLOWED_BUCKETS": PICTURES}

    examined = shell(
        service.folder, "labelyard-worker doctor --json --time-limit-s 120", variables=variables
    )

    report = json.loads(examined.stdout)
    counts, codes = report["counts"], {one["code"] for one in report["findings"]}
    faults = [
        (one["code"], one["found"])
        for one in report["findings"]
        if one["severity"] in {"serious", "warning"}
    ]
    assert (examined.returncode, faults) == (0, [])
    assert (counts["serious"], counts["warning"], counts["unchecked"]) == (0, 0, 0)
    assert codes >= {"fleet_lives", "health_port_ours", "model_measured", "s3_bucket_usable"}


@pytest.mark.usefixtures("worker")
def test_a_result_is_also_written_where_the_job_wants_it(service: Service, client: Client):
    uri = service.pictures.put("cat.png", photo("cat"))
    deliver = Deliver(object_uri="s3://results/jobs/cat.json", stream="moderation")

    result = client.classify([uri], labels=["a cat", "a dog"], timeout_s=TIMEOUT_S, deliver=deliver)

    wait_until(lambda: service.results.keys("jobs/") == ["jobs/cat.json"])
    stored = service.results.get("jobs/cat.json")
    assert json.loads(stored) == result.model_dump(mode="json")
    entries = client._ledger.client.xrange(client._ledger.keys.stream("moderation"))
    assert [fields["job_id"] for _, fields in entries].count(result.job_id) == 1


@pytest.mark.usefixtures("worker")
def test_what_fits_no_label_is_abstained(service: Service, client: Client):
    uri = service.pictures.put("rocket.jpg", photo("rocket"))
    labels = LabelSet(
        labels=(Label(name="a cat"), Label(name="a dog")),
        abstain=("a rocket", "a vehicle", "a building"),
    )

    result = client.classify([uri], labels=labels, timeout_s=TIMEOUT_S)

    assert result.images[0].abstained
    assert result.images[0].matched == ()


@pytest.mark.usefixtures("worker")
def test_a_registered_label_set_is_used_by_its_name(service: Service, client: Client):
    uri = service.pictures.put("coffee.png", photo("coffee"))
    labels = LabelSet(labels=(Label(name="a cup of coffee", threshold=0.5), Label(name="a cat")))
    reference = client.label_sets.register("kitchen", labels)

    result = client.classify([uri], labels=reference, timeout_s=TIMEOUT_S)

    assert result.label_set == reference.partition("@")[2]
    assert result.images[0].matched == ("a cup of coffee",)


@pytest.mark.usefixtures("worker")
def test_the_same_key_gives_the_same_job(service: Service, client: Client):
    uri = service.pictures.put("cat.png", photo("cat"))

    first = client.submit([uri], labels=["a cat", "a dog"], idempotency_key="order-1")
    second = client.submit([uri], labels=["a cat", "a dog"], idempotency_key="order-1")

    assert second.id == first.id
    assert (first.is_new, second.is_new) == (True, False)
    assert first.result(timeout_s=TIMEOUT_S) == second.result(timeout_s=TIMEOUT_S)


def test_plain_celery_runs_the_same_worker(service: Service):
    command = (sys.executable, "-m", "celery", "-A", "labelyard_worker", "worker")
    uri = service.pictures.put("flower.jpg", photo("flower"))

    with (
        service.worker(name="plain", command=command, namespace="plain").start(
            within_s=READY_WITHIN_S
        ),
        service.client(namespace="plain") as producer,
    ):
        result = producer.classify(
            [ImageRef(id="f", uri=uri)], labels=list(EVERYDAY_LABELS), timeout_s=TIMEOUT_S
        )

    assert result.images[0].labels[0].name == "a flower"
