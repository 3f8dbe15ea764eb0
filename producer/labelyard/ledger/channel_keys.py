"""Channels of the ledger: announcements that a job is final."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class ChannelKeys(KeyNamespace):
    """Channels on which jobs are announced as final."""

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
