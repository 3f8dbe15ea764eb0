"""What a test of one scenario does with a stage: submit, look at attempts, wait for outcomes."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from labelyard.client import Client, SubmitQueue
from labelyard.ledger import Record
from tests.chaos.effects import EffectsLog
from tests.chaos.invariants import left_to_do
from tests.chaos.stage import Stage
from tests.chaos.traffic import LABELS
from tests.support.waiting import wait_until

# For a machine that is busy with other things, too; what is measured is far below.
PATIENCE_S: Final = 90.0


@dataclass
class Play:
    """A stage at rest, with a producer and the log of what workers do.

    Attributes:
        started_at: When the fault came, for ``recovery_s``.
    """

    stage: Stage
    effects: EffectsLog
    client: Client
    record: Callable[[str, Any], None]
    started_at: float = 0.0

    def submit(
        self, count: int, *, tenant: str = "default", queue: SubmitQueue = "bulk", **options: Any
    ) -> list[str]:
        """Submit jobs of one picture each."""
        uris = self.stage.uris
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
        """Wait until all are final, report how long that took, and count the states."""
        records = self.records(job_ids)
        self.record("recovery_s", round(time.monotonic() - self.started_at, 2))
        return Counter(record.state for record in records)

    def records(self, job_ids: Sequence[str]) -> list[Record]:
        """Wait until all are final, and read them."""
        return self.client.wait(job_ids, timeout_s=PATIENCE_S)

    def begun(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Count the attempts of each job."""
        return {job_id: self.effects.begun[job_id] for job_id in job_ids}

    def wait_for_rest(self) -> None:
        """Wait until nothing is queued, unacknowledged or open, and every worker is up."""
        wait_until(
            lambda: all(slot.pid for slot in self.stage.slots) and not left_to_do(self.stage),
            within_s=PATIENCE_S,
        )
        self.effects.catch_up()


@contextmanager
def playing(stage: Stage, record: Callable[[str, Any], None]) -> Iterator[Play]:
    """Play on a stage at rest, and leave it at rest."""
    with EffectsLog(stage.effects_path) as effects, stage.client() as client:
        play = Play(stage, effects, client, record)
        play.wait_for_rest()
        yield play
        play.wait_for_rest()
