"""Addresses of the broker and the ledger are checked before anything is accepted."""

from typing import Any

import pytest

from labelyard import AsyncClient, Client, ClientSettings
from labelyard.errors import ServiceConfigError

BOTH = [
    ("", "is empty"),
    ("  ", "is empty"),
    ("valkey://h/1", "begins with one of redis://"),
    ("sentinel://h:26379/1", "begins with one of redis://"),
    ("http://127.0.0.1/1", "begins with one of redis://"),
    ("h:6379", "begins with one of redis://"),
    ('"redis://h/1"', "quotation mark"),
    ("redis://h/1 ", "quotation mark or a blank"),
    ("redis://h /1", "holds a blank"),
    ("redis://h/abc", "number of the database"),
    ("redis://h:port/0", "host and port cannot be read"),
    ("redis://h:99999/0", "host and port cannot be read"),
    ("redis://:pa55/s3cret@h/0", "host and port cannot be read"),
    ("redis://[::1/0", "host and port cannot be read"),
    (f"redis://{'x' * 64}/0", "longer than 63"),
    ("redis://h/0?no_such_option=1", "redis-py refuses"),
    ("unix:///tmp/redis.sock?db=1", "Unix socket cannot be used"),
]


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize("setting", ["broker_url", "ledger_url"])
@pytest.mark.parametrize(("url", "advice"), BOTH)
def test_a_wrong_address_is_refused_with_what_to_write(
    client_class: Any, setting: str, url: str, advice: str
) -> None:
    with pytest.raises(ServiceConfigError, match=f"LABELYARD_{setting.upper()}: ") as raised:
        client_class(ClientSettings(**{setting: url}))

    assert advice in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("setting", ["broker_url", "ledger_url"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://user:p%2Fw@h:6380/15",
        "rediss://h/0?ssl_cert_reqs=CERT_NONE",
        "rediss://h/0?ssl_cert_reqs=required",
        "redis://[::1]:6379/0",
    ],
)
def test_usual_addresses_are_taken(setting: str, url: str) -> None:
    with Client(ClientSettings(**{setting: url})) as client:
        assert getattr(client.settings, setting) == url


@pytest.mark.parametrize("url", ["amqp://h//", "amqps://u:p@h:5671/v", "amqp://a//;amqp://b//"])
def test_rabbitmqs_addresses_are_for_the_broker(url: str) -> None:
    with Client(ClientSettings(broker_url=url)) as client:
        assert client.settings.broker_url == url

    with pytest.raises(ServiceConfigError, match="LABELYARD_LEDGER_URL"):
        ClientSettings(ledger_url=url)
