"""The visibility heartbeat: long jobs are started once, and a dead worker's come back soon."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue

from labelyard_worker.broker.transport import install, to_atomic_url
from labelyard_worker.broker.visibility_heartbeat import VisibilityHeartbeat, list_delivered_tags
from labelyard_worker.local.servers import ValkeyServer
from tests.support.apps.durability_worker import Worker, effects, ended, send_marks
from tests.support.waiting import wait_until

VISIBILITY_TIMEOUT_S = 2
RESTORE_INTERVAL_S = 1
OPTIONS = {"visibility_timeout": VISIBILITY_TIMEOUT_S}

install()


def started(folder: Path) -> list[str]:
    return [words[1] for words in effects(folder) if words[0] == "start"]


def take(connection: Connection, count: int) -> Any:
    """Publish and consume *count* messages; return the channel that holds them."""
    channel = connection.channel()
    with connection.Producer() as producer:
        for number in range(count):
            producer.publish(number, routing_key="bulk")
    got: list[object] = []
    Consumer(channel, [Queue("bulk", channel=channel)], on_message=got.append).consume()
    while len(got) < count:
        connection.drain_events(timeout=5)
    return channel


@pytest.fixture(params=["", "shop:"], ids=["no prefix", "global prefix"])
def channel(broker_url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    options = {**OPTIONS, "global_keyprefix": request.param}
    with Connection(to_atomic_url(broker_url), transport_options=options) as connection:
        yield take(connection, 2)


def test_a_beat_stamps_what_is_in_work_and_revives_nothing(
    channel: Any, broker_redis: redis.Redis
) -> None:
    index = f"{channel.global_keyprefix}unacked_index"
    acknowledged, in_work = list_delivered_tags(channel.qos)
    broker_redis.zadd(index, {in_work: 1.0, "another worker's": 1.0})
    broker_redis.zrem(index, acknowledged)
    heartbeat = VisibilityHeartbeat(channel)

    stamped = heartbeat.renew()

    assert stamped == 2
    scores = dict(broker_redis.zrange(index, 0, -1, withscores=True))
    assert scores.keys() == {in_work.encode(), b"another worker's"}
    assert scores[in_work.encode()] == pytest.approx(time.time(), abs=5)
    assert scores[b"another worker's"] == 1.0


def test_an_acknowledged_message_is_not_in_work(channel: Any) -> None:
    first, second = list_delivered_tags(channel.qos)

    channel.basic_ack(first)

    assert list_delivered_tags(channel.qos) == [second]


def test_it_beats_again_after_an_outage(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Connection(to_atomic_url(own_valkey.url), transport_options=OPTIONS) as connection:
        channel = take(connection, 1)
        [tag] = list_delivered_tags(channel.qos)
        heartbeat = VisibilityHeartbeat(channel)
        heartbeat.start()

        own_valkey.kill()
        wait_until(lambda: "heartbeat_failed" in caplog.messages)
        own_valkey.restart()
        back_at = time.time()

        with redis.Redis.from_url(own_valkey.url) as client:
            client.zadd("unacked_index", {tag: 1.0})
            wait_until(lambda: client.zscore("unacked_index", tag) > back_at)
        heartbeat.stop()
        heartbeat.join(timeout=5)
        assert not heartbeat.is_alive()


def test_a_job_longer_than_the_visibility_timeout_is_started_once(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    """A second worker stands by; without the heartbeat it starts the job again."""
    workers = [
        Worker(own_valkey.url, tmp_path, has_heartbeat=True, options=OPTIONS) for _ in range(2)
    ]
    send_marks(own_valkey.url, first=0, count=1, seconds=2.5 * VISIBILITY_TIMEOUT_S)

    wait_until(lambda: ended(tmp_path))

    for worker in workers:
        worker.kill()
    assert started(tmp_path) == ["0"]


def test_a_draining_worker_goes_on_beating(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    worker = Worker(own_valkey.url, tmp_path, has_heartbeat=True, options=OPTIONS)
    send_marks(own_valkey.url, first=0, count=1, seconds=2.5 * VISIBILITY_TIMEOUT_S)
    wait_until(lambda: started(tmp_path))
    other = Worker(own_valkey.url, tmp_path, has_heartbeat=True, options=OPTIONS)

    worker.process.terminate()

    assert worker.process.wait(timeout=20) == 0
    other.kill()
    assert started(tmp_path) == ["0"]


def test_the_jobs_of_a_killed_worker_come_back_after_one_timeout(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    worker = Worker(own_valkey.url, tmp_path, has_heartbeat=True, options=OPTIONS)
    send_marks(own_valkey.url, first=0, count=1, seconds=60)
    wait_until(lambda: started(tmp_path))
    other = Worker(own_valkey.url, tmp_path, has_heartbeat=True, options=OPTIONS)
    wait_until(other.is_ready)

    worker.kill()
    killed_at = time.time()
    wait_until(lambda: len(started(tmp_path)) == 2)

    other.kill()
    assert time.time() - killed_at < VISIBILITY_TIMEOUT_S + RESTORE_INTERVAL_S + 1
