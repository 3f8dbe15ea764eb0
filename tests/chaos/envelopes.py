"""Push mutated envelopes at a real worker: ``python -m tests.chaos.envelopes --count 2000``.

After each handful a good job must succeed. Ends with 1 if a worker exited or froze, if a good job
was late, or if a message left neither a record nor an entry among those that were set aside.
"""

import argparse
import base64
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import amqp  # type: ignore[import-untyped]
import redis

from labelyard.client import Client
from labelyard.errors import ResultTimeoutError
from labelyard.ledger import connect
from labelyard.ledger.set_aside import SetAside
from tests.chaos.brokers import BROKERS, KEYS
from tests.chaos.environment import Environment, start_environment
from tests.support.envelopes import job_of, mutate, mutate_bytes
from tests.support.rabbitmq import NOT_INSTALLED, is_installed
from tests.support.variables import isolate
from tests.support.waiting import wait_until

LABELS: Final = ("a cat", "a dog")
QUEUES: Final = ("labelyard.interactive", "labelyard.bulk", "labelyard.control")
AT_ONCE: Final = 20
GOOD_WITHIN_S: Final = 5.0
FROZEN_S: Final = 1.0
JOB_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# What an AMQP client can put into a message and py-amqp cannot decode, or into a number.
UNDECODABLE: Final[tuple[dict[str, Any], ...]] = (
    {"content_type": b"\xff\xfe"},
    {"correlation_id": b"\xff"},
    {"content_encoding": b"\xc3"},
    {"content_encoding": "idna"},
    {"content_encoding": "zlib"},
)


@dataclass
class Report:
    """Report of a run.

    Attributes:
        vanished: Messages of which nothing is left.
        good_s: Seconds that each good job took.
    """

    pushed: int = 0
    vanished: list[bytes] = field(default_factory=list)
    good_s: list[float] = field(default_factory=list)
    late: int = 0
    exits: int = 0
    set_aside: int = 0

    @property
    def frozen(self) -> int:
        """Count the good jobs that something held up."""
        return sum(seconds > FROZEN_S for seconds in self.good_s)

    @property
    def is_clean(self) -> bool:
        """Return whether every promise was kept."""
        return not (self.vanished or self.late or self.exits or self.frozen)

    def line(self) -> str:
        """Write the figures."""
        return (
            f"{self.pushed} mutated envelopes: {self.exits} worker exits, {self.frozen} freezes, "
            f"{len(self.vanished)} vanished, {self.set_aside} set aside; {len(self.good_s)} good "
            f"jobs, {self.late} late, slowest {max(self.good_s, default=0):.2f} s"
        )


class RedisPusher:
    """Pushes envelopes into lists on Redis, and damages their bytes as well."""

    def __init__(self, environment: Environment) -> None:
        self._client = redis.Redis.from_url(environment.broker.url)

    def push(self, envelope: dict[str, Any], queue: str, rng: random.Random) -> bytes:
        """Push a message; returns its bytes."""
        raw = json.dumps(envelope).encode()
        if rng.random() < 0.25:
            raw = mutate_bytes(raw, rng)
        self._client.lpush(queue, raw)
        return raw

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class AmqpPusher:
    """Publishes envelopes to RabbitMQ, with properties that cannot be decoded as well."""

    def __init__(self, environment: Environment) -> None:
        self._host = environment.broker.url.rpartition("@")[2].strip("/")
        self._connect()

    def _connect(self) -> None:
        self._connection = amqp.Connection(host=self._host, confirm_publish=True)
        self._connection.connect()
        self._channel = self._connection.channel()

    def push(self, envelope: dict[str, Any], queue: str, rng: random.Random) -> bytes:
        """Publish a message; returns its body."""
        body = envelope.get("body")
        body = body if isinstance(body, str) else json.dumps(body)
        raw = body.encode("utf-8", "surrogatepass")
        if rng.random() < 0.2 and raw:
            raw = mutate_bytes(raw, rng)
        properties = self._properties(envelope)
        if rng.random() < 0.2:
            properties |= rng.choice(UNDECODABLE)
        for attempt in (properties, {"content_type": "application/json"}):
            try:
                self._channel.basic_publish(
                    amqp.Message(raw, **attempt), routing_key=queue, confirm_timeout=5
                )
                break
            except Exception:  # noqa: BLE001 - AMQP cannot write it, or RabbitMQ closes for it
                self._connection.collect()
                self._connect()
        return raw

    def _properties(self, envelope: dict[str, Any]) -> dict[str, Any]:
        properties = {
            "content_type": envelope.get("content-type"),
            "content_encoding": envelope.get("content-encoding"),
            "application_headers": envelope.get("headers"),
            "correlation_id": (envelope.get("properties") or {}).get("correlation_id")
            if isinstance(envelope.get("properties"), dict)
            else None,
        }
        texts = ("content_type", "content_encoding", "correlation_id")
        wrong = [name for name in texts if not isinstance(properties[name], str)]
        if not isinstance(properties["application_headers"], dict):
            wrong.append("application_headers")
        return {name: value for name, value in properties.items() if name not in wrong}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def pusher_for(environment: Environment) -> RedisPusher | AmqpPusher:
    """Connect to the environment's broker past its links."""
    return (
        RedisPusher(environment) if "redis" in environment.broker.url else AmqpPusher(environment)
    )


