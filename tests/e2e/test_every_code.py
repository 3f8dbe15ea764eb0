"""Every error code is provoked once, and seen by whom it concerns, through the whole path."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kombu import Connection

from labelyard import Client, errors
from labelyard.errors import LabelyardError, all_errors
from labelyard.label_sets import as_label_set
from labelyard.ledger.set_aside import SetAsideMessage
from labelyard.messages import Examples, LabelSet, Learned, Result, new_job_id
from labelyard.webhooks import sign, verify
from labelyard_worker.local.embedded import choose_ports
from tests.e2e.instant import NAMESPACE, WEBHOOK_SECRET, InstantService
from tests.support import broken_pictures, poison
from tests.support.apps import orders
from tests.support.apps.durability_worker import send
from tests.support.service import READY_WITHIN_S, Service
from tests.support.waiting import wait_until

TIMEOUT_S = 30.0
LABELS = ["a cat", "a dog"]
# Errors with errors below them are families; no code of theirs is ever sent.
CODES = {
    cls.code
    for cls in all_errors()
    if cls.__module__ == errors.__name__
    and not any(below.__module__ == errors.__name__ for below in cls.__subclasses__())
}


@dataclass(frozen=True)
class Stage:
    """Servers and a worker for the scenarios.

    Attributes:
        client: Producer of the worker that is started.
    """

    instant: InstantService
    client: Client

    @property
    def service(self) -> Service:
        """The servers."""
        return self.instant.service

    def classify(self, uri: str, **options: Any) -> Result:
        """Classify one picture."""
        labels = options.pop("labels", LABELS)
        return self.client.classify([uri], labels=labels, timeout_s=TIMEOUT_S, **options)

    def image_code(self, uri: str, **options: Any) -> str:
        """Make one picture fail, and return its code."""
        return image_code_in(self.classify(uri, **options))

    def job_code(self, **options: Any) -> str:
        """Make a whole job fail, and return its code."""
        return code_in(self.classify(self.instant.picture(), **options))


@pytest.fixture
def stage(instant: InstantService) -> Iterator[Stage]:
    with instant.client() as client:
        yield Stage(instant, client)


def code_in(result: Result) -> str:
    assert result.error is not None
    return result.error.code


def image_code_in(result: Result) -> str:
    (image,) = result.images
    assert image.error is not None
    return image.error.code


def code_raised(call: Callable[[], object]) -> str:
    with pytest.raises(LabelyardError) as raised:
        call()
    return raised.value.code


def invalid_message(stage: Stage) -> str:
    job = stage.client.prepare([stage.instant.picture()], labels=LABELS)
    broken = job.model_copy(update={"top_k": 0})
    return code_in(stage.client.submit_job(broken).result(timeout_s=TIMEOUT_S))


def unknown_label_set(stage: Stage) -> str:
    return stage.job_code(labels=f"nobody-registered-it@sha256:{'0' * 64}")


def learned_with(checkpoint: str, examples: Examples | None = None) -> LabelSet:
    """Make a label set that learned with a checkpoint."""
    learned = Learned(checkpoint=checkpoint, examples=examples)
    return as_label_set(LABELS).model_copy(update={"learned": learned})


def label_set_of_another_checkpoint(stage: Stage) -> str:
    return stage.job_code(labels=learned_with("sha256:another"))


def label_set_examples(stage: Stage) -> str:
    """Teach a set, and delete what it was taught."""
    model = stage.classify(stage.instant.picture()).model
    assert model is not None
    gone = Examples(
        object_uri=stage.service.pictures.uri("label-sets/gone.npz"),
        sha256="0" * 64,
        features="joint",
        counts={LABELS[0]: 1},
    )
    return stage.job_code(labels=learned_with(model.fingerprint, gone))


def unsupported_uri(stage: Stage) -> str:
    return stage.image_code("/etc/hostname")


def image_not_found(stage: Stage) -> str:
    return stage.image_code(stage.service.pictures.uri("nobody/put/this.jpg"))


def image_access_denied(stage: Stage) -> str:
    return stage.image_code(stage.service.private.put("secret.jpg", b""))


def image_too_large(stage: Stage) -> str:
    return stage.image_code(
        stage.service.pictures.put("huge.png", broken_pictures.huge_png_header())
    )


def image_undecodable(stage: Stage) -> str:
    return stage.image_code(stage.service.pictures.put("empty.jpg", b""))


def image_crashed_decoder(stage: Stage) -> str:
    """Give the decoder bytes that abort it, as often as it takes until they are blamed."""
    return stage.image_code(stage.instant.file(poison.CRASH))


def image_timed_out(stage: Stage) -> str:
    """Give the decoder bytes that hang it."""
    return stage.image_code(stage.instant.file(poison.HANG))


def image_not_embedded(stage: Stage) -> str:
    return stage.image_code(stage.instant.picture("unseen.jpg"), rescore=True)


def scores_not_finite(stage: Stage) -> str:
    """Have the model overflow once: nothing of it is kept, so the next job has scores."""
    uri = stage.instant.picture("overflows.jpg")
    stage.instant.order(orders.LOSE_PRECISION)
    code = stage.image_code(uri)
    assert stage.classify(uri).status == "succeeded"
    return code


def storage_unavailable(stage: Stage) -> str:
    uri = stage.instant.picture()
    with stage.instant.storage_away():
        return stage.image_code(uri)


def batcher_full(stage: Stage) -> str:
    stage.instant.order(orders.LEAVE_NO_MEMORY)
    return stage.image_code(stage.instant.picture())


def inference_timeout(stage: Stage) -> str:
    return stage.job_code(tenant="slow-30")


def model_load(stage: Stage) -> str:
    return code_of_refused_start(stage, LABELYARD_CHECKPOINT="/no/such/folder")


def service_config(stage: Stage) -> str:
    return code_of_refused_start(stage, LABELYARD_CONCURENCY="8")


def code_of_refused_start(stage: Stage, **variables: str) -> str:
    """Start a worker that cannot start: its last line is the reason."""
    done = subprocess.run(
        [sys.executable, "-m", "labelyard_worker", "start"],
        env={**os.environ, **stage.service.variables, "LABELYARD_HEALTH_PORT": "0", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (1, 2)  # 2 if a setting is refused before the worker is there
    assert "Traceback" not in done.stderr
    return code_before_a_colon(done.stderr.splitlines()[-1])


def code_before_a_colon(line: str) -> str:
    match = re.search(r"\b([a-z]+_[a-z_]+): ", line)
    assert match is not None, line
    return match[1]


def device_failed(stage: Stage) -> str:
    """Lose the device: the worker ends, and the next one does the job."""
    worker, guardian = stage.instant.worker, stage.instant.worker._guardian
    stage.instant.order(orders.LOSE_DEVICE)
    job = stage.client.submit([stage.instant.picture()], labels=LABELS)
    wait_until(lambda: not worker.is_running(), within_s=TIMEOUT_S)
    assert guardian is not None
    assert guardian.returncode == 70
    worker.start(within_s=READY_WITHIN_S)
    assert job.result(timeout_s=TIMEOUT_S).status == "succeeded"
    return str(re.findall(r"critical worker_stops code=(\w+)", stage.instant.log())[-1])


def broker_unavailable(stage: Stage) -> str:
    (port,) = choose_ports(1)
    settings = stage.service.client_settings(publish_timeout_s=0.2)
    dead = settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{port}/0"})
    with Client(dead) as client:
        return code_raised(client.queue_lengths)


def ledger_unavailable(stage: Stage) -> str:
    (port,) = choose_ports(1)
    dead = {"ledger_url": f"redis://127.0.0.1:{port}/0"}
    with Client(stage.service.client_settings().model_copy(update=dead)) as client:
        return code_raised(lambda: client.submit(["s3://a/b"], labels=LABELS))


def queue_full(stage: Stage) -> str:
    with stage.service.client(namespace="full", max_queued_images=1) as client:
        client.submit(["s3://a/b"], labels=LABELS, idempotency_key="the first one")
        return code_raised(lambda: client.submit(["s3://a/c"], labels=LABELS))


def tenant_quota_exceeded(stage: Stage) -> str:
    with stage.service.client(namespace="shared") as client:
        client.tenants.set("shop", max_open_images=0)
        try:
            return code_raised(lambda: client.submit(["s3://a/b"], labels=LABELS, tenant="shop"))
        finally:
            client.tenants.reset("shop")


def idempotency_conflict(stage: Stage) -> str:
    stage.client.submit(["s3://a/b"], labels=LABELS, idempotency_key="order-1")
    return code_raised(
        lambda: stage.client.submit(["s3://a/c"], labels=LABELS, idempotency_key="order-1")
    )


def result_timeout(stage: Stage) -> str:
    with stage.service.client(namespace="nobody-works-here") as client:
        return code_raised(client.submit(["s3://a/b"], labels=LABELS).result)


def result_unreadable(stage: Stage) -> str:
    """Spoil one record: the other jobs of the same call are read all the same."""
    jobs = [stage.client.submit([stage.instant.picture()], labels=LABELS) for _ in range(3)]
    good, spoilt, also_good = stage.client.wait([job.id for job in jobs], timeout_s=TIMEOUT_S)
    result = spoilt.outcome().model_dump(mode="json")
    result["images"][0]["labels"][0]["score"] = None
    redis: Any = stage.client._ledger.client
    redis.hset(stage.client._ledger.keys.job(spoilt.job_id), "result", json.dumps(result))

    good, spoilt, also_good = stage.client.wait([job.id for job in jobs], timeout_s=TIMEOUT_S)

    assert good.outcome().status == also_good.outcome().status == "succeeded"
    assert stage.client.status(spoilt.job_id).state == "succeeded"
    return code_raised(spoilt.outcome)


def label_set_worse(stage: Stage) -> str:
    """Shares that are the opposite of the sample's make its only labelled picture wrong."""
    label_set = as_label_set(LABELS).model_copy(update={"temperature": 1000.0})
    uri = stage.instant.picture()
    best, other = stage.classify(uri, labels=label_set).images[0].labels
    return code_raised(
        lambda: stage.client.adapt(
            label_set,
            shares={best.name: 0.01, other.name: 0.99},
            sample=[{"image": uri, "label": best.name}],
            name="worse",
            timeout_s=TIMEOUT_S,
        )
    )


