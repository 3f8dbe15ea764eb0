"""Published messages are read by Celery, in order, from many threads, and none is lost."""

import json
import logging
import math
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer

from labelyard.errors import BrokerUnavailableError, ServiceConfigError
from labelyard.messages import new_job_id, parse_job
from labelyard.outgoing import IMAGES_HEADER, TENANT_HEADER, share_of
from labelyard.publisher import JOB_ID_HEADER, PUBLISHED_AT_HEADER, TASK, Outgoing, Publisher
from labelyard.queues import DELIVERY_LIMIT, Queue, kombu_queues
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job
from labelyard_worker.local.servers import ValkeyServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

CONTRACT = Path(__file__).parents[3] / "docs" / "message-contract.md"


@pytest.fixture
def client_settings(broker_url: str) -> ClientSettings:
    return ClientSettings(broker_url=broker_url, namespace="test")


@pytest.fixture
def publisher(client_settings: ClientSettings) -> Iterator[Publisher]:
    publisher = Publisher(client_settings)
    yield publisher
    publisher.close()


def outgoing(queue: str = "bulk") -> Outgoing:
    return Outgoing.of(sample_job(job_id=new_job_id()), queue=queue, published_at=1.5)


def received(url: str, queue: str) -> list[tuple[Any, Any]]:
    """Take all messages of *queue* as a kombu consumer sees them: body and message."""
    taken = []
    with Connection(url) as connection, connection.channel() as channel:
        consumer = Consumer(channel, accept=["json"])
        while (message := channel.basic_get(f"test.{queue}")) is not None:
            message.accept = consumer.accept
            taken.append((message.decode(), message))
            message.ack()
    return taken


def test_a_message_is_a_celery_task_with_the_job_as_its_argument(
    publisher: Publisher, broker_url: str
) -> None:
    job = sample_job()

    is_published = publisher.publish(job, queue="interactive", published_at=12.25)

    [([args, kwargs, canvas], message)] = received(broker_url, "interactive")
    assert is_published
    assert parse_job(args[0]) == job
    assert (len(args), kwargs, set(canvas.values())) == (1, {}, {None})
    assert (message.headers["task"], message.headers["id"]) == (TASK, job.job_id)
    assert (message.headers[JOB_ID_HEADER], message.headers[PUBLISHED_AT_HEADER]) == (
        job.job_id,
        12.25,
    )
    assert message.headers["ignore_result"] is True
    assert message.properties["message_id"] == job.job_id
    assert message.properties["delivery_mode"] == 2


def test_headers_show_neither_labels_nor_addresses(publisher: Publisher) -> None:
    text = json.dumps(outgoing().headers())

    assert "cat" not in text
    assert "s3://" not in text


def test_headers_name_the_tenant_and_count_its_images() -> None:
    job = sample_job(tenant="shop-eu")

    headers = Outgoing.of(job, queue="bulk", published_at=1.5).headers()

    assert (headers[TENANT_HEADER], headers[IMAGES_HEADER]) == ("shop-eu", 2)


@pytest.mark.parametrize("message", ["", "[1]", "{}", '{"images": null}', "[" * 100_000])
def test_a_message_that_is_not_a_job_has_the_default_share(message: str) -> None:
    assert share_of(message) == ("default", 1)


def test_a_given_back_job_keeps_its_share() -> None:
    text = sample_job(tenant="shop-eu").model_dump_json()

    assert share_of(text) == ("shop-eu", 2)
    assert share_of(text.replace("shop-eu", "x" * 9999)) == ("default", 2)


def test_weights_are_replaced_as_a_whole(publisher: Publisher, broker_redis: redis.Redis) -> None:
    publisher.write_weights({"a": 3, "gone": 1})

    publisher.write_weights({"a": 0.5, "*": 2})

    assert broker_redis.hgetall("test.weights") == {b"a": b"0.5", b"*": b"2.0"}
    publisher.write_weights({})
    assert broker_redis.exists("test.weights") == 0


@pytest.mark.parametrize("weight", [0, 0.009, 1001, -1, math.nan, math.inf])
def test_a_weight_out_of_bounds_is_refused_and_none_is_written(
    publisher: Publisher, broker_redis: redis.Redis, weight: float
) -> None:
    with pytest.raises(ServiceConfigError, match=r"weight of tenant b is .*0\.01 to 1000"):
        publisher.write_weights({"a": 1, "b": weight})

    assert broker_redis.exists("test.weights") == 0


def test_only_changed_weights_forgive_what_tenants_were_charged(
    publisher: Publisher, broker_redis: redis.Redis
) -> None:
    """Weights are written again and again, to repair a broker that lost them."""
    turns = {"": 5.0, "a": 7.0, "b": 6400.0}
    publisher.write_weights({"b": 0.01})
    broker_redis.zadd("test.bulk:turns", turns)

    publisher.write_weights({"b": 0.01})
    same = dict(broker_redis.zrange("test.bulk:turns", 0, -1, withscores=True))
    publisher.write_weights({"b": 1})
    changed = dict(broker_redis.zrange("test.bulk:turns", 0, -1, withscores=True))

    assert same == {name.encode(): at for name, at in turns.items()}
    assert changed == {b"": 5.0, b"a": 5.0, b"b": 5.0}


def test_a_batch_arrives_whole_and_in_order(publisher: Publisher, broker_url: str) -> None:
    messages = [outgoing() for _ in range(2500)]

    is_published = publisher.publish_many(messages)

    arrived = [args[0]["job_id"] for [args, _, _], _ in received(broker_url, "bulk")]
    assert is_published
    assert arrived == [message.job_id for message in messages]


