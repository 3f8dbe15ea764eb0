"""Fleet: the workers of the namespace, differences between them, and queues that stand still."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError

from labelyard.broker_redis import REDIS_ERRORS, RedisBrokerConnection
from labelyard.doctor.examination import ANSWER_S, Examination
from labelyard.doctor.rabbitmq import count_messages
from labelyard.doctor.report import Finding, FindingKind, Severity
from labelyard.ledger.connection import LedgerConnection
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.workers import WorkerInfo, read_workers
from labelyard.queues import JOB_QUEUES, is_amqp

#: Keys looked at in one SCAN, and most calls: a ledger of a million keys is searched in part.
SCAN_COUNT: Final = 1000
MAX_SCANS: Final = 50
#: Names that one sentence holds.
MAX_NAMES: Final = 5
#: Seconds after which a worker should have loaded its model.
LONG_START_S: Final = 300.0
LOST_WITHIN_S: Final = 600.0
#: Seconds between two looks at a queue that no worker takes from.
LOOK_AGAIN_S: Final = 1.5

FLEET_LIVES: Final = FindingKind(
    "fleet_lives", "fleet", Severity.OK, "Live workers of the namespace {namespace}: {workers}."
)
NO_WORKERS: Final = FindingKind(
    "no_workers",
    "fleet",
    Severity.SERIOUS,
    "No worker of the namespace {namespace} lives; {queued} messages are queued.",
    "Start one: labelyard-worker start, with LABELYARD_NAMESPACE={namespace} and the same "
    "LABELYARD_LEDGER_URL and LABELYARD_BROKER_URL.",
    in_worker=Severity.ADVICE,
)
WORKERS_ELSEWHERE: Final = FindingKind(
    "workers_elsewhere",
    "fleet",
    Severity.WARNING,
    "The namespace {namespace} has no worker, but this ledger has workers of {others}{cut}.",
    "Set LABELYARD_NAMESPACE to the one that is meant, for workers and producers alike.",
)
NO_READY_WORKER: Final = FindingKind(
    "no_ready_worker",
    "fleet",
    Severity.WARNING,
    "No worker of the namespace {namespace} is ready: {workers}.",
    "Wait until one has loaded its model, and look at the logs of those that do not become ready.",
)
START_TAKES_LONG: Final = FindingKind(
    "start_takes_long",
    "fleet",
    Severity.WARNING,
    "Workers have been starting for more than {seconds:.0f} s: {workers}.",
    "Look at their logs, and run labelyard-worker doctor on their machines.",
)
WORKERS_LOST: Final = FindingKind(
    "workers_lost",
    "fleet",
    Severity.ADVICE,
    "Workers ended without a shutdown in the last {minutes:.0f} minutes: {workers}.",
    "Look at their logs and at the kernel's (dmesg) for the reason, often memory; labelyard dead "
    "list shows jobs that killed them.",
)
BREAKERS_OPEN: Final = FindingKind(
    "breakers_open",
    "fleet",
    Severity.WARNING,
    "Workers have given up calling {count} buckets or hosts that fail: {names}.",
    "Look at these servers and their credentials; the jobs wait, and go on when they are back.",
)
MIXED_CHECKPOINTS: Final = FindingKind(
    "mixed_checkpoints",
    "fleet",
    Severity.SERIOUS,
    "The workers serve different checkpoints, so that scores depend on chance: {values}.",
    "Set the same LABELYARD_CHECKPOINT, with a commit, for all workers of the namespace, or give "
    "each checkpoint a LABELYARD_NAMESPACE of its own.",
)
MIXED_DTYPES: Final = FindingKind(
    "mixed_dtypes",
    "fleet",
    Severity.WARNING,
    "The workers compute in different number formats, so that scores differ a little: {values}.",
    "Set the same LABELYARD_DTYPE for all workers.",
)
MIXED_VERSIONS: Final = FindingKind(
    "mixed_versions",
    "fleet",
    Severity.ADVICE,
    "The workers are of different versions: {values}.",
    "Finish the upgrade: pip install the same version on each machine, and restart the workers.",
)
QUEUE_STANDS_STILL: Final = FindingKind(
    "queue_stands_still",
    "fleet",
    Severity.SERIOUS,
    "{queued} messages are queued, {workers} workers are ready, and none of them took one for "
    "{seconds:g} s.",
    "Check that workers have the same LABELYARD_BROKER_URL as this machine, look at their logs, "
    "and restart one; labelyard why JOB_ID says where one job is.",
)
KINDS: Final = (
    FLEET_LIVES,
    NO_WORKERS,
    WORKERS_ELSEWHERE,
    NO_READY_WORKER,
    START_TAKES_LONG,
    WORKERS_LOST,
    BREAKERS_OPEN,
    MIXED_CHECKPOINTS,
    MIXED_DTYPES,
    MIXED_VERSIONS,
    QUEUE_STANDS_STILL,
)


def check_fleet(client: "redis.Redis", exam: Examination) -> Iterator[Finding]:
    """Find namespaces without workers, unlike workers, and queues that nobody takes from."""
    namespace = exam.settings.namespace
    ledger = LedgerConnection(client, exam.settings)
    workers = read_workers(ledger, lost_within_s=LOST_WITHIN_S)
    alive = [one for one in workers if one.state != "lost"]
    lost = [one for one in workers if one.state == "lost"]
    if lost:
        yield WORKERS_LOST.at(minutes=LOST_WITHIN_S / 60, workers=names_of(lost))
    if not alive:
        queued = sum(count_queued(exam))
        yield NO_WORKERS.at(is_worker=exam.is_worker, namespace=namespace, queued=queued)
        yield from check_other_namespaces(client, namespace)
        return
    yield FLEET_LIVES.at(namespace=namespace, workers=f"{len(alive)} ({names_of(alive)})")
    yield from check_readiness(alive, namespace)
    yield from check_likeness(alive)
    yield from check_progress(ledger, alive, exam)


def check_other_namespaces(client: "redis.Redis", namespace: str) -> Iterator[Finding]:
    """Look for workers under another namespace: a misspelt one is a common mistake."""
    pattern, cursor, others = LedgerKeys("*").worker("*"), 0, set()
    for _ in range(MAX_SCANS):
        try:
            answer: Any = client.scan(cursor, match=pattern, count=SCAN_COUNT)
        except NoPermissionError:
            return  # a user of one namespace may not look at others
        cursor, keys = answer
        others |= {key.partition(":")[0] for key in keys}
        if not cursor:
            break
    if others - {namespace}:
        cut = f" (of {MAX_SCANS * SCAN_COUNT} keys that were looked at)" if cursor else ""
        names = shortened(sorted(others - {namespace}))
        yield WORKERS_ELSEWHERE.at(namespace=namespace, others=names, cut=cut)


def check_readiness(workers: Sequence[WorkerInfo], namespace: str) -> Iterator[Finding]:
    """Find workers that take no jobs, or have given up servers that they need."""
    starting = [one for one in workers if one.state == "starting"]
    late = [one for one in starting if _age_s(one) > LONG_START_S]
    if late:
        yield START_TAKES_LONG.at(seconds=LONG_START_S, workers=names_of(late))
    elif not any(one.state in ("ready", "unknown") for one in workers):
        states = ", ".join(f"{one.name} is {one.state}" for one in workers[:MAX_NAMES])
        yield NO_READY_WORKER.at(namespace=namespace, workers=states)
    if broken := sorted({name for one in workers for name in one.open_breakers}):
        yield BREAKERS_OPEN.at(count=len(broken), names=shortened(broken))


def _age_s(worker: WorkerInfo) -> float:
    """Return how old a worker was at its last sign of life."""
    if worker.started_at is None or worker.last_seen_at is None:
        return 0.0
    return worker.last_seen_at - worker.started_at


def check_likeness(workers: Sequence[WorkerInfo]) -> Iterator[Finding]:
    """Find workers of one namespace whose results differ."""
    kinds: dict[FindingKind, Callable[[WorkerInfo], str]] = {
        MIXED_CHECKPOINTS: lambda one: one.fingerprint,
        MIXED_DTYPES: lambda one: one.dtype,
        MIXED_VERSIONS: lambda one: one.version,
    }
    for kind, value_of in kinds.items():
        groups: dict[str, list[WorkerInfo]] = {}
        for worker in workers:
            if value := value_of(worker):
                groups.setdefault(value, []).append(worker)
        if len(groups) > 1:
            shown = [
                f"{some[0].checkpoint if kind is MIXED_CHECKPOINTS else value} on {names_of(some)}"
                for value, some in groups.items()
            ]
            yield kind.at(values="; ".join(shown))


def check_progress(
    ledger: LedgerConnection, workers: Sequence[WorkerInfo], exam: Examination
) -> Iterator[Finding]:
    """Look twice at queues from which no worker takes a message."""
    ready = [one for one in workers if one.state == "ready"]
    if not ready or any(one.running for one in workers):
        return
    before = (count_queued(exam), ledger.client.hgetall(ledger.keys.totals))
    if not sum(before[0]):
        return
    time.sleep(LOOK_AGAIN_S)
    after = (count_queued(exam), ledger.client.hgetall(ledger.keys.totals))
    is_running = any(one.running for one in read_workers(ledger))
    if before == after and not is_running:
        yield QUEUE_STANDS_STILL.at(queued=sum(after[0]), workers=len(ready), seconds=LOOK_AGAIN_S)


def count_queued(exam: Examination) -> tuple[int, ...]:
    """Count the messages in each queue of jobs; none if the broker is away."""
    if is_amqp(exam.settings.broker_url):
        try:
            depths = count_messages(exam)
        except Exception:  # noqa: BLE001 - RabbitMQ has a section that reports why
            return ()
    else:
        connection = RedisBrokerConnection(exam.settings, timeout_s=ANSWER_S)
        try:
            depths = connection.depths()
        except REDIS_ERRORS:  # as above
            return ()
        finally:
            connection.close()
    return tuple(depths[queue] for queue in JOB_QUEUES)


def names_of(workers: Sequence[WorkerInfo]) -> str:
    """List the first few names of workers."""
    return shortened([one.name for one in workers])


def shortened(names: Sequence[str]) -> str:
    """List the first few names, and the number of the others."""
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
