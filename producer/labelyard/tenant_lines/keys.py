"""Every key of the broker's Redis: its type, its writer and its time to live.

``docs/ledger-keys.md`` is generated from this file for operators. The strings are those that
running deployments hold: a key is never renamed. ``scripts/_lines.lua`` writes the names of lines
and turns in the same way.
"""

from functools import cached_property
from typing import Final

#: Suffixes of the lists that make up one queue, by priority. Labelyard publishes to the
#: first; another producer's messages may be in the rest.
#: Source: kombu.transport.redis, PRIORITY_STEPS and Channel.sep.
PRIORITY_SUFFIXES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")
#: Ending of the key with the turns of a list's tenants.
TURNS: Final = ":turns"


class BrokerKeys:
    """Keys of one namespace in the broker's Redis (``LABELYARD_BROKER_URL``).

    Methods name the keys of one queue; attributes the others.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace: str = namespace

    def lists(self, queue: str) -> tuple[str, ...]:
        """Return the lists of *queue*, one for each priority, the most urgent first."""
        return tuple(self.queue(queue) + suffix for suffix in PRIORITY_SUFFIXES)

    def queue(self, queue: str) -> str:
        """Messages that no worker has sorted by tenant yet.

        Type: list
        Holds: messages; the oldest is the last. Another producer's messages with a priority of
            kombu's are in lists of their own, whose names end in `\\x06\\x163`, `\\x06\\x166` and
            `\\x06\\x169`.
        Writer: producers; the reconciler; workers move messages to the lines.
        TTL: none: a message stays until a worker claims it.
        """
        return f"{self.namespace}.{queue}"

    def line(self, queue: str, tenant: str) -> str:
        """Messages of one tenant in a queue, sorted out of its list.

        Type: list
        Holds: messages; the oldest is the last. Tenants beyond the first 2,000 of a queue share
            lines named `~0` to `~63`.
        Writer: workers' claims.
        TTL: none: a message stays until a worker claims it.
        """
        return f"{self.queue(queue)}:line:{tenant}"

    def turns(self, queue: str) -> str:
        """Turns of the tenants with a line in a queue.

        Type: sorted set
        Holds: names of lines, by virtual time: images claimed, each divided by its tenant's
            weight. The smallest has its turn. The empty name has the virtual time of the last
            claim.
        Writer: workers' claims.
        TTL: none: it goes with the last line.
        """
        return self.queue(queue) + TURNS

    def known(self, queue: str) -> str:
        """Number of messages in a queue's list that are known to be of one tenant.

        Type: string
        Holds: how many of the oldest ones. While they are one tenant's, the list is not sorted.
        Writer: workers' claims.
        TTL: none: it goes with the list.
        """
        return f"{self.queue(queue)}:known"

    @cached_property
    def sorted(self) -> str:
        """Index of the lists with messages that are sorted into lines.

        Type: set
        Holds: names of lists.
        Writer: workers' claims.
        TTL: none: a list leaves it with its last line.
        """
        return f"{self.namespace}.sorted"

    @cached_property
    def weights(self) -> str:
        """Weights of the tenants.

        Type: hash
        Holds: a number of 0.01 to 1000 for each tenant that has one; `*` is that of the others,
            else 1.
        Writer: `Publisher.write_weights`.
        TTL: none: it is kept until it is written again.
        """
        return f"{self.namespace}.weights"

    @cached_property
    def unacked(self) -> str:
        """Messages that were claimed and are not acknowledged.

        Type: hash
        Holds: message, exchange and queue as JSON, by delivery tag.
        Writer: workers.
        TTL: none: a message returns to its queue when `visibility_timeout_s` is over.
        """
        return f"{self.namespace}.unacked"

    @cached_property
    def unacked_index(self) -> str:
        """Index of the messages that are not acknowledged.

        Type: sorted set
        Holds: delivery tags, by the time at which each was claimed or last renewed.
        Writer: workers.
        TTL: none: as the messages.
        """
        return f"{self.namespace}.unacked_index"

    @cached_property
    def unacked_mutex(self) -> str:
        """Lock of the worker that returns overdue messages to their queues.

        Type: string
        Holds: a random value.
        Writer: workers.
        TTL: 30 s.
        """
        return f"{self.namespace}.unacked_mutex"
