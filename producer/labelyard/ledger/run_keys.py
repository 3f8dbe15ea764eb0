"""Keys of runs: their records, shards and progress."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class RunKeys(KeyNamespace):
    """Records, shards and progress of runs."""

    def of_run(self, run_id: str) -> list[str]:
        """Return the KEYS of a run that follow those of a record, in the order of ``_run.lua``."""
        return [
            self.run(run_id),
            self.runs,
            self.open_runs,
            self.run_shards(run_id),
            self.run_waiting(run_id),
            self.run_opened(run_id),
            self.run_done(run_id),
            self.run_trails(run_id),
            self.run_failed(run_id),
        ]

    def run(self, run_id: str) -> str:
        """Record of one run.

        Type: hash
        Holds: state, request, the planner's checkpoint, numbers of lines, shards and images,
            `code:CODE` for each error, summary.
        Writer: the client that starts or steers the run, then the workers.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:run:{run_id}"

    @cached_property
    def runs(self) -> str:
        """Index of runs by time, final ones included.

        Type: sorted set
        Holds: ids of runs, by the time of their start; the newest 10,000.
        Writer: the client that starts a run; each listing, which drops entries without a record.
        TTL: `open_ttl_s` after the last change of any run.
        """
        return f"{self.namespace}:runs"

    @cached_property
    def open_runs(self) -> str:
        """Runs that are not final.

        Type: sorted set
        Holds: ids of runs, by the time of their start.
        Writer: the client that starts or resumes a run; the worker that finishes it.
        TTL: `open_ttl_s` after the last change of any run.
        """
        return f"{self.namespace}:open_runs"

    def run_shards(self, run_id: str) -> str:
        """Shards of a run that are planned and not done.

        Type: hash
        Holds: the range of lines of each shard as JSON, by its name.
        Writer: the worker that plans; workers that finish or split shards.
        TTL: `open_ttl_s` after the last change of the run.
        """
        return f"{self.namespace}:run_shards:{run_id}"

    def run_waiting(self, run_id: str) -> str:
        """Shards of a run that have no job yet.

        Type: sorted set
        Holds: names of shards, in the order in which they are begun.
        Writer: the worker that plans; the leader, which opens their jobs.
        TTL: `open_ttl_s` after the last change of the run.
        """
        return f"{self.namespace}:run_waiting:{run_id}"

    def run_opened(self, run_id: str) -> str:
        """Shards of a run that have a job.

        Type: sorted set
        Holds: names of shards, by the time at which their job was opened.
        Writer: the leader; workers that finish shards.
        TTL: `open_ttl_s` after the last change of the run.
        """
        return f"{self.namespace}:run_opened:{run_id}"

    def run_done(self, run_id: str) -> str:
        """Shards of a run that are done, so that none is counted twice.

        Type: set
        Holds: names of shards.
        Writer: workers that finish shards.
        TTL: `open_ttl_s` after the last change of the run.
        """
        return f"{self.namespace}:run_done:{run_id}"

    def run_trails(self, run_id: str) -> str:
        """Progress of a run's shards that are running.

        Type: hash
        Holds: by the name of the shard, as JSON, the attempt, the number of lines that are done,
            and the range of those that are on their way.
        Writer: workers that run shards, about once a second.
        TTL: `open_ttl_s` after the last change of the run.
        """
        return f"{self.namespace}:run_trails:{run_id}"

    def run_failed(self, run_id: str) -> str:
        """Shards of a run that failed as a whole; their lines are written as the run ends.

        Type: hash
        Holds: by the name of the shard, its range of lines and its failure, as JSON.
        Writer: workers that finish shards; the leader.
        TTL: `open_ttl_s` after the last change of the run.
        """
        return f"{self.namespace}:run_failed:{run_id}"

    def run_samples(self, run_id: str) -> str:
        """Progress of a run over time.

        Type: list
        Holds: `TIME:IMAGES` every few seconds, the newest first; at most 2,000.
        Writer: the leader.
        TTL: `open_ttl_s` after the last entry.
        """
        return f"{self.namespace}:run_samples:{run_id}"
