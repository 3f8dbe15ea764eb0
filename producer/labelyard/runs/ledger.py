"""Records of runs in Redis: opened and steered by producers, advanced by workers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from labelyard.errors import IdempotencyConflictError, RunNotFoundError
from labelyard.ledger import Ledger
from labelyard.ledger.commands import NOTHING_PENDING, OpenedFrom, Pending
from labelyard.ledger.records import State
from labelyard.ledger.redis_errors import ledger_errors_as_ours
from labelyard.ledger.run_commands import RunCommands, Step
from labelyard.ledger.script_answers import Opened, read_opened
from labelyard.messages import Failure
from labelyard.runs.parts import (
    RunPart,
    ShardPart,
    ShardRange,
    plan_of,
    queue_of_part,
    shard_of,
    task_of,
)
from labelyard.runs.record import RunProgress, RunRecord, progress_of, read_run
from labelyard.runs.request import RunRequest
from labelyard.runs.run_end import RunEnd

SAMPLES_KEPT: Final = 2_000
SAMPLES_READ: Final = 30


@dataclass(frozen=True, slots=True)
class BegunShard:
    """Answer to the begin of an attempt at a shard.

    Attributes:
        state: State of the run; empty if there is no such run.
        is_paused: Whether the run is paused.
        trail: How far an attempt came that was lost; empty if there was none.
    """

    state: str
    is_paused: bool
    trail: Mapping[str, Any]


class RunLedger:
    """The ledger of runs, for threads.

    Every method raises LedgerUnavailableError when Redis gives no answer.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger: Ledger = ledger
        self._client = ledger.client
        self._keys = ledger.keys
        self._commands = RunCommands(ledger.commands)

    def open(self, request: RunRequest) -> bool:
        """Write the record of a run; ``False`` if the same run has one.

        Raises:
            IdempotencyConflictError: The id is that of another run.
        """
        self.ledger.check_durability()
        command = self._commands.open_run(
            request.run_id,
            request.model_dump_json(warnings="error"),
            digest=request.digest(),
            tenant=request.tenant,
            expires_at=request.expires_at.timestamp() if request.expires_at else None,
        )
        verdict = self.ledger.run(command, is_durable=True)[0]
        if verdict == "conflict":
            raise IdempotencyConflictError(
                f"{request.run_id}: another run was started under this id or key"
            )
        return bool(verdict == "opened")

    def open_part(
        self,
        part: RunPart,
        *,
        source: OpenedFrom = "run",
        deaths: int = 0,
        deaths_suspect: int = 0,
    ) -> Opened:
        """Write the record of a part, unless it has one.

        Raises:
            QueueFullError: As many images wait as are allowed.
            TenantQuotaError: A quota of the tenant is used up.
        """
        outgoing = part.outgoing(task_of(part), queue=queue_of_part(part), published_at=0)
        command = self.ledger.commands.open_part(
            outgoing,
            digest=part.digest(),
            source=source,
            deaths=deaths,
            deaths_suspect=deaths_suspect,
        )
        answer = self.ledger.run(command, is_durable=True)
        return read_opened(part.job_id, answer, limit=self.ledger.commands.max_queued_images)

    def adopt(self, part: RunPart) -> bool:
        """Write the record of a part whose message came without one.

        Returns:
            ``False`` if it was final before, and only its record is gone.
        """
        outgoing = part.outgoing(task_of(part), queue=queue_of_part(part), published_at=0)
        command = self.ledger.commands.open_part(outgoing, digest=part.digest(), source="adopt")
        answer = self.ledger.run(command)
        read_opened(part.job_id, answer, limit=0)
        return bool(answer[0] != "ended")

    def read(self, run_id: str) -> RunRecord | None:
        """Read the record of a run; ``None`` if there is none."""
        with ledger_errors_as_ours():
            fields = cast("dict[str, str]", self._client.hgetall(self._keys.run(run_id)))
        return read_run(run_id, fields)

    def find(self, run_id: str) -> RunRecord:
        """Read the record of a run.

        Raises:
            RunNotFoundError: There is none.
        """
        run = self.read(run_id)
        if run is None:
            raise RunNotFoundError(run_id)
        return run

    def newest(self, *, limit: int) -> list[RunRecord]:
        """Read the records of the newest runs, the newest first."""
        with ledger_errors_as_ours():
            ids: Any = self._client.zrange(self._keys.runs, 0, limit - 1, desc=True)
        found = [(run_id, self.read(run_id)) for run_id in ids]
        if gone := [run_id for run_id, run in found if run is None]:
            with ledger_errors_as_ours():
                self._client.zrem(self._keys.runs, *gone)
        return [run for _, run in found if run is not None]

    def list_open(self) -> list[str]:
        """List the ids of the runs that are not final, the oldest first."""
        with ledger_errors_as_ours():
            return cast("list[str]", self._client.zrange(self._keys.open_runs, 0, -1))

    def drop_open(self, run_id: str) -> None:
        """Drop a run without a record from the open ones."""
        with ledger_errors_as_ours():
            self._client.zrem(self._keys.open_runs, run_id)

    def progress(self, run_id: str) -> RunProgress:
        """Read the progress of a run.

        Raises:
            RunNotFoundError: There is no such run.
        """
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(self._keys.run(run_id))
            pipeline.hgetall(self._keys.run_trails(run_id))
            pipeline.lrange(self._keys.run_samples(run_id), 0, SAMPLES_READ - 1)
            fields, trails, samples = pipeline.execute()
        run = read_run(run_id, fields)
        if run is None:
            raise RunNotFoundError(run_id)
        return progress_of(run, trails=trails, samples=samples, now=self.ledger.now())

    def steer(self, run_id: str, step: Step, *, failure: Failure | None = None) -> bool:
        """Pause, resume or end a run; ``False`` if its state does not permit it.

        Raises:
            RunNotFoundError: There is no such run.
        """
        text = failure.model_dump_json() if failure is not None else ""
        command = self._commands.steer_run(run_id, step, failure=text)
        verdict = self.ledger.run(command, is_durable=True)[0]
        if verdict == "missing":
            raise RunNotFoundError(run_id)
        return bool(verdict == "done")

    def cancel_parts(self, run: RunRecord) -> None:
        """Cancel the jobs of a run that is being cancelled, as many as are known."""
        jobs = [
            shard_of(run.run_id, name, lines, tenant=run.tenant, epoch=run.epoch).job_id
            for name, lines in self.opened(run.run_id).items()
        ]
        if not run.is_planned:
            jobs.append(plan_of(run.run_id, tenant=run.tenant, epoch=run.epoch).job_id)
        self.ledger.cancel_many(jobs)

    def plan(
        self,
        run_id: str,
        *,
        expected: int,
        name: str,
        lines: ShardRange | None,
        checkpoint: Mapping[str, Any],
        counts: Mapping[str, int],
        is_complete: bool,
    ) -> str:
        """Add a shard, move the checkpoint; returns ``planned``, ``stale`` or ``over``."""
        command = self._commands.plan_shards(
            run_id,
            expected=expected,
            name=name,
            lines=lines.model_dump_json(exclude_defaults=True) if lines is not None else "",
            checkpoint=json.dumps(dict(checkpoint)),
            counts=counts,
            is_complete=is_complete,
        )
        return str(self.ledger.run(command, is_durable=True)[0])

    def count_shards(self, run_id: str) -> tuple[int, int]:
        """Count the shards that wait for a job, and those that have one."""
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.zcard(self._keys.run_waiting(run_id))
            pipeline.zcard(self._keys.run_opened(run_id))
            waiting, opened = pipeline.execute()
        return int(waiting), int(opened)

    def waiting(self, run_id: str, *, limit: int) -> dict[str, ShardRange]:
        """Read the next shards without a job, in their order."""
        return self._ranges(run_id, self._keys.run_waiting(run_id), limit=limit)

    def opened(self, run_id: str) -> dict[str, ShardRange]:
        """Read the shards with a job, the oldest first."""
        return self._ranges(run_id, self._keys.run_opened(run_id), limit=0)

    def _ranges(self, run_id: str, key: str, *, limit: int) -> dict[str, ShardRange]:
        with ledger_errors_as_ours():
            names: Any = self._client.zrange(key, 0, limit - 1)
            if not names:
                return {}
            found: Any = self._client.hmget(self._keys.run_shards(run_id), names)
        return {
            name: ShardRange.model_validate_json(lines)
            for name, lines in zip(names, found, strict=True)
            if lines is not None
        }

    def note_opened(self, run_id: str, name: str, *, next_open_at: float) -> None:
        """Note that a shard has a job."""
        self.ledger.run(self._commands.open_shard(run_id, name, next_open_at=next_open_at))

    def reopen(self, run_id: str, names: Sequence[str]) -> None:
        """Let shards wait for a job again."""
        if names:
            self.ledger.run(self._commands.reopen_shards(run_id, names))

    def begin(self, part: ShardPart, *, start: int) -> BegunShard:
        """Begin an attempt at a shard."""
        command = self._commands.begin_shard(part.run_id, part.name, start=start)
        state, paused, trail = self.ledger.run(command)
        return BegunShard(state, paused == "1", json.loads(trail) if trail else {})

    def note_trail(self, part: ShardPart, trail: Mapping[str, int]) -> None:
        """Note how far a running shard has come."""
        key = self._keys.run_trails(part.run_id)
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, part.name, json.dumps(dict(trail)))
            pipeline.expire(key, self.ledger.commands.open_ttl_s)
            pipeline.execute()

    def read_trail(self, part: ShardPart) -> dict[str, int]:
        """Read how far the last attempt at a shard came; empty if it is not known."""
        with ledger_errors_as_ours():
            trail = self._client.hget(self._keys.run_trails(part.run_id), part.name)
        return cast("dict[str, int]", json.loads(trail)) if trail else {}

    def finish(
        self,
        part: ShardPart,
        *,
        state: State,
        result: str,
        counts: Mapping[str, int],
        failure: Failure | None = None,
        images_per_s: float = 0.0,
    ) -> bool:
        """Make the job of a shard final, and count the shard; ``False`` if it was final before."""
        command = self._commands.finish_shard(
            part.run_id,
            part.name,
            job_id=part.job_id,
            state=state,
            result=result,
            counts=counts,
            failed=_failed(part.range, failure) if failure is not None else "",
            images_per_s=images_per_s,
        )
        return bool(self.ledger.run(command, is_durable=True)[0] == "finished")

    def fail_shard(
        self,
        run_id: str,
        name: str,
        lines: ShardRange,
        *,
        failure: Failure,
        counts: Mapping[str, int],
    ) -> bool:
        """Count a shard as failed whose job ended without a result."""
        command = self._commands.fail_shard(
            run_id, name, counts=counts, failed=_failed(lines, failure)
        )
        return bool(self.ledger.run(command, is_durable=True))

    def failed_shards(self, run_id: str) -> dict[str, tuple[ShardRange, Failure]]:
        """Read the shards that failed as a whole."""
        with ledger_errors_as_ours():
            found = cast("dict[str, str]", self._client.hgetall(self._keys.run_failed(run_id)))
        both = {name: json.loads(text) for name, text in found.items()}
        return {
            name: (ShardRange.model_validate(one["range"]), Failure.model_validate(one["failure"]))
            for name, one in sorted(both.items())
        }

    def done_shards(self, run_id: str) -> list[str]:
        """List the names of the shards that are done, in their order."""
        with ledger_errors_as_ours():
            # SSCAN may return a member twice.
            return sorted(set(self._client.sscan_iter(self._keys.run_done(run_id), count=1000)))

    def split(
        self, part: ShardPart, parts: Mapping[str, ShardRange], *, computed_again: int = 0
    ) -> bool:
        """Put smaller shards in the place of one; ``False`` if it is done."""
        return self.split_waiting(part.run_id, part.name, parts, computed_again=computed_again)

    def split_waiting(
        self, run_id: str, name: str, parts: Mapping[str, ShardRange], *, computed_again: int = 0
    ) -> bool:
        """Put smaller shards in the place of one of which the name is known."""
        pairs = [
            (each, lines.model_dump_json(exclude_defaults=True)) for each, lines in parts.items()
        ]
        command = self._commands.split_shard(
            run_id, name, parts=pairs, computed_again=computed_again
        )
        return bool(self.ledger.run(command, is_durable=True)[0] != "over")

    def finish_run(
        self,
        part: RunPart,
        *,
        state: str,
        summary: str,
        failure: Failure | None,
        result: str,
        notice: RunEnd | None = None,
        pending: Pending = NOTHING_PENDING,
    ) -> bool:
        """Make a run final; ``False`` if the job of its end was final before.

        Args:
            notice: What the webhook of the run gets.
            pending: The delivery of the notice.
        """
        command = self._commands.finish_run(
            part.run_id,
            job_id=part.job_id,
            state=state,
            summary=summary,
            failure=failure.model_dump_json() if failure is not None else "",
            result=result,
            notice=notice.model_dump_json() if notice is not None else "",
            pending=pending,
        )
        return bool(self.ledger.run(command, is_durable=True)[0] == "finished")

    def add_sample(self, run_id: str, *, at: float, done: int) -> None:
        """Note the progress of a run at this time."""
        key = self._keys.run_samples(run_id)
        with ledger_errors_as_ours(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.lpush(key, f"{at:.1f}:{done}")
            pipeline.ltrim(key, 0, SAMPLES_KEPT - 1)
            pipeline.expire(key, self.ledger.commands.open_ttl_s)
            pipeline.execute()

    def samples(self, run_id: str) -> list[tuple[float, int]]:
        """Read the progress of a run over time, the oldest sample first."""
        with ledger_errors_as_ours():
            found: Any = self._client.lrange(self._keys.run_samples(run_id), 0, -1)
        pairs = [sample.split(":") for sample in reversed(found)]
        return [(float(at), int(done)) for at, done in pairs]


def _failed(lines: ShardRange, failure: Failure) -> str:
    shard = lines.model_dump(mode="json")
    return json.dumps({"range": shard, "failure": failure.model_dump(mode="json", by_alias=True)})
