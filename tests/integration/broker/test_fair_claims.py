"""Fair shares of the broker: turns, weights, bounds, and everybody who reads a sorted queue."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from labelyard.publisher import Publisher
from labelyard.queues import Queue
from labelyard.settings import ClientSettings
from labelyard.tenant_lines.counts import count_messages
from labelyard_worker.broker import claim_gate
from labelyard_worker.broker.channel import RedisChannel
from labelyard_worker.broker.line_merge import merge_lines
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.maintenance.broker_view import QueueSnapshot, RedisBrokerView
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.waiting_jobs import WAITING_JOBS
from tests.support.claiming import KEYS, NAMESPACE, Claims, message_of, tenant_of
from tests.support.inbox import bodies, inbox, publish
from tests.support.waiting import wait_until

A, B = {"tenant": "a"}, {"tenant": "b"}


@pytest.fixture
def claims(broker_redis: redis.Redis) -> Iterator[Claims]:
    claims = Claims(broker_redis)
    yield claims
    claims.drain()
    claims.acknowledge_all()
    broker_redis.delete(KEYS.weights)
    assert broker_redis.keys("*") == []


@pytest.fixture
def view(broker_url: str) -> Iterator[RedisBrokerView]:
    view = RedisBrokerView(WorkerSettings(broker_url=broker_url, namespace=NAMESPACE))
    yield view
    view.close()


def claimed_tenants(claims: Claims, count: int) -> list[Any]:
    return [tenant_of(one) for one in (claims.claim() for _ in range(count)) if one]


def test_one_message_behind_a_flood_is_claimed_soon(claims: Claims) -> None:
    claims.push_many(*[A] * 5000, B)

    got = claimed_tenants(claims, 5001)

    assert got.index("b") <= 2 * (5000 // 256 + 1) + 16
    assert Counter(got) == {"a": 5000, "b": 1}


def test_one_message_that_joins_a_flood_that_is_known_is_claimed_soon(claims: Claims) -> None:
    claims.push_many(*[A] * 1000)
    claimed_tenants(claims, 100)

    claims.push_many(B)
    got = claimed_tenants(claims, 100)

    assert got.index("b") <= 16 + 1000 // 256 + 1


def test_a_flood_of_one_tenant_moves_no_message(claims: Claims) -> None:
    claims.push_many(*[A] * 500)
    claims.client.config_resetstat()

    claimed_tenants(claims, 400)

    assert claims.client.keys("*:line:*") == []
    assert "cmdstat_lpush" not in claims.client.info("commandstats")


def test_weights_take_effect_at_the_next_claim(claims: Claims, broker_url: str) -> None:
    publisher = Publisher(ClientSettings(broker_url=broker_url, namespace=NAMESPACE))
    claims.push_many(*[A, B] * 400)
    even = Counter(claimed_tenants(claims, 100))

    publisher.write_weights({"a": 3})
    threefold = Counter(claimed_tenants(claims, 100))
    publisher.write_weights({"*": 4, "a": 1})
    fourth = Counter(claimed_tenants(claims, 100))

    publisher.close()
    assert even["a"] == pytest.approx(50, abs=2)
    assert threefold["a"] == pytest.approx(75, abs=2)
    assert fourth["a"] == pytest.approx(20, abs=2)


def test_a_tenant_is_charged_for_images(claims: Claims) -> None:
    claims.push_many(*[{"tenant": "a", "images": 4}, *[B] * 4] * 60)

    got = Counter(claimed_tenants(claims, 150))

    assert got["b"] == pytest.approx(4 * got["a"], abs=8)


def test_a_tenant_that_queues_one_message_at_a_time_is_charged_too(claims: Claims) -> None:
    claims.push_many(*[A] * 300, B)
    got = []
    for _ in range(200):
        got += claimed_tenants(claims, 1)
        if got[-1] == "b":
            claims.push_many(B)

    assert Counter(got[-100:])["b"] == pytest.approx(50, abs=2)


def test_a_shard_of_a_run_is_charged_for_all_its_images(claims: Claims) -> None:
    shards, jobs = {"tenant": "a", "images": 1000}, {"tenant": "b", "images": 50}
    claims.push_many(*[shards] * 10, *[jobs] * 200)

    got = claimed_tenants(claims, 63)

    assert Counter(got) == {"a": 3, "b": 60}


MALFORMED: dict[str, Any] = {
    "no text": [1],
    "10 kB": "x" * 10_000,
    "control characters": "\x00\x1b\n",
    "another line": "~1",
    "empty": "",
    "a key": "a:line:b",
}


@pytest.mark.parametrize("tenant", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("images", [None, "many", 1e99, -5, 10**30, 0.5])
def test_a_malformed_share_is_the_default_tenants(claims: Claims, tenant: Any, images: Any) -> None:
    claims.push_many(*[{"tenant": tenant, "images": images}, A] * 8)

    got = claimed_tenants(claims, 8)

    assert claims.client.zrange(KEYS.turns("bulk"), 0, -1) in (
        [b"", b"a", b"default"],
        [b"", b"default", b"a"],
    )
    assert got.count("a") == 4


def test_odd_bytes_are_claimed_too(claims: Claims) -> None:
    for raw in (b"{}", b"[1]", b'"x"', b"7"):
        claims.client.lpush(KEYS.queue("bulk"), raw, message_of(1, **A))

    held = [claims.client.eval(*_raw_claim(tag)) for tag in range(8)]

    assert {one[1] for one in held} == {b"{}", b"[1]", b'"x"', b"7", message_of(1, **A)}


def _raw_claim(tag: int) -> tuple[Any, ...]:
    from labelyard.tenant_lines.scripts import SCRIPTS

    keys = (KEYS.unacked, KEYS.unacked_index, KEYS.weights, KEYS.sorted, KEYS.queue("bulk"))
    return (SCRIPTS["claim"], len(keys), *keys, f"raw-{tag}", 1, "0", '"bulk"', "")


def test_tenants_beyond_the_bound_share_lines(claims: Claims) -> None:
    shares = [{"tenant": f"t{number}"} for number in range(2300)]
    claims.push_many(*shares)

    claimed_tenants(claims, 20)
    wait_until(lambda: claimed_tenants(claims, 1) and claims.client.llen(KEYS.queue("bulk")) == 0)

    assert claims.client.zcard(KEYS.turns("bulk")) <= 2000 + 64 + 1
    assert len(claims.client.keys("*:line:~*")) > 32


def test_a_thousand_tenants_take_turns(claims: Claims) -> None:
    claims.push_many(*[{"tenant": f"t{number % 1000}"} for number in range(3000)])
    wait_until(lambda: claimed_tenants(claims, 1) and claims.client.llen(KEYS.queue("bulk")) == 0)
    before = Counter(tenant_of(message) for message in _held(claims))

    claimed_tenants(claims, 2000 - before.total())

    got = Counter(tenant_of(message) for message in _held(claims))
    assert max(got.values()) - min(got.values()) <= 1


def _held(claims: Claims) -> list[dict[str, Any]]:
    import json

    return [json.loads(raw) for raw in claims.held.values()]


def test_a_returned_message_is_the_next_of_its_tenant(claims: Claims) -> None:
    claims.push_many(*[A, B] * 20)
    first = [claims.claim() for _ in range(6)]
    [returned] = [one for one in first if one and one["n"] == 2]

    claims.restore(returned["tag"])
    again = [one["n"] for one in claims.drain() if tenant_of(one) == "a"]

    assert again == [2, *range(6, 40, 2)]


def test_a_message_that_is_put_off_is_the_last_of_its_tenant(claims: Claims) -> None:
    claims.push_many(*[A, B] * 5)
    first = claims.claim()
    assert first is not None

    claims.restore(first["tag"], is_next=False)

    assert [one["n"] for one in claims.drain() if tenant_of(one) == "a"] == [2, 4, 6, 8, 0]


def test_queues_and_priorities_keep_their_order_whoever_waits(claims: Claims) -> None:
    claims.queues = ("interactive", "bulk")
    claims.push_many(*[A, B] * 10, queue="bulk")
    for suffix in ("\x06\x169", ""):
        for headers in (A, B) * 5:
            claims.client.lpush(
                KEYS.queue("interactive") + suffix, message_of(0, **headers, at=suffix)
            )

    got = claims.drain()

    assert [one["queue"] for one in got] == ["interactive"] * 20 + ["bulk"] * 20
    assert [one["headers"].get("labelyard_at") for one in got[:20]] == [""] * 10 + [
        "\x06\x169"
    ] * 10


def test_lengths_count_lists_and_lines(claims: Claims, view: RedisBrokerView) -> None:
    claims.push_many(*[A, B] * 300, queue="bulk")
    claimed_tenants(claims, 20)

    assert count_messages(claims.client, KEYS) == {**dict.fromkeys(Queue, 0), "bulk": 580}
    assert view.count_queued() == 580


def test_the_oldest_message_of_any_line_is_what_the_reconciler_sees(
    claims: Claims, view: RedisBrokerView
) -> None:
    shares = [
        {"tenant": f"t{number % 40}", "published_at": 1000.0 + number} for number in range(400)
    ]
    claims.push_many(*shares)
    claimed_tenants(claims, 10)
    waiting = {
        raw for key in claims.client.keys("*:line:*") for raw in claims.client.lrange(key, 0, -1)
    }
    oldest = min(float(raw.split(b'published_at": ')[1].split(b"}")[0]) for raw in waiting)

    queue = view.take_snapshot().queues["bulk"]

    assert queue == QueueSnapshot(is_empty=False, next_published_at=oldest)
    claims.drain()
    assert view.take_snapshot().queues["bulk"] == QueueSnapshot(is_empty=True)


@pytest.mark.parametrize("at", [None, "soon", float("inf"), [1]])
def test_a_message_without_a_publishing_time_makes_no_job_lost(
    claims: Claims, view: RedisBrokerView, at: Any
) -> None:
    claims.push_many({**A, "published_at": at}, {**B, "published_at": 5.0}, B)
    claimed_tenants(claims, 1)
    claims.push_many({"tenant": "c", "published_at": at})

    assert view.take_snapshot().queues["bulk"] == QueueSnapshot(False, 0.0)


def test_a_stock_worker_finds_every_message_in_its_list_again(
    claims: Claims, broker_url: str
) -> None:
    claims.push_many(*[A, B] * 800)
    claimed_tenants(claims, 40)
    settings = WorkerSettings(broker_url=broker_url, namespace=NAMESPACE, atomic_claim=False)

    moved = merge_lines(settings)

    raw = claims.client.lrange(KEYS.queue("bulk"), 0, -1)
    assert moved > 0
    assert len(raw) == 1600 - 40
    assert claims.client.keys("*:line:*") == claims.client.keys("*:turns") == []
    assert merge_lines(settings) == 0
    numbers = [one["n"] for one in claims.drain() if tenant_of(one) == "a"]
    assert numbers == sorted(numbers)


def test_a_purge_removes_the_lines(broker_url: str, broker_redis: redis.Redis) -> None:
    with inbox(broker_url, prefetch=3) as consumer:
        for headers in (A, B) * 20:
            broker_redis.lpush("bulk", message_of(0, **headers))
        consumer.await_messages(3)
        queued = consumer.channel._size("bulk")

        purged = consumer.channel.queue_purge("bulk")

        assert queued == purged == 37
        assert broker_redis.keys("bulk*") == []
        for message in consumer.messages:
            message.ack()


def test_an_idle_consumer_wakes_for_a_message_that_is_returned(
    broker_url: str, broker_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisChannel, "fallback_s", 600.0)
    with inbox(broker_url, prefetch=2) as dead, inbox(broker_url) as idle:
        for headers in (A, B):
            broker_redis.lpush("bulk", message_of(0, **headers, id="x"))
        dead.await_messages(2)
        idle.await_quiet()

        for tag in broker_redis.hkeys("unacked"):
            dead.channel.qos.restore_by_tag(tag)
        idle.await_messages(2)

        assert broker_redis.hlen("unacked") == 2


def test_a_consumer_claims_one_job_after_the_other_while_tenants_take_turns_and_waiting_ones_do_not_count(
    broker_url: str, broker_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_gate, "OPEN_AFTER_S", 600.0)
    for headers in (A, B) * 10:
        broker_redis.lpush("bulk", message_of(0, **headers))
    with inbox(broker_url) as consumer:

        def received_after_three_turns() -> int:
            for _ in range(3):
                consumer.turn()
            return len(consumer.messages)

        consumer.await_messages(2)  # the first claim finds no turns yet
        consumer.messages[0].ack()
        assert received_after_three_turns() == 2

        consumer.messages[1].ack()
        assert received_after_three_turns() == 3
        with WAITING_JOBS.waiting():
            assert received_after_three_turns() == 4
        assert received_after_three_turns() == 4


def test_a_consumer_of_one_tenants_messages_claims_all_that_it_may(
    broker_url: str, broker_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_gate, "OPEN_AFTER_S", 600.0)
    for _ in range(10):
        broker_redis.lpush("bulk", message_of(0, **A))

    with inbox(broker_url) as consumer:
        assert len(consumer.await_messages(10)) == 10


def test_a_busy_consumer_is_not_told_of_other_claims(
    broker_url: str, broker_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each push costs the event loop a read."""
    monkeypatch.setattr(claim_gate, "COMPUTING_JOBS", 1000)
    pushes: list[int] = []
    read = RedisChannel.read_push
    monkeypatch.setattr(RedisChannel, "read_push", lambda self: (pushes.append(1), read(self)))
    with inbox(broker_url) as first, inbox(broker_url) as second:
        for headers in (A, B) * 100:
            broker_redis.lpush("bulk", message_of(0, **headers))
        while len(first.messages) + len(second.messages) < 150:
            first.turn()
            second.turn()

        assert len(pushes) <= 4


