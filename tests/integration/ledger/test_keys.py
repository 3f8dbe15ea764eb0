"""The keys that the ledger holds are those of ``keys.py``, with the types that the page names."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from docs.key_page import entries

from labelyard.events.groups import EventGroups
from labelyard.label_sets import LabelSetRegistry, as_label_set
from labelyard.ledger import Ledger, Pending, connect
from labelyard.ledger.answer_commands import add_counts
from labelyard.ledger.deliveries import DeliveryLedger, DeliveryOutcome
from labelyard.ledger.erasure import erase_job
from labelyard.ledger.keys import LedgerKeys
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.ledger.object_event_commands import ObjectEventClaim, ObjectEventCommands
from labelyard.ledger.set_aside import SetAside, SetAsideMessage
from labelyard.messages import Deliver, Failure
from labelyard.queues import Queue
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import ShardRange, shard_of
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from tests.support.run_samples import sample_run

TYPES = {"zset": "sorted set"}
LIMITS: dict[str, Any] = {"quarantine_after": 9, "dead_after": 9}
# No server of this test writes them, or nothing does any more.
NOT_WRITTEN_HERE = {"barrier", "doctor", "refused"}


@pytest.fixture
def settings(ledger_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, namespace="test")


@pytest.fixture
def ledger(settings: ClientSettings) -> Iterator[Ledger]:
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


def write_every_key(ledger: Ledger, settings: ClientSettings) -> None:
    """Bring jobs to every kind of state, and use what else is in the ledger."""
    ledger.client.hset(ledger.keys.tenants, "*", '{"images_per_s": 9000}')
    waiting, running, dead, cancelled = [
        sample_job(deliver=Deliver(stream="events")).model_copy(
            update={"expires_at": sample_job().expires_at}
        )
        for _ in range(4)
    ]
    for job in (waiting, running, dead, cancelled):
        ledger.open(job, queue=Queue.BULK)
    maintenance = MaintenanceLedger(ledger)
    maintenance.renew_presence("w1", [running.job_id], ttl_s=10, details="{}")
    maintenance.lead("w1", ttl_s=10)
    maintenance.note_passed(Queue.BULK, 1.5)
    ledger.retry(waiting.job_id, worker="w1", delay_s=60)
    ledger.start(running.job_id, worker="w1", isolation="alone", **LIMITS)
    result = sample_result("failed", job=dead)
    ledger.finish(dead.job_id, result, pending=Pending(("webhook",)), is_dead=True)
    deliveries = DeliveryLedger(ledger, worker="w1")
    deliveries.take(1)
    deliveries.settle(dead.job_id, {"webhook": DeliveryOutcome("refused", "status 410")})
    ledger.client.zadd(ledger.keys.pending_deliveries, {"another": 9e9})
    ledger.client.expire(ledger.keys.pending_deliveries, 60)
    ledger.cancel(cancelled.job_id)
    ledger.client.zadd(ledger.keys.expiring, {running.job_id: 9e9})
    ledger.client.expire(ledger.keys.expiring, 60)
    SetAside(ledger.client, settings).add(SetAsideMessage("odd", "q", 1, b"x"))
    claim = ObjectEventClaim(
        ("uploads", "0" * 64), "e", "sequencer", "1", "1", job_id=waiting.job_id
    )
    ledger.run(ObjectEventCommands(ledger.keys).claim(claim, lease_s=30, window_s=60))
    write_a_run(RunLedger(ledger))
    registry = LabelSetRegistry(ledger.client, namespace=settings.namespace)
    registry.promote(registry.register("pets", as_label_set(["a cat", "a dog"])), "pets@prod")
    digest = f"sha256:{'0' * 64}"
    canary = ledger.keys.canary("pets@prod", f"pets@{digest}", f"pets@{digest}")
    for key in (ledger.keys.answers(digest, 1), canary):
        ledger.run(add_counts(key, {"n": 1}, worker="w1", number=1))
    EventGroups(ledger).create("indexer")
    erased = sample_job()
    ledger.open(erased, queue=Queue.BULK)
    ledger.cancel(erased.job_id)
    erase_job(ledger, erased.job_id)


def write_a_run(runs: RunLedger) -> None:
    """Bring shards of a run to every kind of state."""
    request = sample_run()
    runs.open(request)
    lines = ShardRange(plan="shard-00000", first=0, lines=2)
    shards = [
        shard_of(request.run_id, f"{number:05d}", lines, tenant="default", epoch=0)
        for number in range(3)
    ]
    for number, shard in enumerate(shards):
        runs.plan(
            request.run_id,
            expected=number,
            name=shard.name,
            lines=lines,
            checkpoint={"line": number},
            counts={"lines": 2},
            is_complete=False,
        )
    failure = Failure(code="job_cancelled", message="", is_retryable=True)
    runs.fail_shard(request.run_id, shards[0].name, lines, failure=failure, counts={"done": 2})
    runs.note_opened(request.run_id, shards[1].name, next_open_at=0.0)
    runs.note_trail(shards[1], {"start": 1, "done": 1})
    runs.add_sample(request.run_id, at=1.0, done=2)


def test_each_key_in_redis_is_on_the_page_with_its_type_and_its_ttl(
    ledger: Ledger, settings: ClientSettings
) -> None:
    write_every_key(ledger, settings)
    listed = [entry for entry in entries(LedgerKeys) if entry.parts["Type"] != "channel"]
    found: set[str] = set()

    for key in ledger.client.scan_iter():
        [entry] = [entry for entry in listed if is_of(key, entry.pattern)]
        found.add(entry.name)
        kind: Any = ledger.client.type(key)
        is_kept = ledger.client.ttl(key) == -1
        assert (key, TYPES.get(kind, kind)) == (key, entry.parts["Type"])
        assert (key, is_kept) == (key, entry.parts["TTL"].startswith("none"))
        ledger.client.delete(key)

    assert found | NOT_WRITTEN_HERE == {entry.name for entry in listed}


def is_of(key: str, pattern: str) -> bool:
    """Return whether *key* is one of those that *pattern* stands for."""
    parts = re.split(r"\{\w+\}", pattern.replace("{namespace}", "test"))
    return re.fullmatch("[^:]+(?::[0-9a-f]{64})?".join(map(re.escape, parts)), key) is not None


def test_every_key_is_described_in_full() -> None:
    for entry in entries(LedgerKeys):
        assert list(entry.parts) == ["Type", "Holds", "Writer", "TTL"], entry.name
    described = {entry.name for entry in entries(LedgerKeys)}
    public = {name for name in dir(LedgerKeys) if not name.startswith("_")}

    assert public - described == {"of_record", "of_run"}
