"""Limits for none of these: how they are fixed, and what a set with one answers."""

import asyncio
from typing import Any

import numpy as np
import pytest

from labelyard.errors import InvalidMessageError, ResultUnreadableError
from labelyard.evaluation.none_of_these import fit_limit
from labelyard.messages import Job, Label, LabelSet, Result
from labelyard.testing import AsyncFakeClient, FakeClient, answer_by_scores, sample_result

LABELS = ("a cat", "a dog")


def flags(known: int, unknown: int) -> Any:
    return np.arange(known + unknown) < known


@pytest.mark.parametrize(("count", "share"), [(19, 0.95), (100, 0.9), (399, 0.95)])
def test_a_share_of_new_pictures_with_a_label_stays(count: int, share: float) -> None:
    numbers = np.random.default_rng(0)
    kept = []
    for _ in range(2000):
        fits = numbers.normal(size=count + 1) / 10
        limit = fit_limit(fits[:count], flags(count, 0), share).limit
        kept.append(fits[count] >= limit)

    assert np.mean(kept) >= share - 0.015


def test_too_few_pictures_to_keep_a_share_say_how_many_are_needed() -> None:
    with pytest.raises(InvalidMessageError, match=r"18 .* too few to keep 0\.95 .* 19 are needed"):
        fit_limit(np.linspace(0.1, 0.2, 18), flags(18, 0), 0.95)


def test_pictures_of_both_kinds_are_parted_in_the_middle_of_the_gap() -> None:
    fits = np.concatenate([np.linspace(0.3, 0.4, 20), np.linspace(0.1, 0.2, 15)])

    found = fit_limit(fits, flags(20, 15), "labelled")

    assert found.limit == pytest.approx(0.25)
    assert (found.known, found.kept, found.unknown, found.rejected) == (20, 20, 15, 15)
    assert found.method == "labelled"


def test_the_limit_has_the_largest_sum_of_both_shares() -> None:
    numbers = np.random.default_rng(1)
    fits = np.concatenate([numbers.normal(0.3, 0.05, 80), numbers.normal(0.2, 0.05, 60)])
    is_known = flags(80, 60)

    found = fit_limit(fits, is_known, "labelled")

    sums = [(fits[is_known] >= limit).mean() + (fits[~is_known] < limit).mean() for limit in fits]
    assert found.kept / 80 + found.rejected / 60 >= max(sums) - 1e-12


def test_fits_that_do_not_differ_give_no_limit() -> None:
    fits = np.random.default_rng(2).normal(0.2, 0.05, 60)

    with pytest.raises(InvalidMessageError, match="no limit tells them apart"):
        fit_limit(fits, flags(30, 30), "labelled")


def test_few_pictures_of_either_kind_give_no_limit() -> None:
    with pytest.raises(InvalidMessageError, match="label: null are too few"):
        fit_limit(np.linspace(0, 0.3, 39), flags(30, 9), "labelled")


def sample() -> tuple[FakeClient, list[dict[str, Any]]]:
    """Make a client, and pictures to calibrate on."""
    answer, rows = rule_and_rows()
    return FakeClient(answer), rows


def rule_and_rows() -> tuple[Any, list[dict[str, Any]]]:
    """Make pictures of both labels with a fit of 0.3, and others with one of 0.1."""
    scores: dict[str, dict[str, float]] = {}
    fits: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for label, count, fit in ((LABELS[0], 40, 0.3), (LABELS[1], 40, 0.3), (None, 30, 0.1)):
        for number in range(count):
            uri = f"s3://photos/{label}-{number}.jpg"
            best = label or LABELS[0]
            scores[uri] = dict.fromkeys(LABELS, 0.05) | {best: 0.95}
            fits[uri] = fit + 0.001 * number
            rows.append({"image": uri, "label": label, "split": "calibration"})
    return answer_by_scores(scores, fits=fits), rows


def test_a_calibrated_limit_rejects_other_things_and_they_cost_the_promise_nothing() -> None:
    client, rows = sample()

    without = client.calibrate(LABELS, rows, precision=0.9, name="pets")
    found = client.calibrate(LABELS, rows, precision=0.9, name="pets", none_of_these="labelled")

    assert without.none_of_these is None
    assert found.none_of_these is not None
    assert (found.none_of_these.kept, found.none_of_these.rejected) == (80, 30)
    assert without.labels[0].errors > 0 or without.labels[0].threshold is None
    assert found.labels[0].errors == 0
    assert found.report()["none_of_these"]["method"] == "labelled"
    stored = client.label_sets.get(str(found.reference))
    assert stored.learned is not None
    assert stored.learned.none_of_these == found.none_of_these


