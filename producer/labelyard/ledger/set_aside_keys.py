"""Keys of messages that no worker could run."""

from functools import cached_property

from labelyard.ledger.key_namespace import KeyNamespace


class SetAsideKeys(KeyNamespace):
    """Messages that were set aside, and their index."""

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
