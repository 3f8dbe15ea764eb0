"""Calls of the scripts that change a run's record, built from named fields."""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from labelyard.ledger.commands import NOTHING_PENDING, Command, Commands, Pending, new_call_id
from labelyard.ledger.records import State
from labelyard.ledger.scripts import ScriptName

Step = Literal["pause", "resume", "cancel", "expire", "fail", "finish"]


class RunCommands:
    """Builds the call of each script of runs.

    Args:
        commands: Those of jobs, with the same namespace.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._keys = commands.keys

    def _of_run(
        self, script: ScriptName, run_id: str, *values: object, job_id: str = ""
    ) -> Command:
        """Put the keys of the run behind those of a record, and its id before the values."""
        _, keys, args = self._commands.of_record(script, job_id, run_id, *values)
        return Command(script, keys + self._keys.of_run(run_id), args)

    def open_run(
        self, run_id: str, request: str, *, digest: str, tenant: str, expires_at: float | None
    ) -> Command:
        """Open the record of a run."""
        expiry = "" if expires_at is None else expires_at
        return self._of_run("open_run", run_id, request, digest, tenant, expiry, new_call_id())

    def plan_shards(
        self,
        run_id: str,
        *,
        expected: int,
        name: str,
        lines: str,
        checkpoint: str,
        counts: Mapping[str, int],
        is_complete: bool,
    ) -> Command:
        """Add a shard, or note that there are no more lines."""
        return self._of_run(
            "plan_shards",
            run_id,
            expected,
            name,
            lines,
            checkpoint,
            json.dumps(dict(counts)),
            int(is_complete),
        )

    def open_shard(self, run_id: str, name: str, *, next_open_at: float) -> Command:
        """Note that a shard has a job."""
        return self._of_run("open_shard", run_id, name, f"{next_open_at:.6f}")

    def reopen_shards(self, run_id: str, names: Sequence[str]) -> Command:
        """Let shards wait for a job again."""
        return self._of_run("reopen_shards", run_id, json.dumps(list(names)))

    def begin_shard(self, run_id: str, name: str, *, start: int) -> Command:
        """Begin an attempt at a shard."""
        return self._of_run("begin_shard", run_id, name, start)

    def finish_shard(
        self,
        run_id: str,
        name: str,
        *,
        job_id: str,
        state: State,
        result: str,
        counts: Mapping[str, int],
        failed: str = "",
        images_per_s: float = 0.0,
    ) -> Command:
        """Make the job of a shard final, and count the shard."""
        return self._of_run(
            "finish_shard",
            run_id,
            name,
            state,
            result,
            json.dumps(dict(counts)),
            new_call_id(),
            failed,
            f"{images_per_s:.3f}",
            job_id=job_id,
        )

    def fail_shard(
        self, run_id: str, name: str, *, counts: Mapping[str, int], failed: str
    ) -> Command:
        """Count a shard as failed whose job ended without a result."""
        return self._of_run("fail_shard", run_id, name, json.dumps(dict(counts)), failed)

    def split_shard(
        self, run_id: str, name: str, *, parts: Sequence[tuple[str, str]], computed_again: int
    ) -> Command:
        """Put smaller shards in the place of one."""
        return self._of_run("split_shard", run_id, name, json.dumps(list(parts)), computed_again)

    def steer_run(self, run_id: str, step: Step, *, failure: str = "") -> Command:
        """Pause, resume or end a run."""
        return self._of_run("steer_run", run_id, step, failure)

    def finish_run(
        self,
        run_id: str,
        *,
        job_id: str,
        state: str,
        summary: str,
        failure: str,
        result: str,
        notice: str = "",
        pending: Pending = NOTHING_PENDING,
    ) -> Command:
        """Make a run final."""
        return self._of_run(
            "finish_run",
            run_id,
            state,
            summary,
            failure,
            result,
            new_call_id(),
            notice,
            ",".join(pending.names),
            pending.deliverer,
            pending.due_in_s,
            job_id=job_id,
        )
