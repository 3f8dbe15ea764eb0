"""Visibility is measured by the broker's clock: workers whose clocks disagree share a queue."""

import time
from collections.abc import Iterator

import pytest
import redis
from kombu.transport import redis as kombu_redis

from labelyard_worker.broker.visibility_heartbeat import VisibilityHeartbeat
from tests.support.inbox import Inbox, inbox, publish

HOUR_S = 3600.0
INDEX = "unacked_index"


@pytest.fixture(params=[-HOUR_S, HOUR_S], ids=["an hour behind", "an hour ahead"])
def shifted_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Shift this process's clock, kombu's copy of it included."""
    real_time, offset_s = time.time, float(request.param)

    def shifted() -> float:
        return real_time() + offset_s

    monkeypatch.setattr(time, "time", shifted)
    monkeypatch.setattr(kombu_redis, "time", shifted)
    return offset_s


@pytest.fixture
def claimed(broker_url: str) -> Iterator[Inbox]:
    """Hold one message that is claimed and not acknowledged."""
    publish(broker_url, "x")
    with inbox(broker_url, visibility_timeout=60) as consumer:
        consumer.await_messages(1)
        yield consumer


def age_s(client: redis.Redis) -> float:
    """Measure by the broker's clock how long ago the only message was stamped."""
    [(_, stamped_at)] = client.zrange(INDEX, 0, -1, withscores=True)
    seconds, microseconds = client.time()
    return float(seconds) + microseconds / 1_000_000 - float(stamped_at)


@pytest.mark.usefixtures("shifted_clock")
def test_a_claim_is_stamped_by_the_broker(claimed: Inbox, broker_redis: redis.Redis) -> None:
    assert claimed.messages
    assert 0 <= age_s(broker_redis) < 30


@pytest.mark.usefixtures("shifted_clock")
def test_a_message_taken_without_a_claim_is_stamped_by_the_broker(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    publish(broker_url, "x")
    with inbox(broker_url, "other") as consumer:
        message = consumer.channel.basic_get("bulk")

        assert 0 <= age_s(broker_redis) < 30
        consumer.channel.basic_ack(message.delivery_tag)


@pytest.mark.usefixtures("shifted_clock")
def test_a_beat_stamps_by_the_broker(claimed: Inbox, broker_redis: redis.Redis) -> None:
    [tag] = broker_redis.zrange(INDEX, 0, -1)
    broker_redis.zadd(INDEX, {tag: 1.0})

    VisibilityHeartbeat(claimed.channel).renew()

    assert 0 <= age_s(broker_redis) < 30


@pytest.mark.usefixtures("shifted_clock")
def test_a_message_in_work_is_left_to_its_worker(claimed: Inbox, broker_redis: redis.Redis) -> None:
    claimed.channel.qos.restore_visible(interval=1)

    assert broker_redis.zcard(INDEX) == 1
    assert broker_redis.llen("bulk") == 0


@pytest.mark.usefixtures("shifted_clock")
def test_a_dead_workers_message_is_given_back(claimed: Inbox, broker_redis: redis.Redis) -> None:
    [tag] = broker_redis.zrange(INDEX, 0, -1)
    seconds, _ = broker_redis.time()
    broker_redis.zadd(INDEX, {tag: seconds - 61})

    claimed.channel.qos.restore_visible(interval=1)

    assert broker_redis.zcard(INDEX) == 0
    assert broker_redis.llen("bulk") == 1
