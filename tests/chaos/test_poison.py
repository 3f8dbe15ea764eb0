"""Poison jobs and images among good ones."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from tests.chaos.environment import BUCKET, Environment, start_environment
from tests.chaos.scenario_run import PATIENCE_S, ScenarioRun, start_run
from tests.chaos.traffic import LABELS
from tests.conftest import SESSION_SERVERS
from tests.support import poison
from tests.support.apps import orders

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

# CHAOS_POISON_SCALE=1 sends 3,000 good pictures and 300 that are poison.
SCALE = float(os.environ.get("CHAOS_POISON_SCALE", "0.1"))
GOOD_IN_A_JOB = 10
POISON_PICTURES = {
    "crash": (poison.CRASH, "image_crashed_decoder"),
    "hang": (poison.HANG, "image_timed_out"),
    "memory": (poison.EAT_MEMORY, "image_too_large"),
}
MIB = 1024 * 1024
PICTURE_SETTINGS = {
    "TEST_DECODER": poison.DECODER,
    "LABELYARD_INTAKE_CHILDREN": "4",
    "LABELYARD_IMAGE_TIMEOUT_S": "2",
    "LABELYARD_MAX_CHILD_MEMORY_BYTES": str(256 * MIB),
    "LABELYARD_JOB_TIMEOUT_S": "300",
}
# The first death makes a suspect, and the second, alone, a culprit.
JOB_SETTINGS = {
    "LABELYARD_QUARANTINE_AFTER": "1",
    "LABELYARD_DEAD_AFTER": "1",
    "LABELYARD_JOB_TIMEOUT_S": "4",
    "LABELYARD_VISIBILITY_TIMEOUT_S": "4",
}


@contextmanager
def kept(environment: Environment) -> Iterator[None]:
    """Exempt the shared servers and workers from the leak checks."""
    servers = [
        environment.broker,
        environment.ledger,
        environment.storage,
        *(slot.worker for slot in environment.slots),
    ]
    SESSION_SERVERS.extend(servers)
    yield
    for server in servers:
        SESSION_SERVERS.remove(server)


@pytest.fixture(scope="module")
def picture_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Run one worker, whose decoder obeys orders in a file's bytes."""
    folder = tmp_path_factory.mktemp("pictures")
    with (
        start_environment(folder, workers=1, settings=PICTURE_SETTINGS) as environment,
        kept(environment),
    ):
        with closing(environment.storage.s3_client()) as s3:
            for name, (body, _) in POISON_PICTURES.items():
                s3.put_object(Bucket=BUCKET, Key=name, Body=body)
        yield environment


@pytest.fixture(scope="module")
def job_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Run two workers with little patience for jobs that end them."""
    folder = tmp_path_factory.mktemp("jobs")
    with (
        start_environment(folder, workers=2, settings=JOB_SETTINGS) as environment,
        kept(environment),
    ):
        yield environment


def test_poison_pictures_cost_themselves_and_the_worker_lives(
    picture_environment: Environment, record_property: Callable[[str, Any], None]
) -> None:
    """Of every eleven pictures one is poison, of three kinds; CHAOS_POISON_SCALE=1 sends 3,300."""
    count = int(100 * SCALE)
    with start_run(picture_environment, record_property) as run:
        (slot,) = picture_environment.slots
        pid = slot.pid
        jobs = [
            run.client.prepare(
                [
                    *((str(n), picture_environment.uris[n % 8]) for n in range(GOOD_IN_A_JOB)),
                    (name, f"s3://{BUCKET}/{name}"),
                ],
                LABELS,
            )
            for name in POISON_PICTURES
            for _ in range(count)
        ]

        run.fault()
        handles = run.client.submit_many(jobs)
        records = run.client.wait(handles, timeout_s=600)

        results = [image for record in records for image in record.outcome().images]
        errors = Counter((image.id, image.error.code) for image in results if image.error)
        assert len(results) == (GOOD_IN_A_JOB + 1) * 3 * count
        assert errors == {(name, code): count for name, (_, code) in POISON_PICTURES.items()}
        assert slot.pid == pid
        assert not slot.exits


def test_poison_jobs_become_dead_letters_and_all_others_finish(
    job_environment: Environment, record_property: Callable[[str, Any], None]
) -> None:
    """One job ends its process, one breaks its thread, one hangs."""
    tenants = [orders.KILLS_PROCESS, orders.RAISES_MEMORY_ERROR, orders.HANGS]
    with start_run(job_environment, record_property) as run:
        run.fault()
        good = run.submit(100)
        bad = {tenant: run.submit(1, tenant=tenant)[0] for tenant in tenants}
        good += run.submit(100)

        assert run.outcomes(good) == {"succeeded": 200}
        reasons = dead_letters(run, bad)
        assert "died" in reasons[orders.KILLS_PROCESS]
        assert "MemoryError" in reasons[orders.RAISES_MEMORY_ERROR]
        assert "hung" in reasons[orders.HANGS]
        assert set(run.client.dead_letters.ids()) == set(bad.values())
        assert run.outcomes(run.submit(20)) == {"succeeded": 20}


def dead_letters(run: ScenarioRun, jobs: dict[str, str]) -> dict[str, str]:
    """Wait until all of *jobs* are failed, and read why."""
    records = run.client.wait(jobs.values(), timeout_s=2 * PATIENCE_S)
    failures = [record.outcome().error for record in records]
    assert all(failure and failure.code == "job_dead_lettered" for failure in failures)
    return {
        tenant: failure.message
        for tenant, failure in zip(jobs, failures, strict=True)
        if failure is not None
    }


def test_a_dead_letter_that_is_replayed_runs_again_and_can_succeed(
    job_environment: Environment, record_property: Callable[[str, Any], None]
) -> None:
    with start_run(job_environment, record_property) as run:
        (job,) = run.submit(1, tenant=orders.CURABLE)
        dead_letters(run, {"": job})

        (job_environment.flags / orders.CURED).touch()
        run.client.dead_letters.replay(job)

        assert run.outcomes([job]) == {"succeeded": 1}
        assert job not in run.client.dead_letters.ids()