def test_a_full_broker_sorts_and_loses_nothing(own_valkey: ValkeyServer) -> None:
    with redis.Redis.from_url(own_valkey.url) as client:
        claims = Claims(client)
        claims.push_many(*[A, B] * 400)
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)

        got = Counter(tenant_of(one) for one in claims.drain())

        assert got == {"a": 400, "b": 400}
        assert client.hlen(KEYS.unacked) == 800


def test_a_full_worker_leaves_shards_and_claims_the_jobs_among_them(claims: Claims) -> None:
    shard = {"tenant": "a", "images": 1000}
    claims.push_many(shard, A, shard, {"tenant": "a", "images": 64})

    full = [claims.claim(is_full=True) for _ in range(3)]
    others = [claims.claim() for _ in range(3)]

    assert [one and one["n"] for one in full] == [1, 3, None]
    assert [one and one["n"] for one in others] == [0, 2, None]


def test_a_full_worker_passes_over_the_tenants_that_have_only_shards(claims: Claims) -> None:
    shards = [{"tenant": tenant, "images": 1000} for tenant in "aabb"]
    claims.push_many(*shards, {"tenant": "c"}, {"tenant": "c"})
    first = claims.claim()  # the list is sorted by now

    full = [claims.claim(is_full=True) for _ in range(3)]
    others = [claims.claim() for _ in range(4)]

    assert first is not None
    assert first["n"] == 0
    assert [one and tenant_of(one) for one in full] == ["c", "c", None]
    assert sorted(one["n"] for one in others if one) == [1, 2, 3]
    assert claims.client.keys("*:turns") == []