def job_not_found(stage: Stage) -> str:
    return code_raised(lambda: stage.client.result("nobody-submitted-this"))


def job_cancelled(stage: Stage) -> str:
    job = stage.client.submit([stage.instant.picture()], labels=LABELS, tenant="slow-3")
    wait_until(lambda: job.state() == "running", within_s=TIMEOUT_S)
    assert job.cancel()
    return code_raised(lambda: job.result(timeout_s=TIMEOUT_S))


def job_expired(stage: Stage) -> str:
    return code_raised(
        lambda: stage.classify(stage.instant.picture(), tenant="slow-3", expires_in_s=0.5)
    )


def job_dead_lettered(stage: Stage) -> str:
    return stage.job_code(tenant=orders.RAISES_MEMORY_ERROR)


def run_files(stage: Stage) -> str:
    run = stage.client.runs.start(
        stage.service.pictures.uri("prefix/"), LABELS, out="s3://not-permitted/results/"
    )
    failure = stage.client.runs.wait(run.id, timeout_s=TIMEOUT_S).failure
    assert failure is not None
    return failure.code


def run_state(stage: Stage) -> str:
    run = stage.client.runs.start(
        stage.service.pictures.uri("prefix/"), LABELS, out="s3://not-permitted/results/"
    )
    stage.client.runs.wait(run.id, timeout_s=TIMEOUT_S)
    return code_raised(lambda: stage.client.runs.pause(run.id))


