"""Claims share a queue among tenants: any order of pushes, claims and returns loses nothing."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.claiming import KEYS, Claims, tenant_of

SHARED_SERVER = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TENANTS = st.sampled_from(["a", "b", "c", "shop-eu", "x.y_z"])
WEIGHTS = st.dictionaries(TENANTS, st.sampled_from([0.01, 0.5, 1.0, 3.0, 1000.0]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), TENANTS, st.integers(1, 64)),
        st.tuples(st.just("push many"), TENANTS, st.integers(1, 40)),
        st.tuples(st.just("claim"), st.integers(1, 30)),
        st.tuples(st.just("return"), st.integers(0, 99), st.booleans()),
        st.tuples(st.just("weights"), WEIGHTS),
    ),
    max_size=40,
)


@pytest.fixture
def claims(broker_redis: redis.Redis) -> Iterator[Claims]:
    yield Claims(broker_redis)
    broker_redis.flushdb()


def start_anew(claims: Claims) -> None:
    claims.client.flushdb()
    claims.held.clear()


@given(steps=STEPS)
@SHARED_SERVER
def test_nothing_is_lost_or_claimed_twice_whatever_happens(claims: Claims, steps: list) -> None:
    start_anew(claims)
    pushed = 0
    for step, *arguments in steps:
        match step, arguments:
            case "push", [tenant, images]:
                claims.push(pushed, tenant=tenant, images=images)
                pushed += 1
            case "push many", [tenant, count]:
                claims.push_many(*[{"tenant": tenant}] * count, first=pushed)
                pushed += count
            case "claim", [count]:
                for _ in range(count):
                    claims.claim()
            case "return", [choice, is_next] if claims.held:
                tag = sorted(claims.held)[choice % len(claims.held)]
                claims.restore(tag, is_next=is_next)
            case "weights", [weights]:
                claims.client.delete(KEYS.weights)
                if weights:
                    claims.client.hset(KEYS.weights, mapping=weights)

    claims.drain()

    assert claims.client.hlen(KEYS.unacked) == claims.client.zcard(KEYS.unacked_index) == pushed
    claims.acknowledge_all()
    claims.client.delete(KEYS.weights)
    assert claims.client.keys("*") == []


@given(
    shares=st.lists(st.tuples(TENANTS, st.integers(1, 64)), max_size=120),
    claimed_between=st.integers(0, 3),
)
@SHARED_SERVER
def test_the_messages_of_a_tenant_come_in_their_order(
    claims: Claims, shares: list[tuple[str, int]], claimed_between: int
) -> None:
    start_anew(claims)
    got = []
    for number, (tenant, images) in enumerate(shares):
        claims.push(number, tenant=tenant, images=images)
        got += [claims.claim() for _ in range(claimed_between)]
    got += claims.drain()

    by_tenant = defaultdict(list)
    for one in filter(None, got):
        by_tenant[tenant_of(one)].append(one["n"])
    assert sum(map(len, by_tenant.values())) == len(shares)
    assert all(numbers == sorted(numbers) for numbers in by_tenant.values())


@given(
    tenants=st.dictionaries(
        TENANTS,
        st.tuples(st.sampled_from([0.5, 1.0, 3.0, 7.0]), st.lists(st.integers(1, 8), min_size=1)),
        min_size=2,
    ),
    order=st.randoms(use_true_random=False),
)
@SHARED_SERVER
def test_shares_differ_by_one_message_of_each_at_most(
    claims: Claims, tenants: dict[str, tuple[float, list[int]]], order: object
) -> None:
    """While two tenants have messages queued, what each got by its weight stays together."""
    start_anew(claims)
    claims.client.hset(KEYS.weights, mapping={name: one[0] for name, one in tenants.items()})
    shares = [
        {"tenant": name, "images": number}
        for name, (_, images) in tenants.items()
        for number in images
    ]
    order.shuffle(shares)  # type: ignore[attr-defined]
    claims.push_many(*shares)
    left = {name: list(images) for name, (_, images) in tenants.items()}
    got: Counter[str] = Counter()
    cost = {name: 8 / weight for name, (weight, _) in tenants.items()}

    while (one := claims.claim()) is not None:
        tenant = tenant_of(one)
        waiting = [name for name, images in left.items() if images]
        left[tenant].pop()
        got[tenant] += one["headers"]["labelyard_images"]
        for first in waiting:
            for second in waiting:
                apart = got[first] / tenants[first][0] - got[second] / tenants[second][0]
                assert abs(apart) <= cost[first] + cost[second] + 1e-9