def test_a_tenant_passed_over_by_full_workers_keeps_its_turn(claims: Claims) -> None:
    claims.push_many(B, *[{"tenant": "a", "images": 1000}] * 2, *[B] * 100)
    claims.claim()
    full = [claims.claim(is_full=True) for _ in range(50)]

    claims.push(500, tenant="new")
    others = claimed_tenants(claims, 3)

    assert {tenant_of(one) for one in full if one} == {"b"}
    assert others[0] == "a"
    assert others[1] == "new"  # it begins at the clock, which is where the first one stands


def test_a_job_behind_the_shards_of_another_tenant_has_the_list_sorted(claims: Claims) -> None:
    claims.push_many(A, *[{"tenant": "a", "images": 1000}] * 3)
    claims.claim()  # the shards are known to be of one tenant
    claims.push_many(*[B] * 3, first=10)

    full = claims.claim(is_full=True)
    others = claimed_tenants(claims, 5)

    assert full is not None
    assert full["n"] == 10
    assert others == ["a", "b", "b", "a", "a"]


def test_a_worker_runs_so_many_shards_at_once_and_jobs_beside_them(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RedisChannel, "fallback_s", 600.0)  # a wake-up is needed
    options = {"shard_limits": {"bulk": 2}}
    publish(broker_url, *["shard"] * 5, headers={"labelyard_images": 500})
    publish(broker_url, "job")
    with inbox(broker_url, "bulk", **options) as worker:
        worker.await_messages(3)
        worker.await_quiet()
        received = bodies(worker.messages)
        worker.messages[0].ack()
        worker.await_messages(4)
        worker.await_quiet()
        after = bodies(worker.messages)
        with inbox(broker_url, "bulk") as other:
            rest = bodies(other.await_messages(2))
            for message in (*worker.messages[1:], *other.messages):
                message.ack()

    assert received == ["shard", "shard", "job"]
    assert after == ["shard", "shard", "job", "shard"]
    assert rest == ["shard", "shard"]
