"""A job's text and its result are bounded, and the refusal says what to do instead."""

from typing import Any

import pytest

from labelyard.errors import InvalidMessageError
from labelyard.messages import (
    MAX_INLINE_PROMPTS,
    MAX_SCORED_LABELS,
    Job,
    Label,
    LabelSet,
    parse_job,
)

REFERENCE = "animals@sha256:" + "0" * 64


def message(**changes: Any) -> dict[str, Any]:
    return {
        "job_id": "1",
        "images": [{"id": "1", "uri": "s3://a/b"}],
        "label_set": {"labels": [{"name": "cat"}]},
        **changes,
    }


def images(count: int) -> list[dict[str, str]]:
    return [{"id": str(n), "uri": "s3://a/b"} for n in range(count)]


def named(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": str(n), **fields} for n in range(count)]


def test_prompts_are_counted_after_templates() -> None:
    label_set = LabelSet(
        labels=(Label(name="cat"), Label(name="dog", prompts=("a", "b", "c"))),
        templates=("see {}", "no {}"),
        abstain=("nothing",),
    )

    assert label_set.count_prompts() == 2 + 3 + 1


@pytest.mark.parametrize(
    "label_set",
    [
        {"labels": named(100), "templates": [f"{n} {{}}" for n in range(100)], "abstain": ["x"]},
        {"labels": named(101), "templates": [f"{n} {{}}" for n in range(100)]},
        {"labels": named(1000, prompts=[str(n) for n in range(11)])},
    ],
)
def test_more_prompts_than_a_message_may_make_are_refused(label_set: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessageError, match=r"prompts, too many .* register the set"):
        parse_job(message(label_set=label_set))


def test_as_many_prompts_as_a_message_may_make_are_read() -> None:
    label_set = {"labels": named(100), "templates": [f"{n} {{}}" for n in range(100)]}

    job = parse_job(message(label_set=label_set))

    assert isinstance(job.label_set, LabelSet)
    assert job.label_set.count_prompts() == MAX_INLINE_PROMPTS


@pytest.mark.parametrize(
    ("changes", "scored"),
    [
        ({"images": images(64), "top_k": 1563, "label_set": REFERENCE}, 64 * 1563),
        ({"images": images(11), "top_k": 10_000, "label_set": REFERENCE}, 110_000),
    ],
)
def test_a_result_that_is_too_large_for_the_ledger_needs_an_object(
    changes: dict[str, Any], scored: int
) -> None:
    assert scored > MAX_SCORED_LABELS
    with pytest.raises(InvalidMessageError, match=rf"{scored} scored labels .*object_uri"):
        parse_job(message(**changes))

    with_object = message(**changes, deliver={"object_uri": "s3://results/1.json"})
    assert isinstance(parse_job(with_object), Job)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": images(64), "top_k": 1562, "label_set": REFERENCE},
        {"images": images(10), "top_k": 10_000, "label_set": REFERENCE},
        {"images": images(64), "top_k": 10_000, "label_set": {"labels": named(1000)}},
    ],
)
def test_a_result_counts_the_labels_that_there_are(changes: dict[str, Any]) -> None:
    assert isinstance(parse_job(message(**changes)), Job)
