"""The acknowledgement of a received message: its task returns, or rejects it to the broker.

How a delivery ends is in ``jobs/executor.py``; here its end is translated for Celery.
"""

import itertools
import json
import logging
import time
from typing import Final

from celery.exceptions import Reject
from celery.worker import state

from labelyard.errors import WorkerError
from labelyard.ledger import FINAL_STATES, backoff_s
from labelyard.ledger.set_aside import MAX_KEPT_BYTES, SetAsideMessage
from labelyard.outgoing import TASK, Outgoing, share_of
from labelyard.queues import queue_name
from labelyard_worker.broker.calls import RefusedMessage, TaskCall, to_list_item
from labelyard_worker.jobs.errors import MessageReturnedError
from labelyard_worker.jobs.invalid_messages import id_in
from labelyard_worker.jobs.work import ReadWork, ReceivedMessage
from labelyard_worker.runtime import Runtime
from labelyard_worker.waiting_jobs import WAITING_JOBS

log = logging.getLogger(__name__)

Answer = dict[str, str]
# A call whose result is wanted keeps its thread for this long, then goes back to its queue.
FOLLOW_S: Final = 60.0
FOLLOW_EVERY_S: Final = 0.2
EXIT_CODE: Final = 70  # EX_SOFTWARE of sysexits.h: a supervisor starts another worker


class MessageRunner:
    """Run received messages; Celery acknowledges each one whose task returns.

    Args:
        runtime: Holds the services while the worker runs.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run(self, message: ReceivedMessage, read: ReadWork) -> str:
        """Run one delivery; returns the id of its job.

        Raises:
            Reject: The message goes back to the broker.
        """
        try:
            return self._runtime.services.executor.run(message, read)
        except MessageReturnedError as error:
            if error.returned_by and self._give_back(error, message):
                return error.job_id
            raise Reject(str(error), requeue=True) from error
        except WorkerError as error:
            log.critical("worker_stops", extra={"fields": {"code": error.code, "why": str(error)}})
            state.should_stop = EXIT_CODE
            raise Reject(str(error), requeue=True) from error
        except Exception as error:  # noqa: BLE001 - Celery would drop the message, and log it
            reason = f"the worker failed to run the job ({type(error).__name__})"
            name = queue_name(self._runtime.settings.namespace, message.queue)
            kept = self.set_aside_job(
                message.body, name, task_id=message.task_id, reason=reason, task=message.task
            )
            return kept["job_id"]

    def run_to_end(self, message: ReceivedMessage, read: ReadWork) -> Answer:
        """Run a delivery and the job's retries; returns the job's final state.

        Raises:
            Reject: The message goes back to the broker.
        """
        executor = self._runtime.services.executor
        give_up_at = time.monotonic() + FOLLOW_S
        for attempt in itertools.count(1):
            job_id = self.run(message, read)
            again_at = time.monotonic() + backoff_s(attempt)
            while (status := self._state(job_id)) not in FINAL_STATES:
                if executor.is_draining or time.monotonic() >= give_up_at:
                    raise Reject(f"{job_id} is {status}", requeue=True)
                if time.monotonic() >= again_at:
                    break
                with WAITING_JOBS.waiting():
                    time.sleep(FOLLOW_EVERY_S)
            else:
                return {"job_id": job_id, "status": status}
        raise AssertionError

    def set_aside_job(
        self, body: str, queue: str, *, task_id: str, reason: str, task: str = TASK
    ) -> Answer:
        """Keep the message of a job that cannot be run, so that it can be sent again.

        Args:
            body: The job as JSON text.
            queue: Name of the queue that brought it, namespace included.
            task_id: Id of the Celery task.
            reason: Why it cannot be run, for a person.
            task: Task of the call.

        Raises:
            Reject: The message goes back to the broker.
        """
        tenant, images = share_of(body)
        call = TaskCall(task, task_id, f"[{body}]", tenant=tenant, images=images)
        raw = json.dumps(to_list_item(call, queue=queue, delivery_tag=task_id)).encode()
        refused = RefusedMessage(reason, queue, raw[:MAX_KEPT_BYTES], len(raw), id_in(body))
        return self.set_aside(refused)

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
            self._runtime.services.executor.set_aside(message)
        except MessageReturnedError as error:
            raise Reject(str(error), requeue=True) from error
        return {"job_id": refused.job_id, "status": "failed"}

    def _give_back(self, error: MessageReturnedError, message: ReceivedMessage) -> bool:
        """Publish a message again with a header that its attempt ended well.

        A worker that ends while the ledger is away cannot release its jobs. Without this header
        the next worker would count the attempt as a death.
        """
        links = self._runtime.services.links
        tenant, images = share_of(message.body)
        given_back = Outgoing(
            error.job_id,
            message.body,
            message.queue,
            links.ledger.clock.now(),
            task=message.task,
            returned_by=error.returned_by,
            tenant=tenant,
            images=images,
        )
        return links.publisher.publish_many([given_back])

    def _state(self, job_id: str) -> str:
        try:
            return self._runtime.services.executor.state(job_id) if job_id else "failed"
        except MessageReturnedError as error:
            raise Reject(str(error), requeue=True) from error
