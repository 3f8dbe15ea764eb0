"""A result that the ledger cannot hold is written to the job's object first, on real storage."""

import json

import pytest

from labelyard.errors import InvalidMessageError, JobCancelledError, StorageUnavailableError
from labelyard.messages import Deliver, ImageRef, Job, Result, ScoredLabel
from labelyard.testing import sample_job, sample_result
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.jobs.delivery import large_results
from labelyard_worker.jobs.delivery.large_results import LargeResults
from labelyard_worker.jobs.delivery.plan import deliveries_of
from labelyard_worker.jobs.delivery.senders import object_sender_of
from labelyard_worker.local.servers import SeaweedServer
from labelyard_worker.settings import WorkerSettings
from tests.support.buckets import Bucket


@pytest.fixture
def results(
    seaweed: SeaweedServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> LargeResults:
    """Permit results in the test's bucket, and let 10 kB fit into the ledger."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key)
    monkeypatch.setattr(large_results, "MAX_RESULT_BYTES", 10_000)
    monkeypatch.setattr(large_results, "NAMES_THAT_ALWAYS_FIT", 20)
    settings = WorkerSettings(
        s3_endpoint_url=seaweed.endpoint_url,
        s3_region=seaweed.region,
        result_buckets=(bucket.name,),
    )
    return LargeResults(object_sender_of(settings))


def job_and_result(
    uri: str | None, *, labels: int, matched: int = 0, name: str = "é" * 100
) -> tuple[Job, Result]:
    job = sample_job(deliver=Deliver(object_uri=uri))
    result = sample_result(job=job)
    found = {
        "labels": tuple(ScoredLabel(name=name, score=0.5) for _ in range(labels)),
        "matched": (name,) * matched,
    }
    images = tuple(image.model_copy(update=found) for image in result.images)
    return job, result.model_copy(update={"images": images})


@pytest.mark.parametrize(("labels", "matched"), [(50, 0), (1, 60)])
def test_a_large_result_is_written_as_a_whole_and_its_beginning_is_kept(
    results: LargeResults, bucket: Bucket, labels: int, matched: int
) -> None:
    job, result = job_and_result(bucket.uri("large.json"), labels=labels, matched=matched)

    kept = results.fit(job, result)

    assert json.loads(bucket.get("large.json")) == json.loads(result.model_dump_json())
    assert kept.object_uri == bucket.uri("large.json")
    assert [len(image.labels) for image in kept.images] == [min(labels, 5)] * len(kept.images)
    assert [len(image.matched) for image in kept.images] == [min(matched, 5)] * len(kept.images)
    assert (deliveries_of(job, result), deliveries_of(job, kept)) == (("object",), ())


def test_a_result_that_fits_is_left_to_its_delivery(results: LargeResults, bucket: Bucket) -> None:
    job, result = job_and_result(bucket.uri("small.json"), labels=30, name="a")

    assert results.fit(job, result) is result
    assert bucket.keys() == []


@pytest.mark.parametrize(
    ("uri", "why"),
    [(None, r"set deliver\.object_uri"), ("s3://elsewhere/a.json", "LABELYARD_RESULT_BUCKETS")],
)
def test_a_large_result_that_may_go_nowhere_is_refused(
    results: LargeResults, uri: str | None, why: str
) -> None:
    with pytest.raises(InvalidMessageError, match=why):
        results.fit(*job_and_result(uri, labels=50))


@pytest.mark.usefixtures("results")
def test_a_large_result_that_could_not_be_written_is_tried_again() -> None:
    uri = "s3://results/large.json"
    away = WorkerSettings(
        s3_endpoint_url="http://127.0.0.1:9",
        s3_region="us-east-1",
        result_buckets=("results",),
        object_timeout_s=0.5,
    )

    with pytest.raises(StorageUnavailableError):
        LargeResults(object_sender_of(away)).fit(*job_and_result(uri, labels=50))


def test_large_results_are_made_one_at_a_time_and_small_ones_pass(results: LargeResults) -> None:
    large = sample_job(
        images=tuple(ImageRef(id=str(n), uri="s3://a/b") for n in range(64)),
        label_set="animals@sha256:" + "0" * 64,
        top_k=10_000,
        deliver=Deliver(object_uri="s3://a/b.json"),
    )
    token = Token("job", timeout_s=60, expires_in_s=None)
    with results.turn(large, labels=10_000, token=token):
        with results.turn(large, labels=100, token=token):
            pass
        token.stop(JobCancelledError("job"))
        with pytest.raises(JobCancelledError):
            results.turn(large, labels=10_000, token=token).__enter__()
    with results.turn(large, labels=10_000, token=token):
        pass
