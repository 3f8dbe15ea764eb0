"""Keys of jobs: their records, and the indices of those that are open."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class JobKeys(KeyNamespace):
    """Records of jobs, and indices of the open ones."""

    def job(self, job_id: str) -> str:
        """Record of one job.

        Type: hash
        Holds: state, message, attempts, deaths, the worker that runs it, result.
        Writer: the client that submits the job, then the workers; each change is one script.
        TTL: `open_ttl_s` while the job is open; `result_ttl_s` once it is final, at least 26 hours
            while deliveries are pending; `open_ttl_s` for a dead letter and a dead delivery.
        """
        return f"{self.namespace}:job:{job_id}"

    def tombstone(self, job_id: str) -> str:
        """Final state of a job whose message may outlive its record.

        Type: string
        Holds: `cancelled`, `expired`, or the final state of an adopted job. While the key is there,
            the job's message does not bring the job back to life.
        Writer: the script that makes the job final.
        TTL: twice `result_ttl_s`, at least an hour.
        """
        return f"{self.namespace}:ended:{job_id}"

    @cached_property
    def open(self) -> str:
        """Jobs that are not final.

        Type: sorted set
        Holds: job ids, by the time at which each was last published, started or looked at.
        Writer: every change of a record; the reconciler.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:open"

    @cached_property
    def due(self) -> str:
        """Jobs whose message is to be published again.

        Type: sorted set
        Holds: job ids, by the time at which each is due; the reconciler that takes a job moves it
            a lease ahead.
        Writer: workers that retry or postpone a job; the reconciler.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:due"

    @cached_property
    def expiring(self) -> str:
        """Open jobs that have an `expires_at`.

        Type: sorted set
        Holds: job ids, by `expires_at`.
        Writer: the client that submits a job; the script that makes it final.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:expiring"

    @cached_property
    def open_images(self) -> str:
        """Number of images in the jobs that are not final.

        Type: string
        Holds: a number; `LABELYARD_MAX_QUEUED_IMAGES` is compared with it.
        Writer: every script that opens a job or makes it final.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:open_images"

    @cached_property
    def backlog(self) -> str:
        """Number of open jobs, and of their images, by queue and tenant.

        Type: hash
        Holds: a number each for `images:QUEUE:TENANT` and `jobs:QUEUE:TENANT`; a field is dropped
            when it reaches 0.
        Writer: every script that opens a job, moves it to another queue or makes it final; the
            leader, which corrects what records that were lost have left.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:backlog"

    def open_by_age(self, queue: str) -> str:
        """Open jobs of one queue by age, the oldest first.

        Type: sorted set
        Holds: `TENANT:IMAGES:JOB_ID`, by the time at which each was submitted or replayed. Each
            entry is counted in `backlog`, so that an entry without a record can be taken out.
        Writer: as the backlog.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:open:{queue}"

    @cached_property
    def jobs(self) -> str:
        """Index of jobs by time, final ones included.

        Type: sorted set
        Holds: job ids, by the time of submission; the newest 200,000. An entry whose record is gone
            is dropped when it is listed.
        Writer: the script that opens a job; each listing of jobs, which drops entries.
        TTL: `open_ttl_s` after the last submit.
        """
        return f"{self.namespace}:jobs"
