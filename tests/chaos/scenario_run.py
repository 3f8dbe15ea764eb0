"""Run of one scenario in an environment: submit, count attempts, wait for outcomes."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from labelyard.client import Client
from labelyard.ledger import Record
from labelyard.queues import Queue, SubmitQueue
from tests.chaos.effects import EffectsLog
from tests.chaos.environment import Environment
from tests.chaos.invariants import count_unfinished
from tests.chaos.traffic import LABELS
from tests.support.waiting import wait_until

# For a machine that is busy with other things, too; what is measured is far below.
PATIENCE_S: Final = 90.0


@dataclass
class ScenarioRun:
    """An environment at rest, with a producer and the effects log of its workers.

    Attributes:
        started_at: When the fault came, for ``recovery_s``.
    """

    environment: Environment
    effects: EffectsLog
    client: Client
    record: Callable[[str, Any], None]
    started_at: float = 0.0

    def submit(
        self,
        count: int,
        *,
        tenant: str = "default",
        queue: SubmitQueue = Queue.BULK,
        **options: Any,
    ) -> list[str]:
        """Submit jobs of one picture each."""
        uris = self.environment.uris
        jobs = [
            self.client.prepare([uris[n % len(uris)]], LABELS, tenant=tenant, **options)
            for n in range(count)
        ]
        return [handle.id for handle in self.client.submit_many(jobs, queue=queue)]

    def wait_until_begun(self, job_ids: Sequence[str], *, count: int = 1) -> None:
        """Wait until that many of the jobs have begun."""
        begun = self.effects.begun
        wait_until(lambda: sum(job in begun for job in job_ids) >= count, within_s=PATIENCE_S)

    def fault(self) -> None:
        """Note that the fault comes now."""
        self.started_at = time.monotonic()

    def outcomes(self, job_ids: Sequence[str]) -> Counter[str]:
        """Wait until all jobs are final, report how long that took, and count the states."""
        records = self.records(job_ids)
        self.record("recovery_s", round(time.monotonic() - self.started_at, 2))
        return Counter(record.state for record in records)

    def records(self, job_ids: Sequence[str]) -> list[Record]:
        """Wait until all jobs are final, and read their records."""
        return self.client.wait(job_ids, timeout_s=PATIENCE_S)

    def begun(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Count the attempts of each job."""
        return {job_id: self.effects.begun[job_id] for job_id in job_ids}

    def wait_for_rest(self) -> None:
        """Wait until nothing is queued, unacknowledged or open, and every worker is up."""
        wait_until(
            lambda: (
                all(slot.pid for slot in self.environment.slots)
                and not count_unfinished(self.environment)
            ),
            within_s=PATIENCE_S,
        )
        self.effects.catch_up()


@contextmanager
def start_run(
    environment: Environment, record: Callable[[str, Any], None]
) -> Iterator[ScenarioRun]:
    """Run a scenario in an environment at rest, and leave it at rest."""
    with EffectsLog(environment.effects_path) as effects, environment.client() as client:
        run = ScenarioRun(environment, effects, client, record)
        run.wait_for_rest()
        yield run
        run.wait_for_rest()
