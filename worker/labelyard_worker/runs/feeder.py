"""Feeder of runs: opens the jobs of planned shards, a few at a time, and those of plans and ends."""

import logging
import threading
import time
from typing import Final

from redis.exceptions import RedisError

from labelyard.errors import LedgerUnavailableError, QueueFullError, TenantQuotaError
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.messages import Failure
from labelyard.publisher import Publisher
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import (
    RunPart,
    ShardRange,
    end_of,
    name_parts,
    plan_of,
    queue_of_part,
    shard_of,
    task_of,
)
from labelyard.runs.record import RunRecord
from labelyard_worker.runs.embedded_images import most_lines
from labelyard_worker.runs.shard_result import failed_counts
from labelyard_worker.runs.shard_sizes import TARGET_S, cuts_of_shard
from labelyard_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

#: Seconds between two rounds.
EVERY_S: Final = 0.2
#: Shards of one run that are open for each worker: one in work, one that follows.
SHARDS_FOR_EACH_WORKER: Final = 2
#: The same while shards are small.
MOST_SHARDS_FOR_EACH_WORKER: Final = 12
#: Seconds between two looks at the jobs of opened shards.
LOOK_EVERY_S: Final = 10.0
SAMPLE_EVERY_S: Final = 5.0
#: Samples of the whole run: they come apart as it gets longer.
SAMPLES: Final = 1_500
ENDED_ALONE: Final = {
    "cancelled": Failure(code="job_cancelled", message="its job was cancelled", is_retryable=True),
    "expired": Failure(code="job_expired", message="its job has expired", is_retryable=True),
}
LOST: Final = Failure(code="job_not_found", message="its job ended elsewhere", is_retryable=True)


