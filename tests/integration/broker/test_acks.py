"""Acknowledgements are sent together, once a turn of the event loop, and none is left behind."""

import pytest
import redis
from kombu.asynchronous import Hub

from tests.support.inbox import Inbox, inbox, publish

PREFIX = "app:"


def unacked(broker: redis.Redis, prefix: str = "") -> tuple[int, int]:
    """Count the unacknowledged messages, and their entries in the index."""
    return broker.hlen(f"{prefix}unacked"), broker.zcard(f"{prefix}unacked_index")


class Turns:
    """An event loop as Celery's, turned by hand."""

    def __init__(self, consumer: Inbox) -> None:
        self._hub = Hub()
        consumer.connection.register_with_event_loop(self._hub)

    def turn(self) -> None:
        """Call the channel as the event loop does at the start of a turn."""
        for tick in list(self._hub.on_tick):
            tick()


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_what_ends_in_one_turn_is_acknowledged_by_one_command(
    prefix: str, broker_url: str, broker_redis: redis.Redis
) -> None:
    options = {"global_keyprefix": prefix}
    publish(broker_url, "a", "b", "c", transport_options=options)
    with inbox(broker_url, **options) as consumer:
        messages = consumer.await_messages(3)
        loop = Turns(consumer)
        for message in messages[:2]:
            message.ack()
        waiting = unacked(broker_redis, prefix)
        broker_redis.config_resetstat()

        loop.turn()

        commands = broker_redis.info("commandstats")
        assert waiting == (3, 3)
        assert unacked(broker_redis, prefix) == (1, 1)
        assert commands["cmdstat_hdel"]["calls"] == 1
        assert commands["cmdstat_zrem"]["calls"] == 1


def test_without_an_event_loop_each_is_acknowledged_at_once(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    publish(broker_url, "a", "b")
    with inbox(broker_url) as consumer:
        consumer.await_messages(2)[0].ack()

        assert unacked(broker_redis) == (1, 1)


def test_closing_the_channel_sends_what_waits_and_gives_back_the_rest(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    publish(broker_url, "ended", "not yet")
    with inbox(broker_url) as consumer:
        messages = consumer.await_messages(2)
        Turns(consumer)
        messages[0].ack()

        consumer.channel.close()

        assert unacked(broker_redis) == (0, 0)
        assert broker_redis.llen("bulk") == 1


def test_a_broker_that_forgot_the_script_is_told_it_again(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    publish(broker_url, "a", "b")
    with inbox(broker_url) as consumer:
        for message in consumer.await_messages(2):
            broker_redis.script_flush()
            message.ack()

        assert unacked(broker_redis) == (0, 0)


def test_more_than_one_command_can_carry_is_sent_in_several(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    count = 2500
    publish(broker_url, *(str(number) for number in range(count)))
    with inbox(broker_url) as consumer:
        messages = consumer.await_messages(count, within_s=60.0)
        loop = Turns(consumer)
        for message in messages:
            message.ack()

        loop.turn()

        assert unacked(broker_redis) == (0, 0)
