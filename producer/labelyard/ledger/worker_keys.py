"""Keys of workers: presence, suspects, the leader's lock."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class WorkerKeys(KeyNamespace):
    """Presence, details, suspects and leader of the workers."""

    def worker(self, worker: str) -> str:
        """Presence of one worker: while the key is there, the worker is alive.

        Type: string
        Holds: the ids of its running jobs, as JSON.
        Writer: the worker's presence thread; deleted at a clean shutdown.
        TTL: 10 s, or half of `visibility_timeout_s` if that is less; renewed four times as often.
        """
        return f"{self.namespace}:worker:{worker}"

    @cached_property
    def workers(self) -> str:
        """Index of the workers.

        Type: sorted set
        Holds: names of workers, by the time of each one's last sign of life.
        Writer: each worker's presence thread; a worker leaves it at a clean shutdown.
        TTL: an hour after the last sign of life; a worker without one for an hour is dropped.
        """
        return f"{self.namespace}:workers"

    def worker_details(self, worker: str) -> str:
        """Details of one worker: host, device, checkpoint, version, state and the like.

        Type: string
        Holds: the details as JSON, below 2 kB; for people, no other worker acts on them.
        Writer: the worker's presence thread, when they change and twice a minute; deleted at a
            clean shutdown.
        TTL: an hour, so that the details of a worker that died can still be shown.
        """
        return f"{self.namespace}:worker_details:{worker}"

    def suspect(self, worker: str) -> str:
        """Suspect that a worker runs: a job that is blamed if the worker dies.

        Type: string
        Holds: the job's id.
        Writer: the script that starts an attempt; deleted when the attempt ends.
        TTL: a day.
        """
        return f"{self.namespace}:suspect:{worker}"

    @cached_property
    def leader(self) -> str:
        """Lock of the worker whose reconciler is at work.

        Type: string
        Holds: the name of the worker.
        Writer: every worker's reconciler; deleted at a clean shutdown.
        TTL: 10 s, renewed four times a second.
        """
        return f"{self.namespace}:leader"

    @cached_property
    def passed(self) -> str:
        """Publishing time of the newest message that each queue of RabbitMQ has passed on.

        Type: sorted set
        Holds: names of queues, by that time.
        Writer: workers that receive messages from RabbitMQ.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:passed"
