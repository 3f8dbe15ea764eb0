"""An existing Celery application calls labelyard as one more task of its own."""

import base64
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from celery import Celery, chain, group

from labelyard.errors import JobNotFoundError
from labelyard.ledger import Record
from tests.e2e.instant import NAMESPACE, ROOT, InstantService
from tests.support.waiting import wait_until

TASK = "labelyard.classify"
QUEUE = f"{NAMESPACE}.interactive"


@pytest.fixture(scope="module")
def shop(instant: InstantService) -> Iterator[Celery]:
    """An application with the jobs' broker, and its results where the ledger is."""
    variables = instant.service.variables
    app = Celery(
        "shop",
        broker=variables["LABELYARD_BROKER_URL"],
        backend=variables["LABELYARD_LEDGER_URL"],
        set_as_current=False,
    )
    yield app
    app.close()


def job_for(instant: InstantService) -> dict[str, Any]:
    return {
        "version": 1,
        "job_id": str(uuid.uuid4()),
        "images": [{"id": "a", "uri": instant.picture()}],
        "label_set": {"labels": [{"name": "a cat"}, {"name": "a dog"}]},
    }


def final_record(instant: InstantService, job_id: str) -> Record:
    with instant.client() as client:

        def look() -> Record | None:
            try:
                record = client.status(job_id)
            except JobNotFoundError:
                return None
            return record if record.is_final else None

        found = wait_until(look)
        assert found is not None
        return found


@pytest.mark.parametrize("name", ["args", "message", "job"])
def test_a_call_gives_the_applications_result_store_the_jobs_state(
    instant: InstantService, shop: Celery, name: str
) -> None:
    job = job_for(instant)
    call: dict[str, Any] = {"args": [job]} if name == "args" else {"kwargs": {name: job}}

    answer = shop.send_task(TASK, queue=QUEUE, **call).get(timeout=20)

    assert answer == {"job_id": job["job_id"], "status": "succeeded"}
    assert final_record(instant, job["job_id"]).state == "succeeded"


def test_a_group_gathers_the_answers_of_its_jobs(instant: InstantService, shop: Celery) -> None:
    jobs = [job_for(instant) for _ in range(3)]

    calls = group(shop.signature(TASK, args=[job], queue=QUEUE) for job in jobs)
    answers = calls.apply_async().get(timeout=20)

    assert [answer["job_id"] for answer in answers] == [job["job_id"] for job in jobs]


def test_a_job_can_end_a_chain(instant: InstantService, shop: Celery) -> None:
    """The application's own worker publishes it; here the test does as that worker would."""
    job = job_for(instant)
    first = shop.signature("shop.prepare", queue="shop")
    last = shop.signature(TASK, args=[job], queue=QUEUE, immutable=True)
    chain(first, last).apply_async()
    with closing(redis.Redis.from_url(shop.conf.broker_url)) as broker:
        assert broker.lpop("shop") is not None

    answer = last.apply_async(root_id="r", parent_id="p", priority=3).get(timeout=20)

    assert answer["status"] == "succeeded"


def test_a_call_that_follows_a_job_gets_the_jobs_state(
    instant: InstantService, shop: Celery
) -> None:
    """LABELYARD_CELERY_FOLLOW_UPS names shop.after@shop."""
    job = job_for(instant)
    first = shop.signature(TASK, args=[job], queue=QUEUE, immutable=True)

    chain(first, shop.signature("shop.after", args=["order 7"], queue="shop")).apply_async()

    with closing(redis.Redis.from_url(shop.conf.broker_url)) as broker:
        envelope = json.loads(wait_until(lambda: broker.lpop("shop"), within_s=20))
    [args, kwargs, _] = json.loads(base64.b64decode(envelope["body"]))
    assert args == [{"job_id": job["job_id"], "status": "succeeded"}, "order 7"]
    assert (kwargs, envelope["headers"]["task"]) == ({}, "shop.after")


