"""Comparisons of two label sets on a client without servers: flips, significance, labels, page."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from scipy import stats

from labelyard import Job, Result
from labelyard.errors import InvalidMessageError
from labelyard.evaluation.comparison import Comparison, compare_evaluations
from labelyard.evaluation.evaluation import Evaluation
from labelyard.testing import FakeClient, sample_result, score_image

NAMES = ("cat", "dog")


def answer(cats: Mapping[str, float]) -> Callable[[Job], Result]:
    """Return a rule that gives each picture its score for ``cat``."""

    def rule(job: Job) -> Result:
        images = tuple(
            score_image(
                image, job, scores={"cat": cats[image.uri[-1]], "dog": 1 - cats[image.uri[-1]]}
            )
            for image in job.images
        )
        return sample_result(job=job).model_copy(update={"images": images})

    return rule


def evaluated(cats: Mapping[str, float], truth: Sequence[str | None]) -> Evaluation:
    lines = [{"image": f"s3://photos/{place}", "label": label} for place, label in enumerate(truth)]
    return FakeClient(answer(cats)).evaluate(NAMES, lines)


@pytest.fixture
def comparison() -> Comparison:
    """Two sets that differ on three of five pictures: two are fixed, one is broken."""
    truth = ["cat", "cat", "dog", "dog", "cat"]
    first = {"0": 0.9, "1": 0.3, "2": 0.1, "3": 0.8, "4": 0.9}
    second = {"0": 0.8, "1": 0.7, "2": 0.6, "3": 0.2, "4": 0.9}
    return compare_evaluations(evaluated(first, truth), evaluated(second, truth))


def test_flips_are_counted_and_tested(comparison: Comparison) -> None:
    report = comparison.report()

    assert report["right"] == {"both": 2, "only_a": 1, "only_b": 2, "neither": 0}
    assert report["flips"] == {"fixed": 2, "broken": 1, "changed": 0}
    assert report["difference"] == pytest.approx(report["b"]["accuracy"] - report["a"]["accuracy"])
    assert report["mcnemar_p"] == pytest.approx(stats.binomtest(1, 3).pvalue)


def test_broken_pictures_come_first_then_the_highest_scores(comparison: Comparison) -> None:
    flips = [(flip.kind, flip.scored.image.line) for flip in comparison.flips]

    assert flips == [("broken", 3), ("fixed", 4), ("fixed", 2)]
    assert comparison.flips[0].answers == ("dog", "cat")


def test_each_label_has_its_figures_before_and_after(comparison: Comparison) -> None:
    label = comparison.report()["per_label"]["dog"]

    assert label["n"] == 2
    assert label["recall"] == [0.5, 0.5]
    assert label["precision"] == [0.5, 1.0]


def test_a_picture_that_shows_none_of_the_labels_counts_as_any_other() -> None:
    both = [evaluated({"0": 0.9}, [None]), evaluated({"0": 0.1}, [None])]

    report = compare_evaluations(*both).report()

    assert report["right"]["neither"] == 1
    assert report["flips"]["changed"] == 1


def test_evaluations_of_other_pictures_are_refused(comparison: Comparison) -> None:
    with pytest.raises(InvalidMessageError, match="not of the same pictures"):
        compare_evaluations(comparison.first, evaluated({"0": 0.5}, ["cat"]))


def test_the_files_hold_every_flip(comparison: Comparison, tmp_path: Path) -> None:
    folder = comparison.write(tmp_path, has_thumbnails=False)

    report = json.loads((folder / "report.json").read_text())
    flips = [json.loads(line) for line in (folder / "flips.jsonl").read_text().splitlines()]
    assert report == comparison.report()
    assert report["examples"] == flips
    page = (folder / "report.html").read_text()
    assert "no clear difference" in page
    assert "Only the first set has these right." in page
