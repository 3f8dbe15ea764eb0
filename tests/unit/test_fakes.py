"""The fakes that users test with: they behave as the real clients do, without servers."""

import asyncio
import inspect

import pytest

from labelyard import AsyncClient, Client, LabelSet
from labelyard.errors import (
    EventGroupNotFoundError,
    ImageTooLargeError,
    InvalidMessageError,
    JobCancelledError,
    JobExpiredError,
    JobNotFoundError,
    QueueFullError,
    ResultTimeoutError,
    UnknownLabelSetError,
)
from labelyard.ledger.set_aside import SetAsideMessage
from labelyard.messages import Label, Status
from labelyard.testing import (
    AsyncFakeClient,
    FakeClient,
    answer_by_scores,
    sample_job,
    sample_result,
)

IMAGES = ["s3://photos/cat.jpg", "s3://photos/dog.jpg"]
LABELS = ["cat", "dog"]
# Made of the others, which are overridden.
DERIVED = {
    "prepare",
    "submit",
    "classify",
    "result",
    "wait",
    "evaluate",
    "teach",
    "calibrate",
    "adapt",
    "explain",
    "read_titles",
    "compare_templates",
}


@pytest.mark.parametrize(
    ("real", "fake"), [(Client, FakeClient), (AsyncClient, AsyncFakeClient)], ids=str
)
def test_a_fake_overrides_all_that_would_need_a_server(real: type, fake: type) -> None:
    public = {name for name, _ in inspect.getmembers(real, inspect.isfunction)}
    needed = {name for name in public if not name.startswith("_")} - DERIVED

    own = [cls for cls in fake.__mro__ if cls.__module__.startswith("labelyard.testing")]
    assert needed <= set().union(*map(vars, own))


def test_a_fake_answers_at_once() -> None:
    client = FakeClient()

    result = client.classify(IMAGES, LABELS, top_k=1)

    assert result.status == "succeeded"
    assert [image.labels[0].name for image in result.images] == ["cat", "cat"]
    assert [len(image.labels) for image in result.images] == [1, 1]
    assert [job.top_k for job in client.jobs] == [1]
    assert (client.open_images(), client.totals()) == (0, {"succeeded": 1})


def test_a_rule_answers_by_address() -> None:
    client = FakeClient(
        answer_by_scores(
            {IMAGES[0]: {"cat": 0.1, "dog": 0.9}, IMAGES[1]: ImageTooLargeError(IMAGES[1])}
        )
    )

    result = client.classify(IMAGES, LABELS)

    assert result.status == "partial"
    assert [label.name for label in result.images[0].labels] == ["dog", "cat"]
    assert result.images[1].error is not None
    assert result.images[1].error.code == "image_too_large"


def test_a_test_can_take_the_workers_part() -> None:
    client = FakeClient(answer=None)
    done, cancelled, expired, stuck = [client.submit(IMAGES, LABELS) for _ in range(4)]

    client.finish(done.id, sample_result(job=client.jobs[0]))
    cancelled.cancel()
    client.expire(expired.id)
    client.finish(cancelled.id, sample_result(job=client.jobs[1]))

    assert done.result().status == "succeeded"
    with pytest.raises(JobCancelledError):
        cancelled.result()
    with pytest.raises(JobExpiredError):
        expired.result()
    with pytest.raises(ResultTimeoutError):
        stuck.result(timeout_s=60)
    assert not done.cancel()


def test_keys_refusals_and_unknown_jobs_are_as_with_the_real_one() -> None:
    client = FakeClient()
    first = client.submit(IMAGES, LABELS, idempotency_key="order-1")
    second = client.submit(IMAGES, LABELS, idempotency_key="order-1")
    client.refuse_with = QueueFullError("8 images wait, limit 8")

    assert (first.is_new, second.is_new, second.id) == (True, False, first.id)
    with pytest.raises(QueueFullError):
        client.submit(IMAGES, LABELS)
    with pytest.raises(JobNotFoundError):
        client.status("nothing")
    client.ping()


def test_a_fake_knows_label_sets() -> None:
    client = FakeClient()
    animals = LabelSet(labels=(Label(name="cat"),))

    reference = client.label_sets.register("animals", animals)

    assert client.label_sets.get(reference) == animals
    assert (client.label_sets.names(), client.label_sets.versions("animals")) == (
        ["animals"],
        [reference],
    )
    with pytest.raises(UnknownLabelSetError):
        client.label_sets.get("other")


def test_the_async_fake_answers_as_the_fake_does() -> None:
    async def scenario() -> None:
        async with AsyncFakeClient() as client:
            result = await client.classify(IMAGES, LABELS)
            job = (await client.submit_many([client.prepare(IMAGES, LABELS)]))[0]
            ended = [record.job_id async for record in client.as_completed([job], timeout_s=0)]

            assert result.status == "succeeded"
            assert ended == [job.id]
            assert await job.state() == "succeeded"
            assert not await job.cancel()
            assert len(client.fake.jobs) == 2
            await client.ping()

    asyncio.run(scenario())


@pytest.mark.parametrize("status", ["succeeded", "partial", "failed"])
def test_sample_results_are_of_the_status_asked_for(status: Status) -> None:
    job = sample_job()

    result = sample_result(status, job=job)

    assert (result.status, result.job_id) == (status, job.job_id)
    assert len(result.images) == len(job.images)


def test_a_job_of_one_image_cannot_be_partial() -> None:
    job = sample_job(images=sample_job().images[:1])

    with pytest.raises(ValueError, match="a job of 1 image cannot be partial"):
        sample_result("partial", job=job)


