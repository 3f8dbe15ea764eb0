"""The queue of a message decides how its job runs; a queue without jobs is an error."""

from types import SimpleNamespace
from typing import Any

import pytest

from labelyard.queues import JOB_QUEUES
from labelyard.testing.samples import sample_job
from labelyard_worker.message_runner import MessageRunner
from labelyard_worker.runtime import Runtime
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.tasks import UnknownQueueError, queue_of


def task_from(queue: Any) -> Any:
    return SimpleNamespace(request=SimpleNamespace(delivery_info={"routing_key": queue}))


@pytest.mark.parametrize("queue", JOB_QUEUES)
def test_a_job_s_queue_is_known_by_its_name(queue: str) -> None:
    assert queue_of(task_from(f"shop.{queue}"), "shop") == queue


@pytest.mark.parametrize("name", ["", None, "bulk", "shop.express", "other.bulk", "shop.shop.bulk"])
def test_a_queue_without_jobs_does_not_pass_for_interactive(name: Any) -> None:
    with pytest.raises(UnknownQueueError, match="holds no jobs"):
        queue_of(task_from(name), "shop")


def test_a_message_without_a_queue_is_of_an_unknown_one() -> None:
    task: Any = SimpleNamespace(request=SimpleNamespace(delivery_info=None))

    with pytest.raises(UnknownQueueError):
        queue_of(task, "shop")


def test_a_job_of_an_unknown_queue_is_kept_whole_under_its_id() -> None:
    """The job fails for its producer, and an operator can replay the message."""
    kept: list[Any] = []
    runtime = Runtime(WorkerSettings(health_port=-1), load=lambda _: None)  # type: ignore[arg-type,return-value]
    runtime._services = SimpleNamespace(executor=SimpleNamespace(set_aside=kept.append))  # type: ignore[assignment]
    job = sample_job()

    answer = MessageRunner(runtime).set_aside_job(
        job.model_dump_json(), "shop.express", task_id="a", reason="the queue holds no jobs"
    )

    (message,) = kept
    assert answer == {"job_id": job.job_id, "status": "failed"}
    assert (message.queue, message.job_id) == ("shop.express", job.job_id)
    assert job.job_id.encode() in message.raw
