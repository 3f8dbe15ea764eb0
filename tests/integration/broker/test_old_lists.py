"""Lists of earlier versions end among the messages that are set aside now."""

from contextlib import closing

import pytest
import redis

from labelyard.ledger import Ledger, connect
from labelyard.ledger.set_aside import SetAside
from labelyard_worker.broker.malformed import MALFORMED_KEY
from labelyard_worker.broker.old_lists import move_old_lists
from labelyard_worker.settings import WorkerSettings


def test_messages_of_both_old_lists_are_moved_once(
    broker_url: str, broker_redis: redis.Redis, ledger_url: str
) -> None:
    settings = WorkerSettings(broker_url=broker_url, ledger_url=ledger_url, namespace="test")
    broker_redis.lpush(MALFORMED_KEY, b"\xff\xfe", b"not JSON")
    with closing(connect(settings)) as client:
        ledger = Ledger(client, settings)
        client.lpush(ledger.keys.refused, '{"images": []}')

        assert [move_old_lists(settings, ledger), move_old_lists(settings, ledger)] == [3, 0]

        kept = {message.raw for message in SetAside(client, settings).messages()}
        assert kept == {b"\xff\xfe", b"not JSON", b'{"images": []}'}
        assert client.exists("test:refused") + broker_redis.exists(MALFORMED_KEY) == 0


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest@127.0.0.1:1//"])
def test_a_broker_that_is_away_does_not_stop_the_start(ledger_url: str, url: str) -> None:
    settings = WorkerSettings(broker_url=url, ledger_url=ledger_url, namespace="test")
    with closing(connect(settings)) as client:
        assert move_old_lists(settings, Ledger(client, settings)) == 0