def run(environment: Environment, *, count: int, seed: int) -> Report:
    """Push *count* mutated envelopes, a good job behind each handful."""
    rng, report = random.Random(seed), Report()
    pusher = pusher_for(environment)
    slot = environment.slots[0]
    wait_until(lambda: slot.pid, within_s=60)
    with environment.client() as client:
        client.classify([environment.uris[0]], LABELS, timeout_s=30)
        while report.pushed < count:
            pushed = [
                (push_one(environment, pusher, rng))
                for _ in range(min(AT_ONCE, count - report.pushed))
            ]
            report.pushed += len(pushed)
            classify_one(client, environment, report)
            report.vanished += vanished(client, pushed)
        settings = client.settings
    with connect(settings) as ledger:
        report.set_aside = SetAside(ledger, settings).count()
    report.exits = len(slot.exits)
    pusher.close()
    return report


def push_one(
    environment: Environment, pusher: RedisPusher | AmqpPusher, rng: random.Random
) -> tuple[bytes, str]:
    """Push one mutated envelope; returns its bytes and the id that its job had."""
    job, queue = job_of(rng.choice(environment.uris)), rng.choice(QUEUES)
    envelope = mutate(job, rng, queue=queue)
    return pusher.push(envelope, queue, rng), job["job_id"]


def classify_one(client: Client, environment: Environment, report: Report) -> None:
    """Have a good job done, and note how long it took."""
    started = time.monotonic()
    try:
        client.classify([environment.uris[0]], LABELS, timeout_s=GOOD_WITHIN_S)
    except ResultTimeoutError:
        report.late += 1
    report.good_s.append(time.monotonic() - started)


def vanished(client: Client, pushed: list[tuple[bytes, str]]) -> list[bytes]:
    """List the messages that left neither a record nor an entry, some seconds later at most."""
    missing = list(pushed)

    def is_all_found() -> bool:
        with connect(client.settings) as ledger:
            kept = SetAside(ledger, client.settings).messages(limit=200)
            bodies = {one.raw for one in kept} | set(bodies_of(kept))
            ids = [one for one in missing if one[0] not in bodies]
            missing[:] = [one for one in ids if not has_record(ledger, *one)]
        return not missing

    with suppress(AssertionError, TimeoutError):
        wait_until(is_all_found, within_s=10)
    return [raw for raw, _ in missing]


def bodies_of(kept: list[Any]) -> Iterator[bytes]:
    """Read the bodies of messages that came by AMQP."""
    for one in kept:
        with suppress(ValueError, TypeError, LookupError, RecursionError):
            yield base64.b64decode(json.loads(one.raw)["body"], validate=True)


def has_record(ledger: "redis.Redis", raw: bytes, job_id: str) -> bool:
    """Return whether a record exists under the job's id, or under any other text in the message."""
    ids = {job_id, *(text.decode() for text in JOB_ID.findall(raw))}
    with suppress(ValueError, TypeError, LookupError, RecursionError):
        body = base64.b64decode(json.loads(raw)["body"])
        ids |= {text.decode() for text in JOB_ID.findall(body)}
    with ledger.pipeline(transaction=False) as pipeline:
        for one in ids:
            pipeline.exists(KEYS.job(one))
        return any(pipeline.execute())


@contextmanager
def environment_for(folder: Path, broker: str) -> Iterator[Environment]:
    """Run the servers and one worker."""
    with start_environment(folder, workers=1, broker_kind=broker) as environment:
        yield environment


def main(arguments: list[str]) -> int:
    """Run the program, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.envelopes", description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--broker", choices=BROKERS, default="redis")
    parser.add_argument("--seed", type=int, help="draws the same envelopes again")
    asked = parser.parse_args(arguments)
    if asked.broker == "rabbitmq" and not is_installed():
        parser.error(NOT_INSTALLED)
    isolate(os.environ)
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    folder = Path(tempfile.mkdtemp(prefix="labelyard-envelopes-"))
    print(f"seed {seed}, data and logs in {folder}", flush=True)
    with environment_for(folder, asked.broker) as environment:
        report = run(environment, count=asked.count, seed=seed)
    print(report.line())
    for raw in report.vanished[:20]:
        print("vanished:", raw[:1000])
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
