"""Claim a message and record it as un-acknowledged in one step, so that a killed worker loses none.

kombu pops with BRPOP and records the message one round trip later: a worker or broker that dies
between the two loses it (kombu issues 305 and 1836). Here one Lua script (``claim.py``) does both.
The claim is replaced, the acknowledgement (``acks.py``) and the way back to the queue
(``restore.py``); publishing stays kombu's. A message passes the admission gate (``admission.py``)
before kombu reads anything of it.
Why an idle worker wakes at once without polling: ``docs/decisions/0001-atomic-claim-wakeup.md``.
"""

import json
import logging
import ssl
from collections.abc import Collection, Mapping
from itertools import count
from queue import Empty
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from labelyard_worker.broker.acks import Acks
from labelyard_worker.broker.admission import admit, set_aside_call
from labelyard_worker.broker.calls import list_item
from labelyard_worker.broker.claim import (
    CLAIM,
    CLAIM_SHA,
    AtomicClaimError,
    Wakeup,
    keep_malformed,
)
from labelyard_worker.broker.envelopes import unpack
from labelyard_worker.broker.restore import restore
from labelyard_worker.broker.visibility import index_key, overdue_tags, stamp

log = logging.getLogger(__name__)

PREFIX = "labelyard-"
ALIAS = f"{PREFIX}redis"
TLS_ALIAS = f"{PREFIX}rediss"
KNOWN_SCHEMES = ("redis", "rediss", "redis+socket")
# Every 20th claim looks from the last queue up, so that none starves behind a full first one.
STARVATION_SHARE = 20


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """The un-acknowledged messages of a channel, by queue."""

    def __init__(self, channel: "Channel", prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._acks = Acks(channel)
        self._queue_by_tag: dict[str, str] = {}

    def in_flight(self, queue: str) -> int:
        """Count the messages of *queue* that were delivered and not yet acknowledged."""
        return list(self._queue_by_tag.values()).count(queue)

    def append(self, message: Any, delivery_tag: str) -> None:
        queue = self.channel.claimed.pop(delivery_tag, None)
        if queue is None:  # popped by basic_get, or given back by a cancelled consumer
            super().append(message, delivery_tag)
            # kombu wrote this machine's time, which other workers cannot compare.
            stamp(self._bare_client(), index_key(self.channel), [delivery_tag])
            return
        self._queue_by_tag[delivery_tag] = queue
        # The claim wrote the record already: skip kombu's, keep the bookkeeping above it.
        super(kombu_redis.QoS, self).append(message, delivery_tag)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:  # noqa: ARG002 - kombu's signature
        """Return a message to the queue that it came from, as it came."""
        restore(self.channel, tag if isinstance(tag, str) else tag.decode(), is_next=not leftmost)

    def forget(self, delivery_tag: str) -> None:
        """Forget a message that left the broker's record by another way than an answer."""
        super(kombu_redis.QoS, self).ack(delivery_tag)
        self._queue_by_tag.pop(delivery_tag, None)

    def ack(self, delivery_tag: str) -> None:
        self._acks.add(delivery_tag)
        if self.channel.closed or not self.channel.connection.cycle.has_event_loop:
            self._acks.flush()
        # The acks above replace kombu's command: keep the bookkeeping above it.
        super(kombu_redis.QoS, self).ack(delivery_tag)
        self._queue_by_tag.pop(delivery_tag, None)

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:  # noqa: ARG002 - kombu's signature
        """Return messages with an overdue stamp to their queues, by the broker's clock."""
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            try:
                with kombu_redis.Mutex(client, self.unacked_mutex_key, self.unacked_mutex_expire):
                    tags = overdue_tags(
                        self._bare_client(),
                        index_key(self.channel),
                        timeout_s=self.visibility_timeout,
                        limit=num,
                    )
                    for tag in tags:
                        self.restore_by_tag(tag, client)
            except kombu_redis.MutexHeld:
                return

    def _bare_client(self) -> Redis:
        """Make a client without kombu's key prefix, which knows one key of a script only."""
        return Redis(connection_pool=self.channel.pool)

    def flush_acks(self) -> None:
        """Send the acks of this turn of the event loop."""
        self._acks.flush()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Return only messages that have not ended to their queues."""
        try:
            self._acks.flush()
        except self.channel.connection_errors as error:  # what has ended comes again, and ends
            log.warning("acks_lost", extra={"fields": {"error": repr(error)}})
        super().restore_unacked_once(stderr)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        super().reject(delivery_tag, requeue=requeue)
        self._queue_by_tag.pop(delivery_tag, None)


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel that consumes by atomic claims.

    Attributes:
        queue_order: Transport option: queues, most urgent first; the others come
            after them. Each 20th claim looks from the last one up. Empty keeps
            kombu's order.
        inflight_limits: Transport option: most un-acknowledged messages of a queue
            on this channel; the queue isn't asked while it has them.
        has_gate: Transport option: whether only calls of our own tasks are delivered, and
            all other messages as calls of the task that sets them aside.
        follow_ups: Transport option: calls that may follow in a chain, each as ``task@queue``.
        claimed: Queue of each message that was claimed and is not yet delivered.
    """

    QoS = QoS
    queue_order: tuple[str, ...] = ()
    inflight_limits: Mapping[str, int] = {}
    has_gate = False
    follow_ups: Collection[str] = ()
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "queue_order",
        "inflight_limits",
        "has_gate",
        "follow_ups",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.claimed: dict[str, str] = {}
        self._wakeup = Wakeup()
        self._tracked_sock: object = None
        self._is_script_loaded = False
        self._claims = 0
        self._tag_prefix = uuid4().hex
        self._tag_numbers = count()
        self._tag = ""
        self.consumed_queues: set[str] = set()
        self._no_ack_queues: set[str] = set()
        self._asked: list[tuple[str, str]] = []
        super().__init__(*args, **kwargs)
        if not self.ack_emulation:
            raise AtomicClaimError("The atomic claim needs the transport option ack_emulation=True")

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        (self._no_ack_queues.add if no_ack else self._no_ack_queues.discard)(queue)
        self.consumed_queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def claimable_queues(self) -> list[str]:
        """List the queues that may be asked now, in the order to ask them."""
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
            if queue not in limits or self.qos.in_flight(queue) < limits[queue]
        ]

    def read_wakeup(self) -> None:
        """Read a push that the server sent while no claim was on its way."""
        connection = self.client.connection
        try:
            connection.read_response(push_request=True)
        except self.connection_errors:
            # No claim was on its way, so nothing is lost: reconnect quietly at the next tick.
            connection.disconnect()

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's name
        connection = self.client.connection
        if connection._sock is not self._tracked_sock:  # noqa: SLF001 - the poller's own test
            self._track(connection)
        queues = self.claimable_queues()
        if not queues or self._wakeup.is_asleep(queues):
            return
        self._asked = self._lists_of(queues)
        self._wakeup.clear()
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        connection.send_command(*self._claim_command())

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        try:
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
            self._wakeup.sleep({queue for queue, _ in self._asked}, at_most_s=self.fallback_s)
            # A push that came in the same packet is in the parser, where no poll sees it.
            while not self._wakeup.is_called and connection.can_read(timeout=0):
                self.read_wakeup()
            raise Empty
        self._claims += 1
        return self._deliver(*reply)

    @property
    def fallback_s(self) -> float:
        """Seconds after which an idle channel asks again although no push came."""
        return float(self.brpop_timeout or 1)

    def _lists_of(self, queues: list[str]) -> list[tuple[str, str]]:
        """Pair each queue with each of its lists (one for each priority) in search order."""
        steps = self.priority_steps
        if self.queue_order:
            pairs = [(queue, step) for queue in queues for step in steps]
        else:
            pairs = [(queue, step) for step in steps for queue in queues]
        return [(queue, self._q_for_pri(queue, step)) for queue, step in pairs]

    def _claim_command(self) -> list[str | int]:
        """Build the command by hand: kombu's prefixed client knows one key of a script only."""
        names = [self.unacked_key, self.unacked_index_key]
        keys = [self.global_keyprefix + key for key in (*names, *(key for _, key in self._asked))]
        queues = ["" if queue in self._no_ack_queues else queue for queue, _ in self._asked]
        # Another one after each claim, also if its answer was lost: it may have claimed.
        self._tag = f"{self._tag_prefix}.{next(self._tag_numbers)}"
        script = ("EVALSHA", CLAIM_SHA) if self._is_script_loaded else ("EVAL", CLAIM)
        return [*script, len(keys), *keys, self._tag, *queues]

    def _track(self, connection: Any) -> None:
        """Enable server pushes for changes of the lists that a claim found empty."""
        connection._parser.set_invalidation_push_handler(self._wakeup.call)  # noqa: SLF001
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            connection.read_response()
        except ResponseError as error:
            raise AtomicClaimError(
                f"The broker refused CLIENT TRACKING ({error}); "
                "it needs Redis 6 or newer or Valkey, and an ACL with +client|tracking"
            ) from error
        self._wakeup.clear()
        self._tracked_sock = connection._sock  # noqa: SLF001

    def _deliver(self, place: int, raw: bytes) -> bool:
        """Hand a claimed message to its consumer; only a lost connection leaves as an exception."""
        queue, delivery_tag = self._asked[place][0], self._tag
        self._queue_cycle.rotate(queue)
        if queue not in self._no_ack_queues:
            self.claimed[delivery_tag] = queue
        try:
            self._deliver_or_set_aside(raw, queue, delivery_tag)
        except self.lost_connection_errors:
            raise
        except Exception as error:  # noqa: BLE001 - the event loop ends at any other exception
            self._put_away(raw, queue, delivery_tag, error)
        finally:
            self.claimed.pop(delivery_tag, None)
        return True

    @property
    def lost_connection_errors(self) -> tuple[type[BaseException], ...]:
        """Errors of a lost connection; kombu counts any KeyError among them."""
        return tuple(error for error in self.connection_errors if error is not KeyError)

    def _deliver_or_set_aside(self, raw: bytes, queue: str, delivery_tag: str) -> None:
        deliver = self.connection._deliver  # noqa: SLF001 - as kombu does
        if not self.has_gate:
            deliver(tagged(raw, delivery_tag), queue)
            return
        envelope = unpack(raw)
        try:
            call = admit(envelope, queue=queue, follow_ups=self.follow_ups)
            deliver(list_item(call, queue=queue, delivery_tag=delivery_tag), queue)
        except self.lost_connection_errors:
            raise
        except Exception as error:  # noqa: BLE001 - our own call instead, which holds no part of it
            reason = f"the worker failed to take the message ({type(error).__name__})"
            call = set_aside_call(envelope, queue=queue, reason=reason)
            deliver(list_item(call, queue=queue, delivery_tag=delivery_tag), queue)

    def _put_away(self, raw: bytes, queue: str, delivery_tag: str, error: Exception) -> None:
        """Return or set aside a message that not even our own call could be delivered for."""
        if self.has_gate:  # the fault is the worker's: it shuts down, or lacks memory or threads
            self.qos.restore_by_tag(delivery_tag, leftmost=True)
        else:
            keep_malformed(self, raw, delivery_tag)
        self.qos.forget(delivery_tag)
        event = "message_returned" if self.has_gate else "message_malformed"
        log.error(event, extra={"fields": {"queue": queue, "why": type(error).__name__}})

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            # Stock kombu raises AttributeError here when a job that outlived its connection is
            # acknowledged, and the worker exits; this error is one that Celery expects.
            raise RedisConnectionError("the channel is closed: its messages were given back")
        params: dict[str, Any] = super()._connparams(asynchronous)
        if asynchronous:
            params["protocol"] = 3  # pushes on the connection that claims need RESP3
        return params