def run_not_found(stage: Stage) -> str:
    return code_raised(lambda: stage.client.runs.get("nobody-started-this"))


def run_timeout(stage: Stage) -> str:
    with stage.service.client(namespace="nobody-works-here") as client:
        run = client.runs.start("s3://a/b/", LABELS, out="s3://a/c/")
        return code_raised(lambda: client.runs.wait(run.id, timeout_s=0.01))


def event_group_not_found(stage: Stage) -> str:
    events = stage.client.events("nobody-made-this", start="existing", timeout_s=0)
    return code_raised(lambda: list(events))


def alias_conflict(stage: Stage) -> str:
    sets = stage.client.label_sets
    alias = sets.promote(sets.register("pets", as_label_set(LABELS)), "pets@prod")
    return code_raised(lambda: sets.delete(alias.reference))


def webhook_headers(stage: Stage) -> str:
    return code_raised(lambda: verify({}, b"{}", WEBHOOK_SECRET))


def webhook_signature(stage: Stage) -> str:
    signed = sign(b"{}", WEBHOOK_SECRET, message_id="a")
    return code_raised(lambda: verify(signed, b"[]", WEBHOOK_SECRET))


def webhook_timestamp(stage: Stage) -> str:
    signed = sign(b"{}", WEBHOOK_SECRET, message_id="a", at=1e9)
    return code_raised(lambda: verify(signed, b"{}", WEBHOOK_SECRET))


