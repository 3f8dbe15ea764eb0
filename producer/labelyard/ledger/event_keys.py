"""Keys of events: the streams, and the groups that read them."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class EventKeys(KeyNamespace):
    """Event streams, and the groups that read them."""

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