class RunFeeder:
    """RunFeeder is responsible for the jobs of open runs, while this worker leads.

    A round that dies, or runs beside one of another worker, does no harm: a job is opened once.

    Attributes:
        woken: Set when a run of this worker has come further, so that the next round begins now.
    """

    def __init__(self, runs: RunLedger, publisher: Publisher, settings: WorkerSettings) -> None:
        self._runs = runs
        self._ledger = runs.ledger
        self._publisher = publisher
        self._settings = settings
        self._maintenance = MaintenanceLedger(runs.ledger)
        self._looked_at: dict[str, float] = {}
        self._sampled_at: dict[str, float] = {}
        self.woken = threading.Event()

    def step(self) -> None:
        """Do one round over all open runs."""
        open_runs = self._runs.list_open()
        for kept in (self._looked_at, self._sampled_at):
            for gone in kept.keys() - set(open_runs):
                del kept[gone]
        if not open_runs:
            return
        workers = max(1, self._maintenance.count_fleet().workers)
        for run_id in open_runs:
            run = self._runs.read(run_id)
            if run is None:
                self._runs.drop_open(run_id)
            else:
                self._try_to_advance(run, workers)

    def _try_to_advance(self, run: RunRecord, workers: int) -> None:
        """Do one round for a run; a fault of one run does not hold up the others."""
        try:
            self._advance(run, workers)
        except (LedgerUnavailableError, RedisError, OSError):
            raise
        except Exception:
            log.exception("run_not_fed", extra={"fields": {"run_id": run.run_id}})

    def _advance(self, run: RunRecord, workers: int) -> None:
        now = self._ledger.now()
        match run.step:
            case "planning" | "running":
                if run.expires_at is not None and run.expires_at <= now:
                    self._runs.steer(run.run_id, "expire")
                    return
                self._look_after(run)
                if run.state != "paused":
                    self._feed(run, workers, now)
                self._sample(run, now)
            case "cancelling":
                self._withdraw(run)
            case "finishing":
                self._ensure(end_of(run.request, epoch=run.epoch))
            case _:
                self._runs.drop_open(run.run_id)

    def _feed(self, run: RunRecord, workers: int, now: float) -> None:
        """Open the jobs of waiting shards until enough lines are open for all workers."""
        waiting, opened = self._runs.count_shards(run.run_id)
        if not waiting:
            if run.is_planned and not opened and self._runs.steer(run.run_id, "finish"):
                self._ensure(end_of(run.request, epoch=run.epoch))
            return
        room = workers * MOST_SHARDS_FOR_EACH_WORKER + 1 - opened
        if room <= 0:
            return
        open_lines = sum(lines.lines for lines in self._runs.opened(run.run_id).values())
        wanted = workers * SHARDS_FOR_EACH_WORKER * self._lines_wanted(run)
        next_open_at = run.next_open_at
        for name, lines in self._runs.waiting(run.run_id, limit=room).items():
            if open_lines >= wanted or next_open_at > now:
                return
            if self._cut(run, name, lines):
                continue  # its parts are opened in the next round
            if run.request.images_per_s is not None:
                next_open_at = max(now, next_open_at) + lines.lines / run.request.images_per_s
            if not self._open(run, name, lines, next_open_at=next_open_at):
                return
            open_lines += lines.lines

    def _lines_wanted(self, run: RunRecord) -> int:
        """Return how many lines one shard in work should have."""
        speed = run.shard_images_per_s
        most = most_lines(run.request, self._settings)
        return max(1, min(most, int(speed * TARGET_S)) if speed else most)

    def _cut(self, run: RunRecord, name: str, lines: ShardRange) -> bool:
        """Cut a planned shard that would take too long at the speed of the finished ones."""
        most = most_lines(run.request, self._settings)
        if run.request.images_per_s is not None:
            most = max(1, int(min(most, run.request.images_per_s * TARGET_S / 2)))
        if lines.is_suspect:
            return False
        cuts = cuts_of_shard(lines.lines, images_per_s=run.shard_images_per_s, most=most)
        if not cuts:
            return False
        self._runs.split_waiting(run.run_id, name, name_parts(name, lines.cut(*cuts)))
        return True

    def _open(self, run: RunRecord, name: str, lines: ShardRange, *, next_open_at: float) -> bool:
        """Open the job of a shard, and publish it; ``False`` if a limit does not permit it now."""
        part = shard_of(run.run_id, name, lines, tenant=run.tenant, epoch=run.epoch)
        inherited = lines.is_suspect
        try:
            opened = self._runs.open_part(
                part,
                deaths=self._settings.quarantine_after if inherited else 0,
                deaths_suspect=self._settings.dead_after - 1 if inherited else 0,
            )
        except (QueueFullError, TenantQuotaError) as error:
            log.debug("run_waits", extra={"fields": {"run_id": run.run_id, "code": error.code}})
            return False
        self._runs.note_opened(run.run_id, name, next_open_at=next_open_at)
        if opened.is_new:
            self._publish(part, opened.at)
        return True

    def _publish(self, part: RunPart, at: float) -> None:
        """Publish a part; the reconciler sends it if the broker does not answer."""
        message = part.outgoing(task_of(part), queue=queue_of_part(part), published_at=at)
        self._publisher.publish_many([message])

    def _ensure(self, part: RunPart) -> None:
        """Open the job of a plan or an end, unless it has one."""
        opened = self._runs.open_part(part)
        if opened.is_new:
            self._publish(part, opened.at)
        elif opened.state in ENDED_ALONE:  # an operator cancelled it: the next round opens it anew
            self._ledger.run(self._ledger.commands.forget(part.job_id))

    def _look_after(self, run: RunRecord) -> None:
        """Find, now and then, what ended without this run: a plan or a shard that was cancelled."""
        if not self._is_due(self._looked_at, run.run_id, LOOK_EVERY_S):
            return
        if not run.is_planned:
            plan = plan_of(run.run_id, tenant=run.tenant, epoch=run.epoch)
            state = self._ledger.state(plan.job_id)
            if state is None:
                self._ensure(plan)
            elif state in ENDED_ALONE:
                self._runs.steer(run.run_id, "cancel")
                return
        for name, lines in self._runs.opened(run.run_id).items():
            part = shard_of(run.run_id, name, lines, tenant=run.tenant, epoch=run.epoch)
            self._look_after_shard(run, part.job_id, name, lines)

    def _look_after_shard(self, run: RunRecord, job_id: str, name: str, lines: ShardRange) -> None:
        state = self._ledger.state(job_id)
        if state is None:  # the ledger lost its record
            self._runs.reopen(run.run_id, [name])
        elif state not in {"pending", "running"}:
            failure = ENDED_ALONE.get(state, LOST)
            self._runs.fail_shard(
                run.run_id, name, lines, failure=failure, counts=failed_counts(lines, failure)
            )

    def _withdraw(self, run: RunRecord) -> None:
        """Cancel the jobs of a run that ends early, then begin its end."""
        opened = self._runs.opened(run.run_id)
        self._runs.cancel_parts(run)
        self._runs.reopen(run.run_id, list(opened))
        if self._runs.steer(run.run_id, "finish"):
            self._ensure(end_of(run.request, epoch=run.epoch))

    def _sample(self, run: RunRecord, now: float) -> None:
        """Note the progress, more seldom the longer the run takes."""
        every_s = max(SAMPLE_EVERY_S, (now - run.submitted_at) / SAMPLES)
        if self._is_due(self._sampled_at, run.run_id, every_s):
            self._runs.add_sample(run.run_id, at=now, done=self._runs.progress(run.run_id).done)

    def _is_due(self, done_at: dict[str, float], run_id: str, every_s: float) -> bool:
        now = time.monotonic()
        if now - done_at.get(run_id, float("-inf")) < every_s:
            return False
        done_at[run_id] = now
        return True
