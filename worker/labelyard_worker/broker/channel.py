"""Channel that claims messages from Redis: receive, claim, record, hand over.

kombu pops with BRPOP and records the message one round trip later: a worker or broker that dies
between the two loses it (kombu issues 305 and 1836). Here one Lua script (``claim.py``) does both,
sent at kombu's own hooks ``_brpop_start`` and ``_brpop_read``; publishing stays kombu's.
Why an idle worker wakes at once without polling: ``docs/decisions/0001-atomic-claim-wakeup.md``.
"""

import json
from collections.abc import Collection, Mapping
from itertools import count
from queue import Empty
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from labelyard.tenant_lines.scripts import SCRIPTS
from labelyard_worker.broker.claim import CLAIM, CLAIM_SHA, AtomicClaimError, is_shard
from labelyard_worker.broker.claim_gate import ClaimGate
from labelyard_worker.broker.empty_queues import EmptyQueues
from labelyard_worker.broker.qos import UnackedMessages
from labelyard_worker.broker.receipt import receive

# Every 20th claim searches from the last queue up, so that none starves behind a full first one.
STARVATION_SHARE: Final = 20


class RedisChannel(kombu_redis.Channel):  # type: ignore[misc]
    """Channel that consumes by atomic claims.

    Attributes:
        queue_order: Transport option: queues, most urgent first; the others come
            after them. Each 20th claim searches from the last one up. Empty keeps
            kombu's order.
        inflight_limits: Transport option: most unacknowledged messages of a queue
            on this channel; no more of the queue is claimed while it has them.
        shard_limits: Transport option: most unacknowledged shards of runs of a queue on this
            channel, larger than any job; no more of them are
            claimed while it has as many.
        has_gate: Transport option: whether only calls of our own tasks are delivered, and
            all other messages as calls of the task that sets them aside; see :meth:`is_gated`.
        follow_ups: Transport option: calls that may follow in a chain, each as ``task@queue``.
        weights_key: Transport option: key of the tenants' weights.
        sorted_key: Transport option: key of the set of lists that are sorted by tenant.
        claimed: Queue of each message that was claimed and is not yet delivered, and whether it
            is a shard.
        consumed_queues: Queues that had a consumer on this channel.
        empty_queues: Queues that need no claim until the server pushes a change.
        gate: Holds claims back while tenants take turns and enough jobs compute.
    """

    QoS = UnackedMessages
    queue_order: tuple[str, ...] = ()
    inflight_limits: Mapping[str, int] = {}
    shard_limits: Mapping[str, int] = {}
    has_gate = False
    follow_ups: Collection[str] = ()
    weights_key = "weights"
    sorted_key = "sorted"
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "queue_order",
        "inflight_limits",
        "shard_limits",
        "has_gate",
        "follow_ups",
        "weights_key",
        "sorted_key",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.claimed: dict[str, tuple[str, bool]] = {}
        self.consumed_queues: set[str] = set()
        self.empty_queues = EmptyQueues()
        self.gate = ClaimGate(wake_event_loop)
        self._no_ack_queues: set[str] = set()
        self._tracked_sock: object = None
        self._is_script_loaded = False
        self._claims = 0
        self._tag_prefix = uuid4().hex
        self._tag_numbers = count()
        self._tag = ""
        self._searched: list[str] = []
        self._full_queues: frozenset[str] = frozenset()  # at the last claim
        # Whether the claim on its way arms tracking. Claims of a busy channel do not: each write
        # of another worker to a list would be pushed to it.
        self._is_arming = False
        self._is_caching_reply_due = False
        super().__init__(*args, **kwargs)
        if not self.ack_emulation:
            raise AtomicClaimError("The atomic claim needs the transport option ack_emulation=True")

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        (self._no_ack_queues.add if no_ack else self._no_ack_queues.discard)(queue)
        self.consumed_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def is_gated(self, queue: str) -> bool:
        """Return whether messages of *queue* pass the gate.

        Those of a consumer without acknowledgements do not: they are replies of workers to
        Celery's remote control. Job queues are always consumed with acknowledgements.
        """
        return self.has_gate and queue not in self._no_ack_queues

    @property
    def fallback_s(self) -> float:
        """Seconds after which an idle channel sends a claim although no push came."""
        return float(self.brpop_timeout or 1)

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's name
        """Send a claim, unless all queues are full or known to be empty, or the gate is closed."""
        connection = self.client.connection
        if connection._sock is not self._tracked_sock:  # noqa: SLF001 - the poller's own test
            self._track(connection)
        queues = self.list_claimable_queues()
        full = self.list_queues_full_of_shards()
        if self._full_queues - full:  # shards that were left to other workers may be claimed now
            self.empty_queues.clear()
        if not queues or self.empty_queues.covers(queues):
            return
        if not self.gate.is_open(self.qos.count_all_in_flight()):
            return
        self._searched, self._full_queues = queues, full
        self.empty_queues.clear()
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        commands: list[tuple[str | int, ...]] = [self._build_claim()]
        self._is_caching_reply_due = self._is_arming
        if self._is_arming:
            commands.insert(0, ("CLIENT", "CACHING", "YES"))
        connection.send_packed_command(connection.pack_commands(commands))

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply to a claim, and hand over the claimed message."""
        connection = self.client.connection
        try:
            if self._is_caching_reply_due:
                self._is_caching_reply_due = False
                connection.read_response()
            reply = self.client.parse_response(connection, "EVAL", **options)
            self._is_script_loaded = True
        except NoScriptError:  # the server restarted: send the script itself with the next claim
            self._is_script_loaded = False
            raise Empty from None
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not reply:
            if self._is_arming:
                self._rest(connection)
            self._is_arming = True  # ask once more: a push is needed from now on
            raise Empty
        self._is_arming = False
        self._claims += 1
        self._hand_over(*reply)
        return True

    def _hand_over(self, place: int, raw: bytes, takes_turns: int) -> None:
        """Hand a claimed message to its consumer; ``UnackedMessages.append`` takes its queue."""
        self.gate.is_on = bool(takes_turns)
        queue, delivery_tag = self._searched[place], self._tag
        self._queue_cycle.rotate(queue)
        if queue not in self._no_ack_queues:
            self.claimed[delivery_tag] = queue, queue in self.shard_limits and is_shard(raw)
        try:
            receive(self, raw, queue=queue, delivery_tag=delivery_tag)
        finally:
            self.claimed.pop(delivery_tag, None)

    def list_claimable_queues(self) -> list[str]:
        """List the queues below their limits, in the order in which a claim searches them."""
        queues = list(self._queue_cycle.consume(len(self.active_queues)))
        if self.queue_order:
            rank = {queue: place for place, queue in enumerate(self.queue_order)}
            queues.sort(key=lambda queue: rank.get(queue, len(rank)))
            if self._claims % STARVATION_SHARE == STARVATION_SHARE - 1:
                queues.reverse()
        limits = self.inflight_limits
        return [
            queue
            for queue in queues
            if queue not in limits or self.qos.count_in_flight(queue) < limits[queue]
        ]

    def list_queues_full_of_shards(self) -> frozenset[str]:
        """List the queues of which no further shard is claimed now."""
        limits = self.shard_limits.items()
        return frozenset(q for q, limit in limits if self.qos.count_shards_in_flight(q) >= limit)

    def _build_claim(self) -> tuple[str | int, ...]:
        """Build the command by hand: kombu's prefixed client knows one key of a script only."""
        keys = (
            self.unacked_key,
            self.unacked_index_key,
            self.weights_key,
            self.sorted_key,
            *self._searched,
        )
        names = [
            "" if queue in self._no_ack_queues else json.dumps(queue) for queue in self._searched
        ]
        # Another tag after each claim, also if its reply was lost: it may have claimed.
        self._tag = f"{self._tag_prefix}.{next(self._tag_numbers)}"
        return (
            *(("EVALSHA", CLAIM_SHA) if self._is_script_loaded else ("EVAL", CLAIM)),
            len(keys),
            *(self.global_keyprefix + key for key in keys),
            self._tag,
            int(bool(self.queue_order)),
            "".join("01"[queue in self._full_queues] for queue in self._searched),
            *names,
            *self._priority_suffixes,
        )

    @property
    def _priority_suffixes(self) -> list[str]:
        """Return the endings of a queue's lists, one for each priority, most urgent first."""
        return [self._q_for_pri("", step) for step in self.priority_steps]

    def _lists_of(self, queue: str) -> list[str]:
        return [f"{self.global_keyprefix}{queue}{suffix}" for suffix in self._priority_suffixes]

    def _size(self, queue: str) -> int:
        """Count the messages of *queue*: of all priorities, and of the tenants' lines."""
        lists = self._lists_of(queue)
        with Redis(connection_pool=self.pool) as client:
            lengths: Any = client.eval(SCRIPTS["lengths"], len(lists), *lists)
        return sum(lengths)

    def _purge(self, queue: str) -> int:
        """Delete the messages of *queue*, and return how many there were."""
        keys = [self.global_keyprefix + self.sorted_key, *self._lists_of(queue)]
        with Redis(connection_pool=self.pool) as client:
            purged: Any = client.eval(SCRIPTS["purge"], len(keys), *keys)
        return int(purged)

    def _rest(self, connection: Any) -> None:
        """Send no claims until the server pushes a change, or ``fallback_s`` is over."""
        self.empty_queues.remember(self._searched, at_most_s=self.fallback_s)
        # A push that came in the same packet is in the parser, where no poll sees it.
        while not self.empty_queues.is_invalidated and connection.can_read(timeout=0):
            self.read_push()

    def read_push(self) -> None:
        """Read a push that the server sent while no claim was on its way."""
        connection = self.client.connection
        try:
            connection.read_response(push_request=True)
        except self.connection_errors:
            # No claim was on its way, so nothing is lost: reconnect quietly at the next tick.
            connection.disconnect()

    def _track(self, connection: Any) -> None:
        """Enable server pushes for changes of the lists that a claim found empty."""
        connection._parser.set_invalidation_push_handler(self.empty_queues.invalidate)  # noqa: SLF001
        try:
            for command in (
                ("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP"),
                ("CLIENT", "CACHING", "YES"),
            ):
                connection.send_command(*command)
                connection.read_response()
        except ResponseError as error:
            raise AtomicClaimError(
                f"The broker refused CLIENT TRACKING ({error}); "
                "it needs Redis 6 or newer or Valkey, and an ACL with +client|tracking and +client|caching"
            ) from error
        self.empty_queues.clear()
        self._tracked_sock = connection._sock  # noqa: SLF001

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            # Stock kombu raises AttributeError here when a job that outlived its connection is
            # acknowledged, and the worker exits; this error is one that Celery expects.
            raise RedisConnectionError("the channel is closed: its messages were given back")
        params: dict[str, Any] = super()._connparams(asynchronous)
        if asynchronous:
            params["protocol"] = 3  # pushes on the connection that claims need RESP3
        return params


def wake_event_loop() -> None:
    """Make the event loop of this process take its next turn; callable from any thread."""
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(do_nothing)


def do_nothing() -> None:
    """Do nothing in the event loop: its turn is what the caller wants."""
