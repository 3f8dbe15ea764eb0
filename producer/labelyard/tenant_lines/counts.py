"""Numbers of queued messages, over the lists and the tenants' lines of each queue."""

from typing import Any, Protocol

from labelyard.queues import Queue
from labelyard.tenant_lines.keys import PRIORITY_SUFFIXES, BrokerKeys
from labelyard.tenant_lines.scripts import SCRIPTS


class Evaluates(Protocol):
    """The one method of a Redis client that running a script needs."""

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script."""


def count_messages(client: Evaluates, keys: BrokerKeys) -> dict[str, int]:
    """Count the messages of each queue, of all priorities and tenants, at one moment."""
    lists = [key for queue in Queue for key in keys.lists(queue)]
    lengths = client.eval(SCRIPTS["lengths"], len(lists), *lists)
    steps = len(PRIORITY_SUFFIXES)
    return {
        queue.value: sum(lengths[place * steps : (place + 1) * steps])
        for place, queue in enumerate(Queue)
    }
