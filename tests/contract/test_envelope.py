"""The producer's envelopes are byte for byte those of kombu, which workers and foreign tools read."""

import json
from typing import Any

import pytest
import redis
from kombu import Connection, Producer

from labelyard.broker_redis import RedisBrokerConnection
from labelyard.messages import Deliver, Label, LabelSet, new_job_id
from labelyard.outgoing import DELIVER_TASK, PERSISTENT, TASK, Outgoing
from labelyard.queues import Queue
from labelyard.settings import ClientSettings
from labelyard.tenant_lines.keys import PRIORITY_SUFFIXES
from labelyard.testing import sample_job

UNICODE = LabelSet(labels=(Label(name="крот 🦔"), Label(name='"\\\u2028')))
MESSAGES = {
    "plain": {},
    "unicode": {"label_set": UNICODE, "trace": {"request": "ß"}},
    "delivered": {"deliver": Deliver(stream="done"), "tenant": "shop-eu"},
}


def publish_with_kombu(url: str, messages: list[Outgoing], *, priority: int = 0) -> None:
    """Publish as Celery's own producers do."""
    with Connection(url) as connection, connection.channel() as channel:
        producer = Producer(channel)
        for message in messages:
            producer.publish(
                message.body(),
                routing_key=f"test.{message.queue}",
                content_type="application/json",
                content_encoding="utf-8",
                headers=message.headers(),
                delivery_mode=PERSISTENT,
                correlation_id=message.job_id,
                message_id=message.job_id,
                priority=priority,
            )


def publish_with_ours(url: str, messages: list[Outgoing]) -> None:
    connection = connect(url)
    connection.send(messages)
    connection.close()


def connect(url: str) -> RedisBrokerConnection:
    return RedisBrokerConnection(ClientSettings(broker_url=url, namespace="test"), timeout_s=5)


def without_tag(entry: bytes) -> str:
    """Return the envelope as text, with the one thing that differs by design left out."""
    envelope: dict[str, Any] = json.loads(entry)
    return entry.decode().replace(envelope["properties"]["delivery_tag"], "")


def drained(client: redis.Redis) -> dict[bytes, list[str]]:
    """Take everything that the broker holds: each list by its key."""
    kinds = {key: client.type(key) for key in client.scan_iter()}
    lists = {
        key: [without_tag(entry) for entry in client.lrange(key, 0, -1)]
        for key, kind in kinds.items()
        if kind == b"list"
    }
    client.flushdb()
    assert set(kinds.values()) == {b"list"}
    return lists


@pytest.mark.parametrize("task", [TASK, DELIVER_TASK])
@pytest.mark.parametrize("changes", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("queue", Queue)
def test_redis_holds_what_kombu_would_have_written(
    broker_url: str, broker_redis: redis.Redis, queue: str, changes: dict[str, Any], task: str
) -> None:
    jobs = [sample_job(job_id=new_job_id(), **changes) for _ in range(3)]
    messages = [
        Outgoing(job.job_id, job.model_dump_json(), queue, 1764195000.25, task) for job in jobs
    ]
    publish_with_kombu(broker_url, messages)
    expected = drained(broker_redis)

    publish_with_ours(broker_url, messages)
    batched = drained(broker_redis)
    for message in messages:
        publish_with_ours(broker_url, [message])

    assert batched == drained(broker_redis) == expected
    assert list(expected) == [f"test.{queue}".encode()]


@pytest.mark.parametrize("priority", range(10))
def test_depths_count_the_lists_of_every_priority(broker_url: str, priority: int) -> None:
    job = sample_job(job_id=new_job_id())
    publish_with_kombu(
        broker_url, [Outgoing.of(job, queue="bulk", published_at=1.5)], priority=priority
    )
    connection = connect(broker_url)

    depths = connection.depths()

    connection.close()
    assert depths == {**dict.fromkeys(Queue, 0), "bulk": 1}


def test_every_delivery_tag_is_new(broker_url: str, broker_redis: redis.Redis) -> None:
    message = Outgoing.of(sample_job(), queue="bulk", published_at=1.5)

    publish_with_ours(broker_url, [message] * 50)

    tags = {
        json.loads(entry)["properties"]["delivery_tag"]
        for entry in broker_redis.lrange("test.bulk", 0, -1)
    }
    assert len(tags) == 50


def test_priority_lists_are_named_as_kombu_names_them() -> None:
    from kombu.transport.redis import Channel

    names = [f"{Channel.sep}{step}" if step else "" for step in Channel.priority_steps]

    assert list(PRIORITY_SUFFIXES) == names