@pytest.mark.parametrize(
    "other",
    [
        {"name": "shop.refund", "queue": "shop"},
        {"name": "shop.after", "queue": "another"},
        {"name": "shop.after", "queue": None},
    ],
)
def test_a_chain_that_is_not_named_in_the_settings_fails_the_job(
    instant: InstantService, shop: Celery, other: dict[str, Any]
) -> None:
    job = job_for(instant)
    first = shop.signature(TASK, args=[job], queue=QUEUE, immutable=True)
    after = shop.signature(other["name"], queue=other["queue"])

    chain(first, shop.signature("shop.after", queue="shop"), after).apply_async()

    assert final_record(instant, job["job_id"]).state == "failed"
    with closing(redis.Redis.from_url(shop.conf.broker_url)) as broker:
        assert broker.exists("shop", "another") == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"countdown": 60}, "submit the job when it is due"),
        ({"time_limit": 5}, "LABELYARD_JOB_TIMEOUT_S"),
        ({"link": "shop.after"}, "callbacks is set"),
        ({"link_error": "shop.after"}, "errbacks is set"),
    ],
    ids=["countdown", "time limit", "link", "link_error"],
)
def test_what_cannot_be_honoured_fails_the_job_with_its_reason(
    instant: InstantService, shop: Celery, options: dict[str, Any], reason: str
) -> None:
    job = job_for(instant)
    for name in {"link", "link_error"} & options.keys():
        options = {name: shop.signature(options[name], queue="shop")}

    answer = shop.send_task(TASK, args=[job], queue=QUEUE, **options).get(timeout=20)

    assert answer == {"job_id": job["job_id"], "status": "failed"}
    failed = final_record(instant, job["job_id"]).result
    assert failed is not None
    assert failed.error is not None
    assert (failed.error.code, reason in failed.error.message) == ("invalid_message", True)
    with closing(redis.Redis.from_url(shop.conf.broker_url)) as broker:
        assert broker.exists("shop") == 0


@pytest.mark.parametrize(
    ("expires", "state"),
    [(timedelta(minutes=5), "succeeded"), (timedelta(seconds=-5), "expired")],
    ids=["later", "before"],
)
def test_a_calls_expiry_is_the_jobs(
    instant: InstantService, shop: Celery, expires: timedelta, state: str
) -> None:
    job = job_for(instant)

    call = shop.send_task(TASK, args=[job], queue=QUEUE, expires=datetime.now(UTC) + expires)

    assert call.get(timeout=20) == {"job_id": job["job_id"], "status": state}


@pytest.mark.parametrize("argument", [{"images": []}, "s3://a/b.jpg", None, 7])
def test_a_message_that_is_not_a_job_fails_under_the_calls_id_and_is_set_aside(
    instant: InstantService, shop: Celery, argument: object
) -> None:
    with instant.client() as client:
        before = client.set_aside.count()

        call = shop.send_task(TASK, args=[argument], queue=QUEUE)

        assert call.get(timeout=20) == {"job_id": call.id, "status": "failed"}
        assert final_record(instant, call.id).state == "failed"
        assert client.set_aside.count() in (before, before + 1)  # the same text is kept once


def test_an_unknown_task_is_set_aside_and_its_body_is_not_in_the_log(
    instant: InstantService, shop: Celery
) -> None:
    job = job_for(instant) | {"tenant": "a-tenant-that-nobody-else-has"}

    shop.send_task("labelyard.clasify", args=[job], queue=QUEUE)

    assert final_record(instant, job["job_id"]).state == "failed"
    with instant.client() as client:
        assert "unknown task" in client.set_aside.messages(limit=1)[0].reason
    assert "a-tenant-that-nobody-else-has" not in instant.log()


def test_the_page_for_celery_apps_does_what_it_says(
    instant: InstantService, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/celery-app.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    variables = instant.service.variables
    for written, here in {
        "redis://localhost:6379/0": variables["LABELYARD_BROKER_URL"],
        "redis://localhost:6379/1": variables["LABELYARD_LEDGER_URL"],
        "labelyard.interactive": QUEUE,
        "s3://photos/sku-1.jpg": instant.picture(),
    }.items():
        assert written in code
        code = code.replace(written, here)

    exec(compile(code, "docs/celery-app.md", "exec"), {})

    assert "'status': 'succeeded'" in capsys.readouterr().out
