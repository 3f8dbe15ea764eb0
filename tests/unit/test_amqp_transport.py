"""AMQP without a broker: frames and properties that py-amqp cannot decode."""

import json
import struct
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import spec  # type: ignore[import-untyped]

from labelyard_worker.broker.amqp_transport import (
    AmqpConnection,
    drop_names,
    frame_handler,
    to_gated_url,
    to_kept_bytes,
)

CONTENT_TYPE_FLAG, HEADERS_FLAG = 1 << 15, 1 << 13
DELIVER = struct.pack(">HH", *spec.Basic.Deliver)


def table(*items: bytes) -> bytes:
    body = b"".join(items)
    return struct.pack(">I", len(body)) + body


def nested(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"F" + table(b"\x01a" + value)
    return value


UNREADABLE = {
    "a content-type that is no UTF-8": (CONTENT_TYPE_FLAG, b"\x02\xff\xfe"),
    "an unknown type in a table": (HEADERS_FLAG, table(b"\x01a?")),
    "a table that ends too soon": (HEADERS_FLAG, struct.pack(">I", 100) + b"\x01aS"),
    "a date beyond all years": (HEADERS_FLAG, table(b"\x01aT" + b"\xff" * 8)),
    "a table of tables without end": (HEADERS_FLAG, table(b"\x01a" + nested(3_000))),
}


@pytest.mark.parametrize(("flag", "properties"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_message_whose_properties_cannot_be_decoded_is_delivered_without_them(
    flag: int, properties: bytes
) -> None:
    delivered: list[Any] = []
    connection: Any = SimpleNamespace(bytes_recv=0, unreadable_properties={})
    on_frame = frame_handler(connection, lambda *method: delivered.append(method[3]))
    raw = struct.pack(">H", flag) + properties

    on_frame((1, 7, DELIVER))
    on_frame((2, 7, struct.pack(">HHQ", 60, 0, 3) + raw))
    on_frame((3, 7, b"xyz"))

    [message] = delivered
    assert (message.body, message.properties) == (b"xyz", {})
    assert connection.unreadable_properties == {7: raw}


def test_an_error_of_the_consumer_is_no_fault_of_the_properties() -> None:
    def fail(*method: Any) -> None:
        raise ConnectionError("lost")

    connection: Any = SimpleNamespace(bytes_recv=0, unreadable_properties={})
    on_frame = frame_handler(connection, fail)
    on_frame((1, 7, DELIVER))

    with pytest.raises(ConnectionError):
        on_frame((2, 7, struct.pack(">HHQ", 60, 0, 0) + b"\0\0"))

    assert connection.unreadable_properties == {}


def test_names_that_are_no_utf8_are_cut_out_of_a_delivery() -> None:
    head = DELIVER + b"\x02c1" + struct.pack(">QB", 5, 1)

    assert drop_names(head + b"\x00\x02\xff\xfe") == head + b"\0\0"


@pytest.mark.parametrize(
    "headers",
    [
        *({b"\xff": 1}, {"a": b"\xff"}, {"a": Decimal(1)}, {"a": float("nan")}, {"\ud800": 1}),
        *(None, 7, [1]),
    ],
)
def test_any_headers_can_be_written_down(headers: Any) -> None:
    raw = to_kept_bytes({"application_headers": headers, "priority": 3}, b"\xff", b"")

    item = json.loads(raw)
    assert (item["body"], item["properties"]) == (
        "/w==",
        {"priority": 3, "body_encoding": "base64"},
    )


def test_every_address_of_rabbitmq_is_gated() -> None:
    url = to_gated_url("amqp://a//;amqps://b//")

    assert url == "labelyard-amqp://a//;labelyard-amqps://b//"
    assert to_gated_url(url) == url


def test_a_body_is_not_decoded_by_the_codec_that_it_names() -> None:
    connection: Any = AmqpConnection(gated_queues=["q"])

    channel = connection.Channel(connection, 1)

    assert channel.auto_decode is False