def test_a_set_with_a_limit_answers_none_of_these_and_is_measured_so() -> None:
    client, rows = sample()
    found = client.calibrate(LABELS, rows, precision=0.9, name="pets", none_of_these=0.95)

    evaluation = client.evaluate(found.label_set, rows, split="calibration")

    others = [one for one in evaluation.scored if not one.image.labels]
    assert {one.because for one in others} == {"none_of_these"}
    none = evaluation.figures.none_of_these
    assert none is not None
    assert (none.rejected, none.auroc_fit) == (30, 1.0)
    prediction = list(evaluation.predictions())[-1]
    assert prediction["abstained_because"] == "none_of_these"
    assert prediction["predicted"] is None


def test_a_later_calibration_keeps_the_limit_and_teaching_drops_it() -> None:
    client, rows = sample()
    first = client.calibrate(LABELS, rows, precision=0.9, name="pets", none_of_these=0.95)

    later = client.calibrate(first.label_set, rows, precision=0.8, name="pets")
    examples = [
        {"image": f"s3://photos/new-{name}.jpg", "label": name, "split": "train"} for name in LABELS
    ]
    taught = client.teach(first.label_set, examples, name="pets").label_set.learned

    assert later.none_of_these == first.none_of_these
    assert taught is not None
    assert taught.none_of_these is None


@pytest.mark.parametrize("choice", ["all", 0.3, 1.0, True, [0.9]])
def test_a_choice_that_is_neither_is_refused(choice: Any) -> None:
    client, rows = sample()

    with pytest.raises(InvalidMessageError, match="none_of_these"):
        client.calibrate(LABELS, rows, precision=0.9, name="pets", none_of_these=choice)


def test_results_of_older_workers_have_no_fit_and_are_refused() -> None:
    _, rows = sample()

    def without_fit(job: Job) -> Result:
        result = sample_result(job=job)
        images = tuple(one.model_copy(update={"fit": None}) for one in result.images)
        return result.model_copy(update={"images": images})

    with pytest.raises(ResultUnreadableError, match="upgrade the workers"):
        FakeClient(without_fit).calibrate(
            LABELS, rows, precision=0.9, name="pets", none_of_these=0.95
        )


def test_the_asynchronous_client_fixes_the_same_limit() -> None:
    answer, rows = rule_and_rows()
    options: Any = {"precision": 0.9, "name": "pets", "none_of_these": 0.95}

    found = asyncio.run(AsyncFakeClient(FakeClient(answer)).calibrate(LABELS, rows, **options))

    ours = FakeClient(answer).calibrate(LABELS, rows, **options)
    assert found.none_of_these == ours.none_of_these


HIERARCHY = LabelSet(
    labels=(
        Label(name="a cat", path=("animal",)),
        Label(name="a dog", path=("animal",)),
        Label(name="a cup"),
    )
)
SCORED: Any = (
    ({"a cat": 0.3, "a dog": 0.3, "a cup": 0.4}, "a cat", ["animal", "a cat"]),
    ({"a cat": 0.6, "a dog": 0.3, "a cup": 0.1}, "a dog", ["animal", "a dog", "a poodle"]),
    ({"a cat": 0.1, "a dog": 0.1, "a cup": 0.8}, "a cup", []),
    ({"a cat": 0.1, "a dog": 0.1, "a cup": 0.8}, None, ["animal"]),
)


@pytest.mark.parametrize("labels", [HIERARCHY, ("a cat", "a dog", "a cup")])
def test_each_level_of_the_hierarchy_is_measured_by_the_sums_of_its_labels(labels: Any) -> None:
    uris = [f"s3://photos/{number}.jpg" for number in range(len(SCORED))]
    scores = {uri: each[0] for uri, each in zip(uris, SCORED, strict=True)}
    rows = [
        {"image": uri, "label": label, "path": path}
        for uri, (_, label, path) in zip(uris, SCORED, strict=True)
    ]

    evaluation = FakeClient(answer_by_scores(scores)).evaluate(
        labels, rows, require=["level[1]>=0.75", "level[2]>=0.9", "level[3]>=0.1"]
    )

    top, second = evaluation.figures.levels
    assert (top.nodes, top.n, top.correct) == (2, 4, 3)
    assert (second.nodes, second.n, second.correct) == (3, 3, 1)
    assert [one.passed for one in evaluation.requirements] == [True, False, False]
    assert evaluation.report()["levels"][0]["accuracy"] == 0.75
    if isinstance(labels, LabelSet):
        first = next(iter(evaluation.predictions()))
        assert first["node"] == {"path": ["animal"], "score": pytest.approx(0.6)}


def test_a_manifest_without_paths_and_a_set_without_them_have_no_levels() -> None:
    client, rows = sample()

    assert client.evaluate(LABELS, rows, split="calibration").figures.levels == []
