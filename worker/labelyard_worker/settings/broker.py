"""Settings of the broker's messages: claim, redelivery, lost ones, Celery's remote control."""

from pydantic import BaseModel, PositiveFloat, PositiveInt

from labelyard_worker.settings.values import Names


class BrokerSettings(BaseModel):
    """Worker settings of the broker: claims, and access of Celery applications."""

    #: Take messages by one atomic step (Redis brokers). Without it messages pass no admission gate
    #: either: a malformed one can end the worker.
    atomic_claim: bool = True
    #: Seconds after which the messages of a dead worker's jobs are delivered again.
    visibility_timeout_s: PositiveInt = 120
    #: Listen to Celery's remote control (``celery inspect``, ``control``), within the namespace.
    #: Whoever may write to the broker can then stop workers.
    remote_control: bool = False
    #: Calls that a Celery application may chain behind a job, each as ``task@queue``; the worker
    #: publishes them with the job's state to that queue of its broker. Empty refuses chains:
    #: whoever may write to our queues could else have any task of any service called.
    celery_follow_ups: Names = ()
    #: Redis that keeps the task's result for a Celery application; unset means the ledger's.
    celery_results_url: str | None = None


class ReconcilerSettings(BaseModel):
    """Worker settings of the reconciler, which publishes lost messages again."""

    #: Seconds between two rounds of the reconciler.
    reconcile_every_s: PositiveFloat = 15.0
    #: Age in seconds from which the reconciler looks for a job's message.
    reconcile_after_s: PositiveFloat = 30.0
