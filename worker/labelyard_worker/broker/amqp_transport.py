"""kombu's AMQP transport with the admission gate; no content of a message raises an exception.

py-amqp decodes properties, header tables and bodies on receipt, and kombu decompresses in the
constructor of its message. Here undecodable properties are read as none, bodies stay bytes, and
each message of a job queue passes the gate before kombu sees it.
"""

import base64
import json
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from amqp import spec  # type: ignore[import-untyped]
from amqp.basic_message import Message as WireMessage  # type: ignore[import-untyped]
from amqp.method_framing import frame_handler as stock_frame_handler  # type: ignore[import-untyped]
from amqp.serialization import PROPERTY_CLASSES  # type: ignore[import-untyped]
from kombu.transport import TRANSPORT_ALIASES, pyamqp

from labelyard_worker.broker.admission import admit, set_aside_call
from labelyard_worker.broker.calls import TaskCall
from labelyard_worker.broker.envelopes import MAX_ENVELOPE_BYTES, Envelope

log = logging.getLogger(__name__)

PREFIX: Final = "labelyard-"
CONTENT_HEADER: Final = 2
PROPERTIES_AT: Final = 12  # class, weight and the size of the body come first
NO_PROPERTIES: Final = b"\0\0"
LOST_CONNECTION: Final = (
    *pyamqp.Connection.connection_errors,
    *pyamqp.Connection.channel_errors,
)


def frame_handler(
    connection: "AmqpConnection", callback: Callable[..., Any]
) -> Callable[[Any], bool]:
    """Read frames as py-amqp does; undecodable properties are read as none."""
    on_frame: Callable[[Any], bool] = stock_frame_handler(connection, callback)

    def on_guarded_frame(frame: Any) -> bool:
        try:
            return on_frame(frame)
        except Exception:
            frame_type, channel_id, payload = frame
            if frame_type != CONTENT_HEADER or has_readable_properties(payload):
                raise
        connection.unreadable_properties[channel_id] = bytes(payload[PROPERTIES_AT:])
        return on_frame((frame_type, channel_id, bytes(payload[:PROPERTIES_AT]) + NO_PROPERTIES))

    return on_guarded_frame


def has_readable_properties(payload: Any) -> bool:
    """Return whether py-amqp can decode the properties in a content header."""
    class_id = int.from_bytes(payload[:2], "big")
    try:
        PROPERTY_CLASSES[class_id](payload, PROPERTIES_AT)
    except Exception:  # noqa: BLE001 - Unicode, dates, nesting, unknown types: all are possible
        return False
    return True


def drop_names(payload: Any) -> bytes:
    """Cut exchange and routing key, which need not be UTF-8, out of the arguments of a delivery."""
    arguments = bytes(payload)
    names_at = 4 + 1 + arguments[4] + 8 + 1  # method, consumer tag, delivery tag, redelivered
    return arguments[:names_at] + b"\0\0"


class AmqpChannel(pyamqp.Channel):  # type: ignore[misc]
    """AMQP channel; its job queues deliver calls of our own tasks only."""

    def __init__(
        self, connection: "AmqpConnection", channel_id: Any = None, **options: Any
    ) -> None:
        self._queue_by_consumer: dict[str, str] = {}
        # A content-encoding may name any of Python's codecs, slow ones included.
        super().__init__(connection, channel_id, **{**options, "auto_decode": False})

    def basic_consume(self, queue: str = "", consumer_tag: str = "", **options: Any) -> Any:
        self._queue_by_consumer[consumer_tag] = queue
        tag = super().basic_consume(queue=queue, consumer_tag=consumer_tag, **options)
        self._queue_by_consumer[tag] = queue
        return tag

    def dispatch_method(self, method_sig: Any, payload: Any, content: Any) -> Any:
        try:
            return super().dispatch_method(method_sig, payload, content)
        except UnicodeDecodeError:
            if method_sig != spec.Basic.Deliver:
                raise
        return super().dispatch_method(method_sig, drop_names(payload), content)

    def _on_basic_deliver(
        self,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        msg: WireMessage,
    ) -> None:
        deliver = super()._on_basic_deliver
        queue = self._queue_by_consumer.get(consumer_tag, "")
        unreadable = self.connection.unreadable_properties.pop(self.channel_id, b"")
        if queue not in self.connection.gated_queues:
            deliver(consumer_tag, delivery_tag, redelivered, exchange, routing_key, msg)
            return
        envelope = to_envelope(msg.properties, msg.body, bool(redelivered), unreadable=unreadable)
        hand_over = partial(deliver, consumer_tag, delivery_tag, redelivered, "", queue)
        try:
            self._deliver_or_set_aside(envelope, queue, hand_over)
        except LOST_CONNECTION:
            raise
        except Exception as error:  # noqa: BLE001 - the event loop ends at any other exception
            fields = {"queue": queue, "why": type(error).__name__}
            # Without the traceback, which may quote the message.
            log.error("message_returned", extra={"fields": fields})  # noqa: TRY400
            self.basic_reject(delivery_tag, requeue=True)

    def _deliver_or_set_aside(
        self, envelope: Envelope, queue: str, hand_over: Callable[[WireMessage], None]
    ) -> None:
        try:
            follow_ups = self.connection.follow_ups
            hand_over(to_wire_message(admit(envelope, queue=queue, follow_ups=follow_ups)))
        except LOST_CONNECTION:
            raise
        except Exception as error:  # noqa: BLE001 - our own call instead, which holds no part of it
            reason = f"the worker failed to take the message ({type(error).__name__})"
            hand_over(to_wire_message(set_aside_call(envelope, queue=queue, reason=reason)))