def test_threads_share_a_publisher(publisher: Publisher, broker_url: str) -> None:
    messages = [outgoing() for _ in range(200)]

    with ThreadPoolExecutor(16) as pool:
        sent = list(pool.map(lambda message: publisher.publish_many([message]), messages))

    arrived = {args[0]["job_id"] for [args, _, _], _ in received(broker_url, "bulk")}
    assert all(sent)
    assert arrived == {message.job_id for message in messages}


def test_depths_count_what_waits(publisher: Publisher) -> None:
    publisher.publish_many([outgoing("bulk"), outgoing("bulk"), outgoing("quarantine")])

    depths = publisher.depths()

    assert depths == {**dict.fromkeys(Queue, 0), "bulk": 2, "quarantine": 1}


def test_a_broker_that_is_away_is_a_warning_and_costs_no_more_than_the_timeout(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(ClientSettings(broker_url=own_valkey.url), timeout_s=0.3)
    own_valkey.kill()

    with caplog.at_level(logging.WARNING, "labelyard.publisher"):
        is_published = publisher.publish_many([outgoing()])

    [record] = caplog.records
    assert not is_published
    assert record.message == "publish_failed"
    assert record.__dict__["fields"]["code"] == "broker_unavailable"
    with pytest.raises(BrokerUnavailableError, match="refused"):
        publisher.depths()


def test_a_publisher_survives_the_restart_of_its_broker(own_valkey: ValkeyServer) -> None:
    publisher = Publisher(ClientSettings(broker_url=own_valkey.url, namespace="test"))
    publisher.publish_many([outgoing()])
    own_valkey.kill()
    own_valkey.start()

    is_published = publisher.publish_many([outgoing()])

    assert is_published
    publisher.close()


def test_a_half_open_connection_is_given_up_for_another(
    clean_valkey: ValkeyServer, broker_url: str
) -> None:
    with TcpProxy(clean_valkey.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        publisher = Publisher(ClientSettings(broker_url=url, namespace="test"), timeout_s=1.0)
        publisher.publish_many([outgoing()])
        proxy.freeze()

        is_published = publisher.publish_many([outgoing()])

        assert is_published
        publisher.close()
    assert len(received(broker_url, "bulk")) >= 2


def test_a_broker_at_maxmemory_takes_nothing(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(ClientSettings(broker_url=own_valkey.url), timeout_s=0.3)
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", "1")

    is_published = publisher.publish_many([outgoing()])

    assert not is_published
    assert "used memory > 'maxmemory'" in caplog.records[-1].__dict__["fields"]["reason"]
    publisher.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own(publisher: Publisher, broker_url: str) -> None:
    publisher.publish_many([outgoing()])

    child = os.fork()
    if child == 0:
        os._exit(0 if publisher.publish_many([outgoing()]) else 1)
    _, status = os.waitpid(child, 0)
    publisher.publish_many([outgoing()])

    assert status == 0
    assert len(received(broker_url, "bulk")) == 3


def test_rabbitmq_queues_are_quorum_queues_that_end_in_quarantine() -> None:
    defined = {queue.name: queue.queue_arguments for queue in kombu_queues("ly", "amqp://h//")}

    assert list(defined) == ["ly.control", "ly.interactive", "ly.bulk", "ly.quarantine"]
    assert defined["ly.quarantine"] == {"x-queue-type": "quorum"}
    assert defined["ly.bulk"] == {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "ly.quarantine",
    }


def test_redis_queues_need_no_arguments_and_no_bindings() -> None:
    defined = kombu_queues("ly", "redis://h/0")

    assert all(queue.queue_arguments is None for queue in defined)
    assert all(queue.exchange.name == "" for queue in defined)


CONSUMER = """
import os, redis
from celery import Celery
from labelyard.queues import kombu_queues

app = Celery("consumer", broker=os.environ["BROKER_URL"])
app.conf.update(task_queues=kombu_queues("labelyard", ""), accept_content=["json"], task_ignore_result=True)

@app.task(name="labelyard.classify", bind=True)
def classify(self, message):
    with redis.Redis.from_url(os.environ["SEEN_URL"]) as seen:
        seen.set(self.request.id, message["job_id"], ex=60)
"""


def documented_envelope() -> dict[str, Any]:
    """Read the message that the documentation gives for other languages."""
    text = CONTRACT.read_text(encoding="utf-8")
    _, _, after = text.partition("<!-- envelope -->\n```json\n")
    envelope: dict[str, Any] = json.loads(after.partition("```")[0])
    return envelope


@pytest.mark.allow_persistent_keys("Celery's worker binds its queues, without a TTL")
def test_the_documented_envelope_pushed_by_hand_is_run_by_a_celery_worker(
    broker_redis: redis.Redis, broker_url: str, redis_url: str, tmp_path: Path
) -> None:
    envelope = documented_envelope()
    job_id = envelope["headers"]["id"]
    envelope["properties"]["delivery_tag"] = str(uuid.uuid4())
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = "-m celery -A consumer worker --pool=solo --without-mingle --without-gossip -l error"

    broker_redis.lpush("labelyard.interactive", json.dumps(envelope))

    worker = subprocess.Popen(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env={**os.environ, "BROKER_URL": broker_url, "SEEN_URL": redis_url},
    )
    try:
        with redis.Redis.from_url(redis_url) as seen:
            answer = wait_until(lambda: seen.get(job_id), within_s=30)
    finally:
        worker.terminate()
        worker.wait(timeout=20)
    assert answer == job_id.encode()
    assert parse_job(json.loads(envelope["body"])[0][0]).job_id == job_id