def tagged(raw: bytes, delivery_tag: str) -> dict[str, Any]:
    """Read a message that passes no gate, and give it the tag that it was claimed under."""
    message: dict[str, Any] = json.loads(raw)
    message["properties"]["delivery_tag"] = delivery_tag
    message["properties"].setdefault("delivery_info", {})
    return message


class Poller(kombu_redis.MultiChannelPoller):  # type: ignore[misc]
    """The poller that also hears pushes on a connection without a claim on its way.

    Attributes:
        has_event_loop: Whether somebody calls at each turn of a loop, so that acks can wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_event_loop = False

    def on_readable(self, fileno: int) -> Any:
        channel, kind = self._fd_to_chan.get(fileno, (None, None))
        if kind == "BRPOP" and not channel._in_poll:  # noqa: SLF001
            channel.read_wakeup()
            raise Empty
        return super().on_readable(fileno)

    def on_poll_start(self) -> None:
        for channel in self._channels:
            channel.qos.flush_acks()
        super().on_poll_start()

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait at most until the fallback is due; without an event loop no timer wakes us."""
        fallback_s = min((channel.fallback_s for channel in self._channels), default=1.0)
        return super().get(callback, fallback_s if timeout is None else min(timeout, fallback_s))


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """kombu's Redis transport with atomic claims."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)
        self.cycle.has_event_loop = True
        # A tick asks again when a push was lost; Celery cancels the timer with the connection.
        loop.call_repeatedly(float(self.brpop_timeout or 1), lambda: None)


class TLSTransport(Transport):
    """Redis transport over TLS; certificates are checked unless the ssl options say otherwise."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        client.ssl = client.ssl or {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        super().__init__(client, **kwargs)


def install() -> None:
    """Make the transport known to kombu; safe to call again."""
    TRANSPORT_ALIASES[ALIAS] = f"{__name__}:Transport"
    TRANSPORT_ALIASES[TLS_ALIAS] = f"{__name__}:TLSTransport"


def atomic_url(url: str) -> str:
    """Turn a Redis broker's address, or several parted by ``;``, into that of this transport.

    Raises:
        AtomicClaimError: The scheme isn't one of Redis, or it is Sentinel's.
    """
    return ";".join(_atomic_address(address) for address in url.split(";"))


def _atomic_address(address: str) -> str:
    scheme = urlsplit(address).scheme
    if scheme.startswith(PREFIX):
        return address
    if scheme not in KNOWN_SCHEMES:
        known = ", ".join(f"{known}://" for known in KNOWN_SCHEMES)
        raise AtomicClaimError(f"The atomic claim works with {known}, not with {scheme}://")
    return PREFIX + address
