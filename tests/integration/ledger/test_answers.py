"""Answers that workers count, on a real Valkey: once each, bounded, and kept over a restart."""

import random
import time
from collections.abc import Iterator

import pytest
import redis

from labelyard.drift.baselines import baseline_json
from labelyard.drift.counts import AnswerCounts
from labelyard.drift.report import WINDOW_S
from labelyard.errors import InvalidMessageError, LedgerUnavailableError, UnknownLabelSetError
from labelyard.label_sets import LabelSetRegistry, as_label_set
from labelyard.ledger import Ledger, limits
from labelyard.ledger.answer_commands import add_counts
from labelyard.messages import ImageResult, Job, Result, ScoredLabel
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job
from labelyard_worker.answers import AnswerCounter
from labelyard_worker.canary import ComparedResult
from labelyard_worker.local.servers import ValkeyServer
from tests.unit.test_drift import counted, darker, usual

PETS = as_label_set(["cat", "dog"])
pytestmark = pytest.mark.allow_persistent_keys("versions stay until they are deleted")


@pytest.fixture
def ledger(clean_valkey: ValkeyServer) -> Iterator[Ledger]:
    url = clean_valkey.url_of(1)
    with redis.Redis.from_url(url, decode_responses=True) as connection:
        yield Ledger(connection, ClientSettings(ledger_url=url, namespace="yard"))


@pytest.fixture
def registry(ledger: Ledger) -> LabelSetRegistry:
    return LabelSetRegistry(ledger.client, namespace="yard")


def job_and_result(reference: str, **fields: object) -> tuple[Job, Result]:
    job = sample_job(label_set=reference, **fields)
    images = (
        ImageResult(
            id="1", uri="s3://a/1", labels=(ScoredLabel(name="cat", score=0.9),), matched=("cat",)
        ),
        ImageResult(
            id="2", uri="s3://a/2", labels=(ScoredLabel(name="dog", score=0.2),), abstained=True
        ),
    )
    digest = reference.partition("@")[2]
    return job, Result(
        job_id=job.job_id, status="succeeded", tenant="a", label_set=digest, images=images
    )


def test_a_restarted_worker_adds_to_what_was_counted_before(
    ledger: Ledger, registry: LabelSetRegistry
) -> None:
    reference = registry.register("pets", PETS)
    for worker in ("w1", "w2"):
        counter = AnswerCounter(ledger, worker=worker)
        counter.start()
        counter.count(*job_and_result(reference))
        counter.close()

    counts = registry.drift(reference).counts

    assert (counts.n, counts.abstained, counts.unmatched) == (4, 2, 2)
    assert counts.answers == {"cat": 2}
    assert sum(counts.scores) == 4


