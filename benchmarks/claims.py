"""Claims of messages by the broker's script alone: rates beside a plain claim, and tenants' shares."""

import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis

from labelyard.broker_redis import envelope
from labelyard.messages import new_job_id
from labelyard.outgoing import Outgoing
from labelyard.queues import Queue
from labelyard.tenant_lines.keys import PRIORITY_SUFFIXES, BrokerKeys
from labelyard.tenant_lines.scripts import SCRIPTS
from labelyard.testing import sample_job

KEYS: Final = BrokerKeys("claims")
# The claim before there were fair shares: first in, first out, each list a key of its own.
PLAIN_CLAIM: Final = """
for i = 3, #KEYS do
  local raw = redis.call('RPOP', KEYS[i])
  if raw then
    local queue = ARGV[i - 1]
    redis.call('HSET', KEYS[1], ARGV[1], '[' .. raw .. ',"",' .. cjson.encode(queue) .. ']')
    local clock = redis.call('TIME')
    redis.call('ZADD', KEYS[2], clock[1] .. '.' .. string.format('%06d', clock[2]), ARGV[1])
    return {i - 3, raw}
  end
end
return false
"""
ZIPF: Final = 1.1


class Script(NamedTuple):
    """A claim script with its arguments but for the delivery tag."""

    text: str
    keys: list[str]
    arguments: list[str | int]


def plain_script() -> Script:
    """Return the claim before there were fair shares."""
    lists = [(queue, key) for queue in Queue for key in KEYS.lists(queue)]
    keys = [KEYS.unacked, KEYS.unacked_index, *(key for _, key in lists)]
    return Script(PLAIN_CLAIM, keys, [KEYS.queue(queue) for queue, _ in lists])


def fair_script() -> Script:
    """Return the claim that workers send."""
    queues = [KEYS.queue(queue) for queue in Queue]
    keys = [KEYS.unacked, KEYS.unacked_index, KEYS.weights, KEYS.sorted, *queues]
    return Script(
        SCRIPTS["claim"], keys, [1, "0" * len(queues), *map(json.dumps, queues), *PRIORITY_SUFFIXES]
    )


class Claimant:
    """Producer and claimant of one database, which it empties."""

    def __init__(self, client: redis.Redis, script: Script) -> None:
        self._client = client
        self._script = script
        self._sha: Any = client.script_load(script.text)
        self._tags = 0
        client.flushdb()

    def push(self, tenants: Sequence[str]) -> None:
        """Push a job's message for each name, in this order."""
        job = sample_job()
        with self._client.pipeline(transaction=False) as pipeline:
            for tenant in tenants:
                message = Outgoing(
                    new_job_id(), job.model_dump_json(), Queue.INTERACTIVE, 1.5, tenant=tenant
                )
                key = KEYS.queue(Queue.INTERACTIVE)
                pipeline.lpush(key, envelope(message, key=key))
            pipeline.execute()

    def claim(self) -> str:
        """Claim a message; return its tenant."""
        self._tags += 1
        script = self._script
        reply: Any = self._client.evalsha(
            self._sha, len(script.keys), *script.keys, f"tag.{self._tags}", *script.arguments
        )
        return str(json.loads(reply[1])["headers"]["labelyard_tenant"])

    def time_claims(self, count: int) -> list[float]:
        """Return the seconds of each of *count* claims."""
        seconds = []
        script = self._script
        for _ in range(count):
            self._tags += 1
            tag, started_at = f"tag.{self._tags}", time.perf_counter()
            self._client.evalsha(self._sha, len(script.keys), *script.keys, tag, *script.arguments)
            seconds.append(time.perf_counter() - started_at)
        return seconds

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Write the tenants' weights."""
        self._client.hset(KEYS.weights, mapping=dict(weights.items()))


def compare_rates(
    connect: Callable[[int], "redis.Redis"], *, claims: int, tenants: int
) -> dict[str, Any]:
    """Compare claims in turns of 100 with the plain claim, over a backlog that both begin with.

    Args:
        connect: Opens a client of a database.
        tenants: Number of tenants in the backlog.
    """
    sides = {
        "plain": Claimant(connect(0), plain_script()),
        "fair": Claimant(connect(1), fair_script()),
    }
    names = [f"t{number % tenants}" for number in range(claims)]
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    ratios: list[float] = []
    for side in sides.values():
        side.push(names)
    for turn in range(claims // 100):
        took_s = {}
        for name in sorted(sides, reverse=bool(turn % 2)):
            one = sides[name].time_claims(100)
            seconds[name] += one
            took_s[name] = sum(one)
        ratios.append(took_s["plain"] / took_s["fair"])
    found = {
        name: {
            "claims_per_s": round(len(one) / sum(one)),
            "median_us": round(1e6 * statistics.median(one), 1),
            "p99_us": round(1e6 * sorted(one)[int(0.99 * len(one))], 1),
        }
        for name, one in seconds.items()
    }
    return {
        "claims": claims,
        "tenants": tenants,
        **found,
        # Of all claims: every 16th one of the fair script looks at new messages and takes longer,
        # so single claims must not be left out. The median turn is free of other processes' time.
        "ratio": round(found["fair"]["claims_per_s"] / found["plain"]["claims_per_s"], 3),
        "ratio_of_median_turn": round(statistics.median(ratios), 3),
    }


def claims_until_served(client: "redis.Redis", *, flood: int) -> int:
    """Count the claims until a lone message behind a flood of another tenant is served."""
    claimant = Claimant(client, fair_script())
    claimant.push(["a"] * flood + ["b"])
    return next(number for number in range(1, flood + 2) if claimant.claim() == "b")


def measure_weights(client: "redis.Redis", *, claims: int) -> dict[str, int]:
    """Count the claims of two tenants with weights 3 to 1 that both have a backlog."""
    claimant = Claimant(client, fair_script())
    claimant.weigh({"a": 3, "b": 1})
    claimant.push(["a", "b"] * claims)
    return dict(Counter(claimant.claim() for _ in range(claims)))


def measure_zipf(client: "redis.Redis", *, tenants: int, messages: int) -> dict[str, Any]:
    """Claim half of a backlog of many tenants, and compare each with its max-min fair share."""
    numbers = random.Random(0)
    weights = [1 / rank**ZIPF for rank in range(1, tenants + 1)]
    names = [f"t{number}" for number in range(tenants)]
    queued = numbers.choices(names, weights, k=messages)
    claimant = Claimant(client, fair_script())
    claimant.push(queued)
    got = Counter(claimant.claim() for _ in range(messages // 2))
    fair = max_min_shares(Counter(queued), messages // 2)
    off = {name: abs(got[name] - share) for name, share in fair.items()}
    return {
        "tenants": len(fair),
        "claims": messages // 2,
        "within_10_percent_or_one_message": sum(
            difference <= max(1.0, 0.1 * fair[name]) for name, difference in off.items()
        ),
        "worst_difference_messages": round(max(off.values()), 2),
    }


def max_min_shares(demands: Mapping[str, int], total: int) -> dict[str, float]:
    """Share *total* so that nobody gets more than it asks for, and the others the same each."""
    shares: dict[str, float] = {}
    left, waiting = float(total), sorted(demands, key=lambda name: demands[name])
    for place, name in enumerate(waiting):
        shares[name] = min(float(demands[name]), left / (len(waiting) - place))
        left -= shares[name]
    return shares
