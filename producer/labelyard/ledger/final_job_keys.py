"""Keys of final jobs: totals, dead letters and deliveries."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class FinalJobKeys(KeyNamespace):
    """Totals, dead letters and deliveries of final jobs."""

    @cached_property
    def totals(self) -> str:
        """Number of jobs that came to each final state.

        Type: hash
        Holds: a number for each state.
        Writer: every script that makes a job final.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:totals"

    @cached_property
    def image_totals(self) -> str:
        """Number of images in the jobs that came to each final state.

        Type: hash
        Holds: a number for each state.
        Writer: every script that makes a job final.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:image_totals"

    @cached_property
    def dead_letters(self) -> str:
        """Dead letters: failed jobs that killed or hung their workers.

        Type: sorted set
        Holds: job ids, by the time at which each was buried.
        Writer: the worker that buries a job; `labelyard dead replay` and `purge`.
        TTL: `open_ttl_s` after the last burial.
        """
        return f"{self.namespace}:dead"

    @cached_property
    def pending_deliveries(self) -> str:
        """Final jobs whose result is still to be delivered to an object or a webhook.

        Type: sorted set
        Holds: job ids, by the time at which a worker should take each; a worker that takes a job
            moves it a lease ahead.
        Writer: the worker that finishes a job; the workers that deliver.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:owed"

    @cached_property
    def dead_deliveries(self) -> str:
        """Final jobs with an object or a webhook that was refused, or failed until its time was over.

        Type: sorted set
        Holds: job ids, by the time at which the delivery became a dead letter; the newest 10,000.
        Writer: the workers that deliver; `labelyard webhooks replay` and `purge`.
        TTL: `open_ttl_s` after the last one.
        """
        return f"{self.namespace}:dead_deliveries"

    @cached_property
    def delivery_totals(self) -> str:
        """Number of deliveries that ended in each way.

        Type: hash
        Holds: a number each for `delivered`, `refused`, `given_up`, and `dropped` dead letters.
        Writer: the workers that deliver.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:deliveries"
