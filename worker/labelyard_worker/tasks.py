"""The Celery shell: thin tasks, and the signals of the worker's life.

The main path of a job is in ``classify.py``, the end of a delivery in ``jobs/executor.py``,
its acknowledgement in ``message_runner.py``, the life of the worker in ``runtime.py``.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from celery import Celery, Task
from celery.signals import (
    celeryd_init,
    setup_logging,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from labelyard.messages import Job, Result
from labelyard.outgoing import (
    DELIVER_TASK,
    FINISH_TASK,
    PLAN_TASK,
    PUBLISHED_AT_HEADER,
    RETURNED_BY_HEADER,
    SHARD_TASK,
    TASK,
)
from labelyard.queues import JOB_QUEUES, Queue, queue_name
from labelyard_worker.broker import remote_control
from labelyard_worker.broker.calls import SET_ASIDE_TASK, RefusedMessage
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.classify_job import ClassifyJob
from labelyard_worker.jobs.work import ReadWork, ReceivedMessage, Work
from labelyard_worker.message_runner import Answer, MessageRunner
from labelyard_worker.operations import output
from labelyard_worker.runtime import Runtime
from labelyard_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from labelyard_worker.services import LoadCheckpoint

log = logging.getLogger(__name__)

REQUEST: Final = f"{remote_control.__name__}:{remote_control.UnrevokableRequest.__name__}"
LATEST_TIME: Final = 1e11  # seconds since the epoch: a greater number is not a time
LONGEST_QUEUE_NAME: Final = 128


class UnknownQueueError(ValueError):
    """The message came from a queue that holds no jobs.

    Attributes:
        name: The queue's name, namespace included.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the queue {name[:LONGEST_QUEUE_NAME]!r} holds no jobs")
        self.name = name


def queue_of(task: Task, namespace: str) -> Queue:
    """Read which queue brought the message.

    Raises:
        UnknownQueueError: Not one of the queues that hold jobs.
    """
    name = str((task.request.delivery_info or {}).get("routing_key", ""))
    for queue in JOB_QUEUES:
        if name == queue_name(namespace, queue):
            return queue
    raise UnknownQueueError(name)


def first_published_at(task: Task) -> float:
    """Read when the message was first published; 0 without that header, or if it was sent again."""
    is_redelivered = (task.request.delivery_info or {}).get("redelivered")
    return 0.0 if is_redelivered else published_at(task)


def published_at(task: Task) -> float:
    """Read when the message was published, by the ledger's clock; 0 without that header."""
    at = task.request.get(PUBLISHED_AT_HEADER)
    return float(at) if isinstance(at, int | float) and 0 < at < LATEST_TIME else 0.0


def received_message(
    task: Task, body: str, expires_at: float | None, queue: Queue
) -> ReceivedMessage:
    """Return the message of a task's call, with its envelope."""
    return ReceivedMessage(
        body,
        queue,
        task_id=task.request.id,
        expires_at=expires_at,
        published_at=published_at(task),
        returned_by=task.request.get(RETURNED_BY_HEADER) or "",
        task=task.name,
    )


def add_tasks(app: Celery, settings: WorkerSettings, *, load: "LoadCheckpoint") -> None:
    """Register the tasks, and connect the signals of the worker's life."""
    runtime = Runtime(settings, load)
    runner = MessageRunner(runtime)

    def classify(job: Job, queue: Queue, token: Token) -> Result:
        priority = queue.rules.priority
        return runtime.services.classifier.classify(job, priority=priority, token=token)

    def read_job(message: ReceivedMessage) -> ClassifyJob:
        return ClassifyJob.read(message, classify, runtime.services.answers.count)

    def read_part(name: str, message: ReceivedMessage) -> Work[Any]:
        return runtime.services.runs.read(name, message)

    def add_job_task(name: str, read: ReadWork) -> None:
        @app.task(name=name, bind=True, Request=REQUEST)  # type: ignore[untyped-decorator]
        def run_task(task: Task, message: str, expires_at: float | None = None) -> Answer | None:
            try:
                queue = queue_of(task, settings.namespace)
            except UnknownQueueError as error:
                task_id, reason = task.request.id, str(error)
                return runner.set_aside_job(
                    message, error.name, task_id=task_id, reason=reason, task=name
                )
            runtime.services.links.broker.note_received(queue, first_published_at(task))
            received = received_message(task, message, expires_at, queue)
            if task.request.ignore_result and not task.request.chain:
                runner.run(received, read)
                return None
            return runner.run_to_end(received, read)

    add_job_task(TASK, read_job)
    for name in (PLAN_TASK, SHARD_TASK, FINISH_TASK):
        add_job_task(name, partial(read_part, name))

    add_other_tasks(app, runner)
    # Celery's own tasks call whatever their arguments name.
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        app.tasks.unregister(name)
    if settings.remote_control:
        remote_control.replace_commands(runtime.cancel)
    connect_signals(runtime)


def add_other_tasks(app: Celery, runner: MessageRunner) -> None:
    """Register the tasks whose message is not a job."""

    @app.task(name=DELIVER_TASK, Request=REQUEST)  # type: ignore[untyped-decorator]
    def deliver_task(job_id: str) -> None:
        # Workers of earlier versions send it; here pending deliveries come from the ledger.
        log.debug("deliver_task_ignored", extra={"fields": {"job_id": job_id}})

    @app.task(name=SET_ASIDE_TASK, Request=REQUEST)  # type: ignore[untyped-decorator]
    def set_aside_task(*arguments: Any) -> Answer:
        return runner.set_aside(RefusedMessage.from_arguments(arguments))


def connect_signals(runtime: Runtime) -> None:
    """Connect Celery's signals with the runtime.

    The references are strong: Celery would drop the closures otherwise.
    """

    def on_ready(sender: Any, **_: Any) -> None:
        runtime.ready(sender.pool, sender.app.amqp.queues.consume_from)

    if runtime.settings.log_format == "json":
        celeryd_init.connect(
            lambda instance, **_: output.replace_celery_banner(instance), weak=False
        )
    setup_logging.connect(lambda **_: runtime.set_up_logging(), weak=False)
    worker_init.connect(lambda **_: runtime.open(), weak=False)
    worker_ready.connect(on_ready, weak=False)
    worker_shutting_down.connect(lambda **_: runtime.drain(), weak=False)
    worker_shutdown.connect(lambda **_: runtime.close(), weak=False)
