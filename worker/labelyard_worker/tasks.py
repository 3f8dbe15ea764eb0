"""The Celery shell: three thin tasks, and the signals that build, drain and close the worker.

What a job is, is in ``classify.py``; how a delivery ends, in ``jobs/executor.py``.
"""

import itertools
import json
import logging
import time
from typing import Any, Final

from celery import Celery, Task
from celery.exceptions import Reject
from celery.signals import (
    celeryd_init,
    setup_logging,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import state

from labelyard.errors import LabelyardError, WorkerError
from labelyard.ledger import FINAL_STATES, backoff_s
from labelyard.ledger.set_aside import MAX_KEPT_BYTES, SetAsideMessage
from labelyard.messages import Job, Result
from labelyard.outgoing import (
    DELIVER_TASK,
    PUBLISHED_AT_HEADER,
    RETURNED_BY_HEADER,
    TASK,
    Outgoing,
)
from labelyard.queues import JOB_QUEUES, Queue, queue_name
from labelyard_worker.broker import remote_control
from labelyard_worker.broker.calls import SET_ASIDE_TASK, RefusedMessage, TaskCall, to_list_item
from labelyard_worker.broker.old_lists import move_old_lists
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.executor import MessageReturnedError, id_in
from labelyard_worker.operations import logs, output
from labelyard_worker.services import LoadCheckpoint, Services, open_services
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

Answer = dict[str, str]
REQUEST: Final = f"{remote_control.__name__}:{remote_control.UnrevokableRequest.__name__}"
# A call whose result is wanted keeps its thread for as long, then goes back to its queue.
FOLLOW_S: Final = 60.0
FOLLOW_EVERY_S: Final = 0.2
LATEST_TIME = 1e11  # seconds since the epoch: what is beyond it is not a time
LONGEST_QUEUE_NAME = 128
EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h: whoever supervises us starts another


class Runtime:
    """State that the signals build and the task uses; empty in a process that runs no worker."""

    def __init__(self, settings: WorkerSettings, load: LoadCheckpoint) -> None:
        self.settings = settings
        self._load = load
        self._services: Services | None = None

    @property
    def services(self) -> Services:
        """The services; there are some while a worker runs."""
        if self._services is None:
            raise RuntimeError("tasks run in a worker: start one with labelyard-worker start")
        return self._services

    def set_up_logging(self) -> None:
        """Set up logging in the format of the settings."""
        logs.begin(level=self.settings.log_level, form=self.settings.log_format)

    def open(self) -> None:
        """Build everything before the first job is taken, or end with the reason."""
        self.set_up_logging()  # Celery asks for it only after this
        try:
            self._services = open_services(self.settings, load=self._load)
            move_old_lists(self.settings, self._services.links.ledger)
        except LabelyardError as error:
            self.close()
            raise SystemExit(f"labelyard-worker cannot start: {error}") from error
        except Exception as error:
            # Celery logs what a signal's receiver raises, and goes on without services.
            log.exception("worker_build_failed")
            self.close()
            raise SystemExit(f"labelyard-worker cannot start: {error!r}") from error

    def ready(self, pool: Any) -> None:
        """Report, to the health server and the log, that the worker takes jobs from now on."""
        if self.services.health is not None:
            self.services.health.ready(pool)
        log.info("worker_ready", extra={"fields": {"worker": self.services.links.worker}})

    def drain(self) -> None:
        """Start the drain: running jobs finish, the rest are handed back."""
        if self._services is not None:
            self._services.drain.start()

    def close(self) -> None:
        """Close everything; nothing of ours is left running."""
        if self._services is not None:
            self._services.close()
            self._services = None

    def run(
        self,
        message: str,
        queue: Queue,
        *,
        task_id: str = "",
        expires_at: float | None = None,
        published_at: float = 0.0,
        returned_by: str = "",
    ) -> str:
        """Run one delivery; returns the id of its job.

        Raises:
            Reject: The message goes back to the broker.
        """
        try:
            return self.services.executor.run(
                message,
                queue=queue,
                classify=self._classify,
                task_id=task_id,
                expires_at=expires_at,
                published_at=published_at,
                returned_by=returned_by,
            )
        except MessageReturnedError as error:
            if error.returned_by and self._give_back(error, message, queue):
                return error.job_id
            raise Reject(str(error), requeue=True) from error
        except WorkerError as error:
            log.critical("worker_stops", extra={"fields": {"code": error.code, "why": str(error)}})
            state.should_stop = EXIT_CODE
            raise Reject(str(error), requeue=True) from error
        except Exception as error:  # noqa: BLE001 - Celery would drop the message, and log it
            reason = f"the worker failed to run the job ({type(error).__name__})"
            name = queue_name(self.settings.namespace, queue)
            return self.set_aside_job(message, name, task_id=task_id, reason=reason)["job_id"]

    def set_aside_job(self, message: str, queue: str, *, task_id: str, reason: str) -> Answer:
        """Keep the message of a job that cannot be run, so that it can be sent again.

        Args:
            message: The job as JSON text.
            queue: Name of the queue that brought it, namespace included.
            task_id: Id of the Celery task.
            reason: Why it cannot be run, for a person.

        Raises:
            Reject: The message goes back to the broker.
        """
        call = TaskCall(TASK, task_id, f"[{message}]")
        raw = json.dumps(to_list_item(call, queue=queue, delivery_tag=task_id)).encode()
        refused = RefusedMessage(reason, queue, raw[:MAX_KEPT_BYTES], len(raw), id_in(message))
        return self.set_aside(refused)

    def _give_back(self, error: MessageReturnedError, message: str, queue: Queue) -> bool:
        """Publish a message again with the word that its attempt ended well.

        A worker that ends while the ledger is away cannot release its jobs. Without this word
        the next worker would count the attempt as a death.
        """
        now = self.services.links.ledger.clock.now()
        given_back = Outgoing(error.job_id, message, queue, now, returned_by=error.returned_by)
        return self.services.links.publisher.publish_many([given_back])

    def run_to_end(
        self,
        message: str,
        queue: Queue,
        *,
        task_id: str,
        expires_at: float | None,
        published_at: float,
        returned_by: str,
    ) -> Answer:
        """Run a delivery and the job's retries; returns the job's final state.

        Raises:
            Reject: The message goes back to the broker.
        """
        executor = self.services.executor
        give_up_at = time.monotonic() + FOLLOW_S
        for attempt in itertools.count(1):
            job_id = self.run(
                message,
                queue,
                task_id=task_id,
                expires_at=expires_at,
                published_at=published_at,
                returned_by=returned_by,
            )
            again_at = time.monotonic() + backoff_s(attempt)
            while (status := self._state(job_id)) not in FINAL_STATES:
                if executor.is_draining or time.monotonic() >= give_up_at:
                    raise Reject(f"{job_id} is {status}", requeue=True)
                if time.monotonic() >= again_at:
                    break
                time.sleep(FOLLOW_EVERY_S)
            else:
                return {"job_id": job_id, "status": status}
        raise AssertionError

    def _state(self, job_id: str) -> str:
        try:
            return self.services.executor.state(job_id) if job_id else "failed"
        except MessageReturnedError as error:
            raise Reject(str(error), requeue=True) from error

    def set_aside(self, refused: RefusedMessage) -> Answer:
        """Keep a message that is not a call of one of our tasks.

        Raises:
            Reject: The message goes back to the broker.
        """
        message = SetAsideMessage(
            reason=refused.reason,
            queue=refused.queue,
            size_bytes=refused.size_bytes,
            raw=refused.raw,
            job_id=refused.job_id,
        )
        try:
            self.services.executor.set_aside(message)
        except MessageReturnedError as error:
            raise Reject(str(error), requeue=True) from error
        return {"job_id": refused.job_id, "status": "failed"}

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that Celery's remote control revokes."""
        return self.services.links.ledger.cancel(job_id)

    def _classify(self, job: Job, queue: Queue, token: Token) -> Result:
        priority = queue.rules.priority
        return self.services.classifier.classify(job, priority=priority, token=token)


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


def add_tasks(app: Celery, settings: WorkerSettings, *, load: LoadCheckpoint) -> None:
    """Register the task, and connect the signals of the worker's life."""
    runtime = Runtime(settings, load)

    @app.task(name=TASK, bind=True, Request=REQUEST)  # type: ignore[untyped-decorator]
    def classify_task(task: Task, message: str, expires_at: float | None = None) -> Answer | None:
        try:
            queue = queue_of(task, settings.namespace)
        except UnknownQueueError as error:
            task_id, reason = task.request.id, str(error)
            return runtime.set_aside_job(message, error.name, task_id=task_id, reason=reason)
        runtime.services.links.broker.note_received(queue, first_published_at(task))
        call = {
            "task_id": task.request.id,
            "expires_at": expires_at,
            "published_at": published_at(task),
            "returned_by": task.request.get(RETURNED_BY_HEADER) or "",
        }
        if task.request.ignore_result and not task.request.chain:
            runtime.run(message, queue, **call)
            return None
        return runtime.run_to_end(message, queue, **call)

    @app.task(name=DELIVER_TASK, Request=REQUEST)  # type: ignore[untyped-decorator]
    def deliver_task(job_id: str) -> None:
        # Workers of earlier versions send it; here pending deliveries come from the ledger.
        log.debug("deliver_task_ignored", extra={"fields": {"job_id": job_id}})

    @app.task(name=SET_ASIDE_TASK, Request=REQUEST)  # type: ignore[untyped-decorator]
    def set_aside_task(*arguments: Any) -> Answer:
        return runtime.set_aside(RefusedMessage.from_arguments(arguments))

    # Celery's own tasks call whatever their arguments say.
    for name in [name for name in app.tasks if name.startswith("celery.")]:
        app.tasks.unregister(name)
    if settings.remote_control:
        remote_control.replace_commands(runtime.cancel)

    # Strong references: the handlers are closures, which Celery would let go.
    def on_ready(sender: Any, **_: Any) -> None:
        runtime.ready(sender.pool)

    if settings.log_format == "json":
        celeryd_init.connect(lambda instance, **_: output.quieten_celery(instance), weak=False)
    setup_logging.connect(lambda **_: runtime.set_up_logging(), weak=False)
    worker_init.connect(lambda **_: runtime.open(), weak=False)
    worker_ready.connect(on_ready, weak=False)
    worker_shutting_down.connect(lambda **_: runtime.drain(), weak=False)
    worker_shutdown.connect(lambda **_: runtime.close(), weak=False)