def labelled(*labels: Label) -> LabelSet:
    return LabelSet(labels=labels)


@pytest.mark.parametrize(
    ("label_set", "matched"),
    [
        (labelled(Label(name="cat"), Label(name="dog")), ("cat",)),
        (labelled(Label(name="cat", threshold=0.7), Label(name="dog")), ()),
        (labelled(Label(name="cat", threshold=0.7), Label(name="dog", threshold=0.4)), ("dog",)),
        (labelled(Label(name="cat", threshold=0.55), Label(name="dog")), ("cat",)),
        (
            LabelSet(labels=(Label(name="cat"), Label(name="dog")), scoring="sigmoid"),
            ("cat",),
        ),
    ],
)
def test_labels_are_matched_as_a_worker_matches_them(
    label_set: LabelSet, matched: tuple[str, ...]
) -> None:
    client = FakeClient(answer_by_scores({IMAGES[0]: {"cat": 0.55, "dog": 0.45}}))

    result = client.classify(IMAGES[:1], label_set, top_k=1)

    assert result.images[0].matched == matched


def test_a_registered_label_set_is_scored_by_its_labels() -> None:
    client = FakeClient()
    reference = client.label_sets.register("pets", labelled(Label(name="hamster")))

    known = client.classify(IMAGES, reference)
    unknown = client.classify(IMAGES, f"pets@sha256:{'0' * 64}")

    assert [image.labels[0].name for image in known.images] == ["hamster", "hamster"]
    assert client.jobs[0].label_set == reference
    assert unknown.error is not None
    assert unknown.error.code == "unknown_label_set"


@pytest.mark.parametrize("name", ["No Spaces", "", "x" * 65])
def test_a_label_set_is_refused_as_by_the_real_registry(name: str) -> None:
    with pytest.raises(InvalidMessageError, match="cannot name a label set"):
        FakeClient().label_sets.register(name, labelled(Label(name="cat")))


def test_only_pictures_that_were_classified_are_scored_again() -> None:
    client = FakeClient()
    client.classify(IMAGES[:1], LABELS)

    result = client.classify(IMAGES, LABELS, rescore=True)

    assert result.status == "partial"
    assert result.images[1].error is not None
    assert result.images[1].error.code == "image_not_embedded"


def test_a_dead_letter_can_be_looked_at_replayed_and_purged() -> None:
    client = FakeClient(answer=None)
    first, second = client.submit(IMAGES, LABELS), client.submit(IMAGES, LABELS)
    client.bury(first.id)
    client.bury(second.id)

    assert client.dead_letters.ids() == [first.id, second.id]
    assert [record.state for record in client.dead_letters.records(limit=1)] == ["failed"]
    error = first.result().error
    assert error is not None
    assert error.code == "job_dead_lettered"

    client.dead_letters.replay(first.id)
    client.dead_letters.purge(second.id)

    assert (first.state(), second.state(), client.dead_letters.ids()) == ("pending", "failed", [])
    with pytest.raises(JobNotFoundError):
        client.dead_letters.purge(second.id)
    with pytest.raises(JobNotFoundError):
        client.dead_letters.replay("nothing")


def test_messages_that_a_test_sets_aside_can_be_found_and_replayed() -> None:
    client = FakeClient()
    message = SetAsideMessage(reason="no job", queue="ly.bulk", size_bytes=2, raw=b"{}")
    client.set_aside.add(message)

    assert (client.set_aside.count(), client.set_aside.dropped()) == (1, 0)
    assert client.set_aside.messages() == [client.set_aside.find(message.id)] == [message]

    client.set_aside.replay(message.id)

    assert client.set_aside.remove([message.id]) == []
    with pytest.raises(JobNotFoundError):
        client.set_aside.find(message.id)


def test_a_fake_writes_an_event_for_each_final_job_and_can_lose_some() -> None:
    fake = FakeClient(answer=None)
    jobs = [fake.submit(["s3://a/b.jpg"], ["cat"]) for _ in range(4)]
    fake.event_groups.create("indexer")
    fake.cancel(jobs[0].id)
    fake.finish(jobs[1].id, sample_result(job=fake.jobs[1]))

    events = list(fake.events("indexer", ack="manual", consumer="a"))
    again = list(fake.events("indexer", consumer="a"))

    assert [event.id for event in events if event.kind == "job"] == [jobs[0].id, jobs[1].id]
    assert [event.deliveries for event in again if event.kind == "job"] == [2, 2]
    assert [event.state for event in fake.recent_events()] == ["cancelled", "succeeded"]
    fake.expire(jobs[2].id)
    fake.event_log.lose("indexer")
    fake.expire(jobs[3].id)
    [gap, event] = fake.events("indexer")
    assert (gap.kind, event.kind) == ("gap", "job")
    assert gap.kind == "gap"
    assert gap.lost == 1
    [group] = fake.event_groups.list()
    assert (group.pending, group.waiting, group.gap) == (0, 0, None)


def test_the_events_of_an_asynchronous_fake_are_read_in_a_loop() -> None:
    async def scenario() -> list[str]:
        client = AsyncFakeClient()
        job = await client.submit(["s3://a/b.jpg"], ["cat"], tenant="shop")
        await client.submit(["s3://a/b.jpg"], ["cat"], tenant="other")
        found = [event async for event in client.events("g", start="oldest", tenants=["shop"])]
        assert [event.id for event in found if event.kind == "job"] == [job.id]
        with pytest.raises(EventGroupNotFoundError):
            await client.event_groups.delete("h")
        return [event.tenant for event in await client.recent_events(limit=9)]

    assert asyncio.run(scenario()) == ["shop", "other"]