def webhook_body(stage: Stage) -> str:
    signed = sign(b"[]", WEBHOOK_SECRET, message_id="a")
    return code_raised(lambda: verify(signed, b"[]", WEBHOOK_SECRET))


SCENARIOS: dict[str, Callable[[Stage], str]] = {
    scenario.__name__: scenario
    for scenario in (
        invalid_message,
        unknown_label_set,
        label_set_of_another_checkpoint,
        label_set_examples,
        unsupported_uri,
        image_not_found,
        image_access_denied,
        image_too_large,
        image_undecodable,
        image_crashed_decoder,
        image_timed_out,
        image_not_embedded,
        scores_not_finite,
        storage_unavailable,
        batcher_full,
        inference_timeout,
        model_load,
        service_config,
        device_failed,
        broker_unavailable,
        ledger_unavailable,
        queue_full,
        tenant_quota_exceeded,
        idempotency_conflict,
        result_timeout,
        result_unreadable,
        label_set_worse,
        job_not_found,
        job_cancelled,
        job_expired,
        job_dead_lettered,
        run_files,
        run_state,
        run_not_found,
        run_timeout,
        event_group_not_found,
        alias_conflict,
        webhook_headers,
        webhook_signature,
        webhook_timestamp,
        webhook_body,
    )
}


def test_there_is_a_scenario_for_every_code_and_no_other() -> None:
    elsewhere = {"image_killed_worker"}  # takes many deaths of workers: test_runs.py

    assert set(SCENARIOS) | elsewhere == CODES


@pytest.mark.parametrize("code", SCENARIOS)
def test_a_code_reaches_whom_it_concerns(code: str, stage: Stage) -> None:
    provoke = SCENARIOS[code]

    assert provoke(stage) == code


def test_after_an_image_that_failed_the_next_one_is_scored(stage: Stage) -> None:
    storage_unavailable(stage)

    result = stage.classify(stage.instant.picture())

    assert result.status == "succeeded"


def test_a_producer_without_our_client_reads_why_its_message_was_refused(stage: Stage) -> None:
    job_id = new_job_id()
    message = {"job_id": job_id, "images": [], "label_set": "cats"}

    with (
        Connection(stage.service.variables["LABELYARD_BROKER_URL"]) as connection,
        connection.Producer() as producer,
    ):
        send(producer, "labelyard.classify", message, queue=f"{NAMESPACE}.bulk")

    wait_until(lambda: stage.client._ledger.state(job_id), within_s=TIMEOUT_S)
    result = stage.client.result(job_id, timeout_s=TIMEOUT_S)
    assert code_in(result) == "invalid_message"
    assert result.error is not None
    assert "images" in result.error.message


def test_a_message_without_an_id_is_kept_for_the_operator(stage: Stage) -> None:
    with (
        Connection(stage.service.variables["LABELYARD_BROKER_URL"]) as connection,
        connection.Producer() as producer,
    ):
        send(producer, "labelyard.classify", ["no", "job"], queue=f"{NAMESPACE}.bulk")

    def kept() -> list[SetAsideMessage]:
        messages = stage.client.set_aside.messages()
        return [one for one in messages if one.queue == f"{NAMESPACE}.bulk"]

    assert wait_until(kept, within_s=TIMEOUT_S)[0].reason