def to_envelope(
    properties: Mapping[str, Any], body: Any, is_redelivered: bool, *, unreadable: bytes = b""
) -> Envelope:
    """Make the envelope of an AMQP message."""
    body = body.encode() if isinstance(body, str) else bytes(body)  # py-amqp: "" if there is none
    fault = "its properties cannot be decoded" if unreadable else ""
    if len(body) > MAX_ENVELOPE_BYTES:
        fault = f"{len(body)} bytes are too many (limit {MAX_ENVELOPE_BYTES})"
    return Envelope(
        raw=lambda: to_kept_bytes(properties, body, unreadable),
        headers=properties.get("application_headers"),
        body=body,
        content_type=properties.get("content_type"),
        content_encoding=properties.get("content_encoding"),
        correlation_id=properties.get("correlation_id"),
        is_redelivered=is_redelivered,
        fault=fault,
    )


def to_kept_bytes(properties: Mapping[str, Any], body: bytes, unreadable: bytes) -> bytes:
    """Write a message in the form of a list item on Redis, to be kept and replayed."""
    others = dict(properties)
    item = {
        "body": base64.b64encode(body).decode(),
        "content-type": others.pop("content_type", None),
        "content-encoding": others.pop("content_encoding", None),
        "headers": others.pop("application_headers", None),
        "properties": {**others, "body_encoding": "base64"},
    }
    if unreadable:
        item["unreadable-properties"] = base64.b64encode(unreadable).decode()
    try:
        return json.dumps(item, default=repr, skipkeys=True).encode()
    except (ValueError, RecursionError):
        item["headers"], item["properties"] = None, {"body_encoding": "base64"}
        return json.dumps(item, default=repr).encode()


def to_wire_message(call: TaskCall) -> WireMessage:
    """Write the AMQP message of *call*."""
    return WireMessage(
        call.write_body().encode(),
        content_type="application/json",
        content_encoding="utf-8",
        application_headers=call.write_headers(),
        correlation_id=call.task_id,
        delivery_mode=2,
    )


class AmqpConnection(pyamqp.Connection):  # type: ignore[misc]
    """AMQP connection with gated channels.

    Attributes:
        gated_queues: Transport option: queues whose messages pass the gate.
        follow_ups: Transport option: calls that may follow in a chain, each as ``task@queue``.
        unreadable_properties: By channel: properties of the message on its way that could not
            be decoded.
    """

    Channel = AmqpChannel

    def __init__(
        self,
        *args: Any,
        gated_queues: Collection[str] = (),
        follow_ups: Collection[str] = (),
        **options: Any,
    ) -> None:
        self.gated_queues = frozenset(gated_queues)
        self.follow_ups = frozenset(follow_ups)
        self.unreadable_properties: dict[int, bytes] = {}
        super().__init__(*args, **{**options, "frame_handler": frame_handler})


class AmqpTransport(pyamqp.Transport):  # type: ignore[misc]
    """kombu's AMQP transport with the gate."""

    Connection = AmqpConnection


class AmqpTLSTransport(pyamqp.SSLTransport):  # type: ignore[misc]
    """kombu's AMQP transport with the gate, over TLS."""

    Connection = AmqpConnection


def install() -> None:
    """Register the transports with kombu; safe to call again."""
    for scheme, transport in (
        ("amqp", AmqpTransport),
        ("pyamqp", AmqpTransport),
        ("amqps", AmqpTLSTransport),
    ):
        TRANSPORT_ALIASES[PREFIX + scheme] = f"{__name__}:{transport.__name__}"


def to_gated_url(url: str) -> str:
    """Turn RabbitMQ's address, or several parted by ``;``, into that of this transport."""
    return ";".join(
        address if address.startswith(PREFIX) else PREFIX + address for address in url.split(";")
    )
