"""The atomic claim: what it promises, and the faults that it must survive."""

import json
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message
from redis.exceptions import ConnectionError as RedisConnectionError

from labelyard_worker.broker.channel import RedisChannel
from labelyard_worker.broker.claim import AtomicClaimError
from labelyard_worker.broker.malformed import MALFORMED_KEY
from labelyard_worker.broker.transport import to_atomic_url
from labelyard_worker.local.servers import ValkeyServer
from tests.support.apps.durability_worker import Worker, ended, send_marks
from tests.support.inbox import Inbox, bodies, inbox, publish
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until


@pytest.fixture
def never_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch polling off: a message arrives only if the consumer is woken."""
    monkeypatch.setattr(RedisChannel, "fallback_s", 600.0)


def test_a_claimed_message_is_recorded_exactly_as_kombu_records_it(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    publish(broker_url, "stock", "ours")
    with inbox(broker_url, prefetch=1, is_atomic=False) as stock:
        stock.await_messages(1)
        [theirs] = [json.loads(record) for record in broker_redis.hvals("unacked")]
        stock.messages[0].ack()

    with inbox(broker_url, prefetch=1) as ours:
        ours.await_messages(1)
        [(tag, record)] = broker_redis.hgetall("unacked").items()
        mine = json.loads(record)
        score = broker_redis.zscore("unacked_index", tag)
        ours.messages[0].ack()

    assert [theirs[0].keys(), *theirs[1:]] == [mine[0].keys(), *mine[1:]]
    assert score == pytest.approx(time.time(), abs=5)
    assert broker_redis.exists("unacked", "unacked_index", "bulk") == 0


@pytest.mark.parametrize("is_atomic", [True, False], ids=["atomic", "stock"])
def test_a_consumer_that_dies_before_it_reads_the_answer_loses_nothing(
    broker_url: str, broker_redis: redis.Redis, is_atomic: bool
) -> None:
    """The stock transport does lose it: proof that this test can fail."""
    with inbox(broker_url, is_atomic=is_atomic) as consumer:
        consumer.turn()
        publish(broker_url, "x")
        if is_atomic:
            consumer.channel.empty_queues.clear()
            consumer.channel._brpop_start()
        wait_until(lambda: broker_redis.llen("bulk") == 0)

        consumer.channel.client.connection.disconnect()

        assert broker_redis.hlen("unacked") == (1 if is_atomic else 0)


@pytest.mark.usefixtures("never_asks_again")
def test_an_idle_consumer_wakes_at_once_when_any_producer_pushes(broker_url: str) -> None:
    pickups_s: list[float] = []
    with inbox(broker_url) as consumer, Connection(broker_url) as connection:
        producer = connection.Producer()
        for number in range(20):
            consumer.await_quiet()
            sent = threading.Timer(0.02, lambda: producer.publish(time.time(), routing_key="bulk"))
            sent.start()
            consumer.await_messages(number + 1)
            pickups_s.append(time.time() - consumer.messages[-1].payload)
            sent.join()

    assert statistics.median(pickups_s) < 0.2


def test_an_idle_consumer_asks_about_once_a_second(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    with inbox(broker_url, "interactive", "bulk") as consumer:
        consumer.await_quiet()
        broker_redis.config_resetstat()

        started = time.monotonic()
        while time.monotonic() < started + 2.2:
            consumer.turn(timeout=0.5)

        stats = broker_redis.info("commandstats")
        assert 1 <= stats["cmdstat_evalsha"]["calls"] <= 4


@pytest.mark.usefixtures("never_asks_again")
def test_messages_of_every_priority_wake_and_come_in_their_order(broker_url: str) -> None:
    with inbox(broker_url) as consumer:
        consumer.await_quiet()
        publish(broker_url, "late", priority=9)
        consumer.await_messages(1)
        for priority in (9, 6, 3, 0):
            publish(broker_url, f"priority {priority}", priority=priority)

        consumer.await_messages(5)

        assert bodies(consumer.messages) == ["late", *(f"priority {n}" for n in (0, 3, 6, 9))]


def test_the_first_queue_goes_first_and_the_last_has_each_20th_claim(broker_url: str) -> None:
    publish(broker_url, *["i"] * 60, queue="interactive")
    publish(broker_url, *["b"] * 60, queue="bulk")

    with inbox(broker_url, "bulk", "interactive", queue_order=["interactive", "bulk"]) as consumer:
        got = "".join(bodies(consumer.await_messages(60)))

    assert got == ("i" * 19 + "b") * 3


@pytest.mark.usefixtures("never_asks_again")
def test_a_queue_at_its_limit_is_left_alone_until_one_is_acknowledged(broker_url: str) -> None:
    publish(broker_url, *["b"] * 5, queue="bulk")
    with inbox(broker_url, "interactive", "bulk", inflight_limits={"bulk": 2}) as consumer:
        consumer.await_messages(2)
        consumer.turn()
        publish(broker_url, "i", queue="interactive")
        assert bodies(consumer.await_messages(3)) == ["b", "b", "i"]

        consumer.messages[0].ack()
        consumer.await_messages(4)
        consumer.messages[1].reject(requeue=True)
        consumer.await_messages(5)
        consumer.turn()

        assert consumer.channel.qos.count_in_flight("bulk") == 2
        assert len(consumer.messages) == 5


def test_one_message_goes_to_one_of_many_idle_consumers(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    stopping = threading.Event()
    got: list[str] = []
    idle = threading.Barrier(5)

    def consume() -> None:
        with inbox(broker_url) as consumer:
            consumer.await_quiet()
            idle.wait()
            while not stopping.is_set():
                consumer.turn()
                while consumer.messages:
                    message = consumer.messages.pop()
                    got.append(message.payload)
                    message.ack()

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    idle.wait()
    publish(broker_url, *map(str, range(40)))
    wait_until(lambda: broker_redis.exists("bulk", "unacked") == 0 and len(got) >= 40)
    stopping.set()
    for thread in threads:
        thread.join()

    assert sorted(got, key=int) == [str(number) for number in range(40)]


@pytest.mark.usefixtures("never_asks_again")
def test_every_key_has_the_global_prefix(broker_url: str, broker_redis: redis.Redis) -> None:
    options = {"global_keyprefix": "shop:"}
    with inbox(broker_url, prefetch=1, **options) as consumer:
        consumer.await_quiet()
        publish(broker_url, "first", "second", transport_options=options)
        consumer.await_messages(1)
        broker_redis.lpush("shop:bulk", "not JSON")
        keys = {key.decode() for key in broker_redis.scan_iter()}

        consumer.messages[0].ack()
        consumer.await_messages(2)
        consumer.messages[1].ack()
        wait_until(lambda: consumer.turn() or broker_redis.llen(f"shop:{MALFORMED_KEY}"))

    assert {"shop:unacked", "shop:unacked_index", "shop:bulk"} <= keys
    assert all(key.decode().startswith("shop:") for key in broker_redis.scan_iter())
    assert broker_redis.exists("shop:unacked", "shop:unacked_index") == 0


GOOD_TAG = {"delivery_tag": "t1", "delivery_info": {"exchange": "", "routing_key": "bulk"}}
MALFORMED = {
    "no JSON": b"not JSON",
    "a list": b"[1, 2]",
    "no properties": b'{"body": "x"}',
    "properties that are no object": b'{"body": "x", "properties": 7}',
    "numbers that only Lua reads": b'{"body": 0x10, "properties": {"delivery_tag": "t1"}}',
    "deeper than anybody reads": b'{"body": "x", "properties": {}, "z": '
    + b"[" * 5000
    + b"]" * 5000
    + b"}",
    "no UTF-8": b'{"body": "\xff", "properties": {"delivery_tag": "t1"}}',
    "no base64": json.dumps(
        {"body": "x", "properties": {**GOOD_TAG, "body_encoding": "base64"}}
    ).encode(),
    "an unknown encoding": json.dumps(
        {"body": "x", "properties": {**GOOD_TAG, "body_encoding": "rot13"}}
    ).encode(),
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_message_that_nobody_can_read_is_set_aside_and_the_queue_goes_on(
    broker_url: str, broker_redis: redis.Redis, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    broker_redis.lpush("bulk", raw)
    publish(broker_url, "good")

    with inbox(broker_url) as consumer:
        [good] = consumer.await_messages(1)
        good.ack()

    assert broker_redis.lrange(MALFORMED_KEY, 0, -1) == [raw]
    assert broker_redis.ttl(MALFORMED_KEY) > 86_400
    assert broker_redis.exists("bulk", "unacked", "unacked_index") == 0
    assert [record.message for record in caplog.records] == ["message_malformed"]


def test_a_message_without_delivery_info_can_be_given_back(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    """As a producer in another language may leave it out."""
    broker_redis.lpush("bulk", b'{"body": "x", "properties": {"delivery_tag": "t1"}}')

    with inbox(broker_url) as consumer:
        consumer.await_messages(1)
        consumer.messages[0].reject(requeue=True)

    assert broker_redis.llen("bulk") == 1
    assert broker_redis.exists("unacked") == 0


def test_a_requeued_message_comes_again_marked_as_redelivered(broker_url: str) -> None:
    publish(broker_url, "x")
    with inbox(broker_url) as consumer:
        consumer.await_messages(1)
        consumer.messages[0].requeue()

        again = consumer.await_messages(2)[1]
        again.ack()

    assert again.payload == "x"
    assert again.delivery_info["redelivered"] is True


def test_a_message_whose_consumer_is_gone_comes_again_after_the_visibility_timeout(
    broker_url: str,
) -> None:
    publish(broker_url, "x")
    with inbox(broker_url) as dead:
        dead.await_messages(1)

    options = {"visibility_timeout": 1, "unacked_restore_throttle": 1}
    with inbox(broker_url, **options) as consumer:
        [message] = consumer.await_messages(1)
        message.ack()

    assert message.payload == "x"


def test_a_consumer_without_acknowledgements_leaves_no_record(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    publish(broker_url, "x")
    with inbox(broker_url, "other") as consumer:
        got: list[Message] = []
        Consumer(consumer.channel, [Queue("bulk")], no_ack=True, on_message=got.append).consume()

        wait_until(lambda: consumer.turn() or got)

    assert broker_redis.exists("unacked", "unacked_index") == 0


@pytest.mark.parametrize("error", [ValueError, KeyError, RecursionError, SystemError])
@pytest.mark.parametrize("no_ack", [False, True])
def test_a_message_that_its_consumer_cannot_take_is_set_aside_and_the_next_is_delivered(
    broker_url: str, broker_redis: redis.Redis, no_ack: bool, error: type[Exception]
) -> None:
    """kombu counts a KeyError among the errors of a lost connection."""
    taken: list[str] = []

    def take(message: Message) -> None:
        if message.payload == "bad":
            raise error(message.payload)
        taken.append(message.payload)

    publish(broker_url, "bad", "good")
    with inbox(broker_url, "other", prefetch=1) as consumer:
        Consumer(consumer.channel, [Queue("bulk")], no_ack=no_ack, on_message=take).consume()

        wait_until(lambda: consumer.turn() or taken)

        assert consumer.channel.qos.count_in_flight("bulk") == (0 if no_ack else 1)

    assert taken == ["good"]
    assert broker_redis.llen(MALFORMED_KEY) == 1
    assert broker_redis.hlen("unacked") == (0 if no_ack else 1)


def test_a_lost_connection_leaves_the_consumer_as_an_error_that_celery_expects(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    def fail(message: Message) -> None:
        raise RedisConnectionError(message.payload)

    publish(broker_url, "x")
    with inbox(broker_url, "other") as consumer:
        Consumer(consumer.channel, [Queue("bulk")], on_message=fail).consume()

        with pytest.raises(RedisConnectionError, match="x"):
            wait_until(consumer.turn)

    assert broker_redis.exists(MALFORMED_KEY) == 0


ODD_BUT_RESTORABLE = {
    "not JSON": b"not JSON",
    "no UTF-8": b'{"body": "\xff"}',
    "headers that are null": b'{"headers": null, "properties": {"delivery_info": "x"}}',
    "another service's queue": json.dumps(
        {"properties": {"delivery_info": {"exchange": "", "routing_key": "theirs"}}}
    ).encode(),
    "a type of kombu's": b'{"headers": {"__type__": "uuid", "__value__": "x"}, "properties": {}}',
    "a priority that is no number": b'{"properties": {"priority": "high"}}',
    "a number of 5,000 digits": b'{"properties": {}, "n": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("raw", ODD_BUT_RESTORABLE.values(), ids=ODD_BUT_RESTORABLE.keys())
def test_a_message_of_a_dead_worker_goes_back_to_its_queue_whatever_it_contains(
    broker_url: str, broker_redis: redis.Redis, raw: bytes
) -> None:
    with inbox(broker_url) as dead:
        dead.await_quiet()
        broker_redis.lpush("bulk", raw)
        dead.channel.empty_queues.clear()
        dead.channel._brpop_start()
        wait_until(lambda: broker_redis.hlen("unacked") == 1)
        [tag] = broker_redis.hkeys("unacked")

        dead.channel.qos.restore_by_tag(tag)

        assert broker_redis.llen("bulk") == 1
        assert broker_redis.exists("unacked", "unacked_index", "theirs") == 0


@pytest.mark.parametrize(
    "record",
    [
        b'[{"body": "x"}, "", "theirs"]',
        b'[{"body": "x"},"an exchange","theirs"]',
        b"no record",
        b"[1]",
    ],
)
def test_a_record_of_another_writer_leads_to_no_queue_but_ours(
    broker_url: str, broker_redis: redis.Redis, record: bytes
) -> None:
    """Older workers recorded the queue that the message named."""
    with inbox(broker_url) as consumer:
        consumer.await_quiet()
        broker_redis.hset("unacked", "t1", record)

        consumer.channel.qos.restore_by_tag("t1")

        assert (broker_redis.llen("bulk"), broker_redis.exists("theirs", "unacked")) == (1, 0)


def test_two_messages_with_one_tag_are_recorded_apart(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    """As a producer in another language pushes the same envelope twice."""
    for _ in range(2):
        broker_redis.lpush("bulk", b'{"body": "x", "properties": {"delivery_tag": "t1"}}')

    with inbox(broker_url) as consumer:
        consumer.await_messages(2)

        assert broker_redis.hlen("unacked") == 2


def test_a_claim_whose_answer_is_lost_does_not_overwrite_the_record_of_another(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    with inbox(broker_url) as consumer:
        consumer.turn()
        publish(broker_url, "first")
        consumer.channel.empty_queues.clear()
        consumer.channel._brpop_start()
        wait_until(lambda: broker_redis.hlen("unacked") == 1)
        consumer.channel.client.connection.disconnect()
        consumer.channel._in_poll = None
        publish(broker_url, "second")

        consumer.await_messages(1)

        assert broker_redis.hlen("unacked") == 2


def test_a_broker_that_forgot_the_script_is_told_it_again(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    with inbox(broker_url) as consumer:
        publish(broker_url, "before")
        consumer.await_messages(1)
        broker_redis.script_flush("SYNC")
        publish(broker_url, "after")

        assert bodies(consumer.await_messages(2)) == ["before", "after"]
        consumer.messages[0].ack()
        consumer.messages[1].ack()


@pytest.mark.usefixtures("never_asks_again")
def test_an_idle_connection_that_is_cut_is_renewed_and_nothing_is_restored(
    broker_url: str, broker_redis: redis.Redis
) -> None:
    publish(broker_url, "in work")
    with inbox(broker_url) as consumer:
        consumer.await_messages(1)
        consumer.await_quiet()

        broker_redis.client_kill_filter(_type="normal", skipme=True)
        publish(broker_url, "next")

        assert bodies(consumer.await_messages(2)) == ["in work", "next"]
        assert broker_redis.hlen("unacked") == 2
        consumer.await_quiet()
        publish(broker_url, "the new connection wakes too")
        consumer.await_messages(3)


def test_a_half_open_connection_is_given_up_and_the_message_comes(
    broker_url: str, clean_valkey: ValkeyServer
) -> None:
    with TcpProxy(clean_valkey.port) as proxy:
        through = f"redis://127.0.0.1:{proxy.port}/0"
        with inbox(through, health_check_interval=1, socket_timeout=1) as consumer:
            consumer.await_quiet()
            proxy.freeze()
            publish(broker_url, "x")

            wait_until(lambda: renewed(consumer))

            assert bodies(consumer.messages) == ["x"]
            proxy.thaw()


def renewed(consumer: Inbox) -> bool:
    """Turn as a worker does: a lost connection is an error that it expects."""
    with suppress(consumer.connection.connection_errors):
        consumer.turn()
    return bool(consumer.messages)


def test_a_full_broker_loses_nothing_that_it_accepted(own_valkey: ValkeyServer) -> None:
    with redis.Redis.from_url(own_valkey.url) as client, inbox(own_valkey.url) as consumer:
        publish(own_valkey.url, *["x" * 1000] * 50)
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)

        with pytest.raises(redis.exceptions.OutOfMemoryError):
            publish(own_valkey.url, "refused")
        consumer.await_messages(50)

        assert client.hlen("unacked") == 50


@pytest.mark.parametrize("refused", ["tracking", "caching"])
def test_a_broker_that_refuses_tracking_is_refused_with_the_way_out(
    own_valkey: ValkeyServer, refused: str
) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        client.acl_setuser(
            "worker",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            channels=["*"],
            commands=["+@all", f"-client|{refused}"],
        )
    url = own_valkey.url.replace("redis://", "redis://worker:secret@")

    with (
        inbox(url) as consumer,
        pytest.raises(AtomicClaimError, match=r"client\|tracking.*LABELYARD_ATOMIC_CLAIM=0"),
    ):
        consumer.turn()


def test_acknowledging_after_the_connection_is_closed_is_an_error_that_celery_expects(
    broker_url: str,
) -> None:
    """Stock kombu raises AttributeError, and the worker exits."""
    publish(broker_url, "x")
    with inbox(broker_url) as consumer:
        [message] = consumer.await_messages(1)
    consumer.channel._pool = None

    with pytest.raises(RedisConnectionError, match="closed"):
        message.ack()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/0", "labelyard-redis://h:1/0"),
        ("rediss://u:p@h:1/0?ssl_cert_reqs=required", None),
        ("redis+socket:///run/redis.sock?virtual_host=1", None),
        ("redis://a;redis://b", "labelyard-redis://a;labelyard-redis://b"),
        ("labelyard-redis://h", "labelyard-redis://h"),
    ],
)
def test_addresses_of_redis_become_ours_and_stay_so(url: str, expected: str | None) -> None:
    ours = to_atomic_url(url)

    assert ours == (expected or f"labelyard-{url}")
    assert to_atomic_url(ours) == ours


@pytest.mark.parametrize("url", ["sentinel://h:26379", "amqp://h", "redis://a;sentinel://b"])
def test_an_address_that_is_not_redis_is_refused_with_the_way_out(url: str) -> None:
    with pytest.raises(AtomicClaimError, match="LABELYARD_ATOMIC_CLAIM=0"):
        to_atomic_url(url)


def test_tls_checks_certificates_unless_told_otherwise() -> None:
    assert Connection("labelyard-rediss://h").transport.client.ssl["ssl_cert_reqs"]
    loose = Connection("labelyard-rediss://h", ssl={"ssl_cert_reqs": None})
    assert loose.transport.client.ssl == {"ssl_cert_reqs": None}


def test_a_socket_file_works(own_valkey: ValkeyServer, tmp_path: Path) -> None:
    path = tmp_path / "valkey.sock"
    with ValkeyServer(tmp_path / "second", options={"unixsocket": str(path)}):
        publish(f"redis+socket://{path}", "x")

        with inbox(f"redis+socket://{path}") as consumer:
            assert bodies(consumer.await_messages(1)) == ["x"]


@pytest.mark.timeout(120)
def test_eight_kills_of_a_busy_worker_lose_nothing(
    own_valkey: ValkeyServer, tmp_path: Path
) -> None:
    """Each job leaves a line when it has ended; after the kills every job has one."""
    sent = 0
    with redis.Redis.from_url(own_valkey.url) as client:
        for _ in range(8):
            sent = send_marks(own_valkey.url, first=sent, count=1500)
            worker = Worker(own_valkey.url, tmp_path, concurrency=8)
            wait_until(worker.is_ready)
            before = len(ended(tmp_path))
            wait_until(lambda done=before: len(ended(tmp_path)) > done + 300)
            worker.kill()

        worker = Worker(own_valkey.url, tmp_path, concurrency=8)
        wait_until(lambda: client.exists("bulk", "unacked") == 0, within_s=60)
        worker.kill()

    assert {int(number) for number in ended(tmp_path)} == set(range(sent))