def test_an_addition_that_is_repeated_counts_once(
    ledger: Ledger, registry: LabelSetRegistry
) -> None:
    reference = registry.register("pets", PETS)
    hour = int(time.time() // WINDOW_S)
    key = ledger.keys.answers(reference.partition("@")[2], hour)
    command = add_counts(key, {"n": 2, "answer:cat": 2}, worker="host:1-w1", number=7)

    answers = [ledger.run(command), ledger.run(command)]
    ledger.run(add_counts(key, {"n": 1}, worker="host:1-w1", number=8))

    assert answers == [["added"], ["known"]]
    assert registry.drift(reference).counts.n == 3


def test_what_could_not_be_added_is_added_later(ledger: Ledger, own_valkey: ValkeyServer) -> None:
    url = own_valkey.url_of(1)
    with redis.Redis.from_url(url, decode_responses=True) as connection:
        away = Ledger(connection, ClientSettings(ledger_url=url, namespace="yard"))
        registry = LabelSetRegistry(connection, namespace="yard")
        reference = registry.register("pets", PETS)
        counter = AnswerCounter(away, worker="w1")
        counter.count(*job_and_result(reference))
        own_valkey.stop()
        with pytest.raises(LedgerUnavailableError):
            counter.flush()
        counter.count(*job_and_result(reference))
        own_valkey.start()
        registry.register("pets", PETS)

        counter.flush()

        assert registry.drift(reference).counts.n == 4


def test_inline_sets_and_evaluations_are_not_counted(ledger: Ledger) -> None:
    counter = AnswerCounter(ledger, worker="w1")
    job, result = job_and_result(f"pets@sha256:{'0' * 64}", tag="evaluation")

    counter.count(job, result)
    counter.count(sample_job(label_set=PETS), result)
    counter.flush()

    assert ledger.client.keys("yard:answers:*") == []


def test_counts_of_many_labels_stay_bounded_and_have_a_ttl(ledger: Ledger) -> None:
    key = ledger.keys.answers("sha256:0", 1)
    many = {f"answer:{number}": 1 for number in range(limits.MAX_COUNTS + 100)}

    ledger.run(add_counts(key, {"n": len(many), **many}, worker="w1", number=1))
    ledger.run(add_counts(key, {"answer:0": 1, "answer:new": 1}, worker="w1", number=2))

    assert ledger.client.hlen(key) <= limits.MAX_COUNTS + 3
    counts = AnswerCounts.of_fields(ledger.client.hgetall(key))
    assert sum(counts.answers.values()) == len(many) + 2
    assert counts.answers["0"] == 2
    assert counts.answers[""] > 100
    assert 0 < ledger.client.ttl(key) <= limits.COUNTS_TTL_S


def test_an_hour_that_differs_from_the_baseline_is_an_alarm(
    ledger: Ledger, registry: LabelSetRegistry
) -> None:
    reference = registry.register("pets", PETS)
    generator, hour = random.Random(1), int(time.time() // WINDOW_S)
    baseline = baseline_json(counted(usual, 400, generator), at=(hour - 3) * WINDOW_S)
    ledger.client.hset(ledger.keys.label_set_version(reference), "baseline", baseline)
    reports = []
    for ago, draw in ((2, usual), (1, darker)):
        key = ledger.keys.answers(reference.partition("@")[2], hour - ago)
        counts = counted(draw, 500, generator).fields()
        ledger.run(add_counts(key, counts, worker="w1", number=1))
        reports.append(registry.drift("pets"))

    assert [report.is_alarm for report in reports] == [False, True]
    assert [window.counts.n for window in reports[1].windows] == [500, 500]
    again = registry.set_baseline("pets")
    assert (again.is_alarm, again.baseline and again.baseline.n) == (False, 1_000)


def test_a_canary_is_read_also_after_it_was_ended(
    ledger: Ledger, registry: LabelSetRegistry
) -> None:
    old = registry.register("pets", PETS)
    new = registry.register("pets", as_label_set(["cat", "cow"]))
    registry.promote(old, "pets@prod")
    with pytest.raises(UnknownLabelSetError, match="has no canary"):
        registry.canary("pets@prod")
    registry.promote(new, "pets@prod", share=0.5)
    job, result = job_and_result(old, alias="pets@prod", canary=new)
    comparison = {"jobs": 1, "images": 2, "same": 1, "flip:cat\tcow": 1}
    counter = AnswerCounter(ledger, worker="w1")
    counter.count(job, ComparedResult.of(result, comparison))
    counter.close()

    report = registry.canary("pets@prod")
    registry.promote(new, "pets@prod")
    later = registry.canary("pets@prod")

    assert (report.canary, report.images, report.flips) == (new, 2, {("cat", "cow"): 1})
    assert (later.reference, later.canary, later.images, later.share) == (old, new, 2, 0.0)


def test_a_baseline_needs_answers_to_a_hundred_pictures(
    ledger: Ledger, registry: LabelSetRegistry
) -> None:
    reference = registry.register("pets", PETS)

    with pytest.raises(InvalidMessageError, match="needs answers"):
        registry.set_baseline("pets")
    key = ledger.keys.answers(reference.partition("@")[2], int(time.time() // WINDOW_S))
    few = counted(usual, 99, random.Random(1)).fields()
    ledger.run(add_counts(key, few, worker="w1", number=1))
    with pytest.raises(InvalidMessageError, match="needs 100 pictures: workers have counted 99"):
        registry.set_baseline("pets")
    with pytest.raises(UnknownLabelSetError):
        registry.drift(f"pets@sha256:{'0' * 64}")
