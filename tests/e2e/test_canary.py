"""A canary through the whole path: answers stay those of the alias' version, and it is counted."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from labelyard import Client, Label, LabelSet
from labelyard.label_sets import as_label_set
from labelyard.messages import Result
from tests.e2e.instant import InstantService
from tests.support.scraping import scrape
from tests.support.waiting import wait_until

pytestmark = pytest.mark.allow_persistent_keys("versions and aliases stay")
TIMEOUT_S = 60.0


@pytest.fixture
def client(instant: InstantService) -> Iterator[Client]:
    with instant.client() as client:
        yield client


def answers_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(image.model_dump_json()) for image in result.images]


def test_a_canary_changes_no_answer_embeds_nothing_twice_and_is_counted(
    instant: InstantService, client: Client
) -> None:
    uris = [instant.picture(f"canary-{number}.jpg") for number in range(6)]
    sets = client.label_sets
    old = sets.register("canaries", as_label_set(["a cat", "a dog", "a fox"]))
    new = sets.register(
        "canaries", LabelSet(labels=tuple(Label(name=name) for name in ("a wren", "an owl")))
    )
    sets.promote(old, "canaries@prod")
    sets.promote(new, "canaries@prod", share=1.0)
    plain = client.classify(uris, old, timeout_s=TIMEOUT_S)
    before = scrape(instant.worker.health_url)

    tried = client.classify(uris, "canaries@prod", timeout_s=TIMEOUT_S)

    def report() -> Any:
        return sets.canary("canaries@prod")

    wait_until(lambda: report().images == len(uris), within_s=TIMEOUT_S)
    after = scrape(instant.worker.health_url)
    stage = {"name": "labelyard_stage_duration_seconds_count", "priority": "interactive"}
    for name in ("fetch", "decode", "model"):
        assert after.value(stage=name, **stage) - before.value(stage=name, **stage) <= len(uris)
    assert (answers_of(tried), tried.label_set) == (answers_of(plain), plain.label_set)
    assert (report().jobs, report().same, report().agreement) == (1, 0, 0.0)
    assert sum(report().flips.values()) == len(uris)
    assert {after for _, after in report().flips} <= {"a wren", "an owl"}
    flipped = {"alias": "canaries@prod", "answer": "flipped"}
    assert after.value("labelyard_canary_images_total", **flipped) == len(uris)


def test_a_canary_that_cannot_score_costs_no_answer(
    instant: InstantService, client: Client
) -> None:
    sets = client.label_sets
    old = sets.register("broken", as_label_set(["a cat", "a dog"]))
    alias = sets.promote(old, "broken@prod")
    job = client.prepare([instant.picture()], alias)
    unknown = f"broken@sha256:{'0' * 64}"

    result = client.submit_job(job.model_copy(update={"canary": unknown})).result(
        timeout_s=TIMEOUT_S
    )

    failures = ("labelyard_canary_failures_total", {"alias": "broken@prod"})
    assert result.status == "succeeded"
    assert len(result.images[0].labels) == 2
    wait_until(
        lambda: scrape(instant.worker.health_url).value(failures[0], **failures[1]) == 1,
        within_s=TIMEOUT_S,
    )


def test_answers_of_a_registered_set_are_counted_for_its_drift(
    instant: InstantService, client: Client
) -> None:
    reference = client.label_sets.register("counted", as_label_set(["a hen", "a cow"]))

    client.classify(
        [instant.picture(f"c{n}.jpg") for n in range(3)], reference, timeout_s=TIMEOUT_S
    )

    wait_until(lambda: client.label_sets.drift(reference).counts.n == 3, within_s=TIMEOUT_S)
    counts = client.label_sets.drift(reference).counts
    assert sum(counts.answers.values()) == sum(counts.scores) == 3
