"""Every key of labelyard in Redis: its type, its writer and its time to live.

``docs/ledger-keys.md`` is generated from this file for operators. The strings are those that
running deployments hold: a key is never renamed.
"""

from functools import cached_property


class LedgerKeys:
    """Keys and channels of one namespace in the ledger's Redis (``LABELYARD_LEDGER_URL``).

    Methods name the keys of one job, one worker or one label set; attributes the others.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace: str = namespace

    def of_record(self, job_id: str) -> list[str]:
        """Return the KEYS of a script that changes a record, in the order of ``_prelude.lua``."""
        return [self.job(job_id), *self._shared_by_records, self.tombstone(job_id), self.backlog]

    @cached_property
    def _shared_by_records(self) -> tuple[str, ...]:
        return (
            self.open,
            self.due,
            self.expiring,
            self.open_images,
            self.totals,
            self.dead_letters,
            self.pending_deliveries,
        )

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

    @cached_property
    def tenants(self) -> str:
        """Policies of tenants: weight and quotas.

        Type: hash
        Holds: a policy as JSON for each tenant that has one; that of `*` holds for all others.
        Writer: `labelyard tenants set` and `reset`.
        TTL: none: a policy is kept until an operator resets it.
        """
        return f"{self.namespace}:tenants"

    def rates(self, tenant: str) -> str:
        """Token buckets of a tenant with rates.

        Type: hash
        Holds: `images` and `prompts`: the tokens that were left, below 0 after a large job;
            `images_at` and `prompts_at`: when that was.
        Writer: the script that opens a job of a tenant with rates.
        TTL: until the buckets are full again.
        """
        return f"{self.namespace}:rates:{tenant}"

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

    def stream(self, name: str) -> str:
        """Event stream that jobs with `deliver.stream` name.

        Type: stream
        Holds: one entry for each final job: `job_id`, `status`, and `result`, or if that is longer
            than 64 kB `result_key` and `result_bytes`. Trimmed to about 100,000 entries.
        Writer: the script that makes a job final.
        TTL: `open_ttl_s` after the last entry.
        """
        return f"{self.namespace}:stream:{name}"

    @cached_property
    def events(self) -> str:
        """Event stream of the namespace, read by groups of consumers.

        Type: stream
        Holds: one entry for each job, run or shard that became final: `kind`, `id`, `state`,
            `tenant`; if there are any `tag`, `parent`, `uri`, `images`, and `result`, or if that is
            long `result_bytes`. Trimmed to about `LABELYARD_EVENTS_MAX_ENTRIES`.
        Writer: the script that makes a record final; the leader drops old entries.
        TTL: `open_ttl_s` after the last entry.
        """
        return f"{self.namespace}:events"

    @cached_property
    def event_state(self) -> str:
        """State of the event stream.

        Type: hash
        Holds: `last`, the id of the last entry ever written; `created_ms`; the bounds of the
            workers' settings: `max_entries`, `max_age_s`, `result_max_bytes`.
        Writer: as the events.
        TTL: `open_ttl_s` after the last change.
        """
        return f"{self.namespace}:event_state"

    @cached_property
    def erased_events(self) -> str:
        """Numbers of the events that were erased with their jobs, so that nobody misses them.

        Type: sorted set
        Holds: numbers, by themselves; the newest 10,000.
        Writer: the script that erases a job.
        TTL: `open_ttl_s` after the last erasure.
        """
        return f"{self.namespace}:erased_events"

    @cached_property
    def event_groups(self) -> str:
        """Index of the groups that read events.

        Type: sorted set
        Holds: at most 100 names of groups, by the time of their last use.
        Writer: consumers of events.
        TTL: `open_ttl_s` after the last use.
        """
        return f"{self.namespace}:event_groups"

    def event_group(self, group: str) -> str:
        """Record of a group that reads events.

        Type: hash
        Holds: `position`, the last event that a consumer got; `filter`; the pending gap.
        Writer: the group's consumers.
        TTL: `open_ttl_s` after its last use; the leader then deletes the group from the stream.
        """
        return f"{self.namespace}:event_group:{group}"

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

    def done_channel(self, job_id: str) -> str:
        """Announcement that one job is final.

        Type: channel
        Holds: the final state.
        Writer: the script that makes the job final.
        TTL: none: a message of a channel is not stored.
        """
        return f"{self.namespace}:done:{job_id}"

    @cached_property
    def stopped_channel(self) -> str:
        """Announcement that a job was cancelled or has expired, so that its worker stops it.

        Type: channel
        Holds: the job's id.
        Writer: the script that makes the job final.
        TTL: none: a message of a channel is not stored.
        """
        return f"{self.namespace}:stopped"

    @cached_property
    def set_aside(self) -> str:
        """Messages that no worker could run.

        Type: hash
        Holds: each message with its reason, as JSON, by the id of its entry.
        Writer: workers; `labelyard set-aside replay` and `purge`.
        TTL: `open_ttl_s` after the last message.
        """
        return f"{self.namespace}:set_aside"

    @cached_property
    def set_aside_index(self) -> str:
        """Index of the messages that were set aside.

        Type: sorted set
        Holds: ids of entries, by the time at which each was set aside.
        Writer: as the messages.
        TTL: `open_ttl_s` after the last message.
        """
        return f"{self.namespace}:set_aside:index"

    @cached_property
    def set_aside_figures(self) -> str:
        """Size of the messages that were set aside.

        Type: hash
        Holds: `bytes` that are kept; number of messages that were `dropped` for newer ones.
        Writer: as the messages.
        TTL: `open_ttl_s` after the last message.
        """
        return f"{self.namespace}:set_aside:figures"

    @cached_property
    def refused(self) -> str:
        """Messages that an earlier version refused.

        Type: list
        Holds: messages. A worker moves them to `set_aside` when it starts.
        Writer: workers of an earlier version.
        TTL: as that version set it.
        """
        return f"{self.namespace}:refused"

    def label_set(self, digest: str) -> str:
        """Registered label set.

        Type: string
        Holds: the label set as JSON.
        Writer: `client.label_sets.register`.
        TTL: none: it is kept until an operator deletes it.
        """
        return f"{self.namespace}:label_set:{digest}"

    @cached_property
    def label_set_names(self) -> str:
        """References of the registered label sets.

        Type: sorted set
        Holds: `name@sha256:…`, by the time of registration.
        Writer: `client.label_sets.register`.
        TTL: none: it is kept until an operator deletes it.
        """
        return f"{self.namespace}:label_set_names"

    def object_event(self, rule: str, object_digest: str) -> str:
        """Newest event of one object that `labelyard ingest` has made a job of.

        Type: hash
        Holds: the event's identity and time, its job, and until when a claim on it is held; empty
            once the job has a record.
        Writer: `labelyard ingest`, for each event that a rule matches.
        TTL: `window_s` of the rule file, a day by default, after the last event.
        """
        return f"{self.namespace}:object_event:{rule}:{object_digest}"

    @cached_property
    def barrier(self) -> str:
        """Write that a barrier of `LABELYARD_DURABLE_WRITES` waits for.

        Type: string
        Holds: `1`.
        Writer: clients and workers with durable writes.
        TTL: an hour.
        """
        return f"{self.namespace}:barrier"

    def doctor(self, token: str) -> str:
        """Key that `labelyard doctor` tries the user's rights on.

        Type: string
        Holds: `1`.
        Writer: `labelyard doctor`, which deletes it at once.
        TTL: a minute.
        """
        return f"{self.namespace}:doctor:{token}"


class CacheKeys:
    """Keys of one namespace in the Redis of cached embeddings (``LABELYARD_EMBEDDINGS_URL``).

    That Redis may evict them: a missing entry is computed again.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace: str = namespace

    def text(self, fingerprint: str, prompt_sha256: str) -> str:
        """Embedding of a prompt by one checkpoint.

        Type: string
        Holds: the vector, as little-endian float32.
        Writer: the worker that encoded the prompt.
        TTL: `embeddings_ttl_s` for a registered label set's prompts, an hour for others.
        """
        return f"{self.namespace}:text:{fingerprint}:{prompt_sha256}"

    def image(self, identity: str, address_sha256: str) -> str:
        """Content of an image's address when it was last read.

        Type: string
        Holds: ETag, SHA-256 of the bytes, width and height, as JSON.
        Writer: the worker that embedded the image.
        TTL: `embeddings_ttl_s`.
        """
        return f"{self.namespace}:{identity}:image:{address_sha256}"

    def image_embeds(self, identity: str, content_sha256: str) -> str:
        """Embedding of an image's content by one checkpoint and preprocessing.

        Type: string
        Holds: the vector, as little-endian float32.
        Writer: the worker that embedded the image.
        TTL: `embeddings_ttl_s`.
        """
        return f"{self.namespace}:{identity}:embeds:{content_sha256}"
