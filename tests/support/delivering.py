"""A delivery pool on a real ledger, for tests of deliveries."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from labelyard.ledger import DeliveryState, Ledger, Pending, Record, connect
from labelyard.ledger.deliveries import DeliveryLedger
from labelyard.messages import Deliver, Job
from labelyard.testing import sample_job, sample_result
from labelyard_worker.jobs.delivery.plan import deliveries_of
from labelyard_worker.jobs.delivery.pool import DeliveryPool
from labelyard_worker.jobs.delivery.senders import schedule_of, senders_of
from labelyard_worker.settings import WorkerSettings
from tests.support.waiting import wait_until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class DeliveryRig:
    """One worker's deliveries, and the ledger to look at them."""

    def __init__(self, settings: WorkerSettings, *, worker: str = "w1") -> None:
        self.client = connect(settings)
        self.ledger = Ledger(self.client, settings)
        self.pool = DeliveryPool(
            worker=worker,
            ledger=self.ledger,
            senders=senders_of(settings),
            schedule=schedule_of(settings),
            breaker_pause_s=settings.delivery_breaker_pause_s,
            poll_every_s=0.05,
        )
        self.worker = worker

    def start(self) -> None:
        """Start the pool."""
        self.pool.start()

    def close(self) -> None:
        """End the pool."""
        self.pool.close()
        self.client.close()

    def finish(self, deliver: Deliver, *, deliverer: str = "", **changes: Any) -> Job:
        """Finish a job, whose deliveries are left to whichever worker has room."""
        job = sample_job(deliver=deliver, **changes)
        self.ledger.open(job, queue="bulk")
        self.ledger.finish(
            job.job_id,
            sample_result(job=job),
            pending=Pending(deliveries_of(job), deliverer=deliverer),
        )
        return job

    def record(self, job: Job) -> Record:
        record = self.ledger.read(job.job_id)
        assert record is not None
        return record

    def state(self, job: Job, name: str = "webhook") -> DeliveryState:
        """Read how a delivery stands."""
        return self.record(job).deliveries[name]

    def tried(self, job: Job, name: str = "webhook", *, times: int = 1) -> DeliveryState:
        """Wait until a delivery was tried, and read how it stands."""
        wait_until(lambda: self.state(job, name).attempts >= times, within_s=20)
        return self.state(job, name)

    def due_in_s(self, job: Job) -> float | None:
        """Return the seconds until the job's deliveries are due."""
        due = self.client.zscore(self.ledger.keys.pending_deliveries, job.job_id)
        seconds, microseconds = self.client.time()
        return None if due is None else float(due) - seconds - microseconds / 1_000_000

    def make_due(self, job: Job) -> None:
        """Let the job's deliveries be due now, as if the pause was over."""
        self.client.zadd(self.ledger.keys.pending_deliveries, {job.job_id: 0})

    def as_worker(self, worker: str, *, lease_s: float = 60) -> DeliveryLedger:
        """Act on the ledger as another worker would."""
        return DeliveryLedger(self.ledger, worker=worker, lease_s=lease_s)


def delivery_settings(ledger_url: str, **changes: Any) -> WorkerSettings:
    """Make settings that permit webhooks to this machine."""
    defaults: dict[str, Any] = {
        "ledger_url": ledger_url,
        "namespace": "test",
        "webhook_secret": SECRET,
        "webhook_hosts": ("127.0.0.1",),
    }
    return WorkerSettings(**{**defaults, **changes})


@contextmanager
def delivering(
    ledger_url: str, *, is_started: bool = True, **changes: Any
) -> Iterator[DeliveryRig]:
    """Run a delivery pool while the block runs."""
    with closing(DeliveryRig(delivery_settings(ledger_url, **changes))) as bench:
        if is_started:
            bench.start()
        yield bench
