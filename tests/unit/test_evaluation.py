"""Evaluations on a client without servers: figures, requirements, files and the page."""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sklearn import metrics as second_opinion

from labelyard import Job, Label, LabelSet, Result
from labelyard.errors import ImageNotFoundError, InvalidMessageError, ServiceConfigError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.evaluation.requirements import read_requirements
from labelyard.evaluation.scored_images import images_in_a_job
from labelyard.label_sets import as_label_set
from labelyard.messages import TitleFinding
from labelyard.testing import (
    AsyncFakeClient,
    FakeClient,
    answer_by_scores,
    sample_result,
    score_image,
)
from labelyard.testing.samples import fail_image
from tests.support import pictures

Scores = Mapping[str, float]
#: Scores of pictures, and the labels that are true for them.
PHOTOS: Sequence[tuple[Scores, str | None]] = (
    ({"cat": 0.7, "dog": 0.2, "soup": 0.1}, "cat"),
    ({"cat": 0.6, "dog": 0.3, "soup": 0.1}, "cat"),
    ({"cat": 0.5, "dog": 0.4, "soup": 0.1}, "dog"),
    ({"cat": 0.1, "dog": 0.8, "soup": 0.1}, "dog"),
    ({"cat": 0.05, "dog": 0.05, "soup": 0.9}, "cat"),
    ({"cat": 0.4, "dog": 0.3, "soup": 0.3}, None),
)
NAMES = ("cat", "dog", "soup")


def answers(photos: Sequence[tuple[Scores, str | None]]) -> Callable[[Job], Result]:
    """Return a rule that answers with the scores of ``s3://photos/<place>``."""

    def answer(job: Job) -> Result:
        images = tuple(
            fail_image(image, ImageNotFoundError(image.uri))
            if "gone" in image.uri
            else score_image(image, job, scores=photos[int(image.uri.rsplit("/", 1)[1])][0])
            for image in job.images
        )
        status = "succeeded" if all(one.error is None for one in images) else "partial"
        return sample_result(job=job).model_copy(update={"images": images, "status": status})

    return answer


def lines(photos: Sequence[tuple[Scores, str | None]]) -> list[dict[str, Any]]:
    return [
        {"image": f"s3://photos/{place}", "label": label} for place, (_, label) in enumerate(photos)
    ]


def evaluated(
    photos: Sequence[tuple[Scores, str | None]] = PHOTOS,
    labels: LabelSet | Sequence[str] = NAMES,
    **options: Any,
) -> Evaluation:
    return FakeClient(answers(photos)).evaluate(labels, lines(photos), **options)


def test_the_figures_are_those_that_a_person_counts() -> None:
    evaluation = evaluated()

    report = evaluation.report()
    assert (report["n"], report["accuracy"]) == (6, pytest.approx(3 / 6))
    assert report["accuracy_interval"][0] < 0.5 < report["accuracy_interval"][1]
    assert report["per_label"]["cat"] == {
        "n": 3,
        "precision": 0.5,
        "recall": pytest.approx(2 / 3),
        "predicted": 4,
        "correct": 2,
        "average_precision": pytest.approx((1 + 1 + 3 / 6) / 3),
        "threshold": None,
        "certified": None,
    }
    assert report["none_of_these"] == {
        "n": 1,
        "rejected": 0,
        "auroc": 1.0,
        "auroc_fit": 1.0,
    }
    assert {"label": None, "predicted": "cat", "n": 1} in report["confusion"]
    assert sum(pair["n"] for pair in report["confusion"]) == 6


def test_the_likelihood_is_of_the_pictures_that_show_a_label() -> None:
    evaluation = evaluated(scoring := PHOTOS[:5])

    truth = [NAMES.index(str(label)) for _, label in scoring]
    shares = [[scores[name] for name in NAMES] for scores, _ in scoring]
    assert evaluation.report()["nll"] == pytest.approx(
        second_opinion.log_loss(truth, shares, labels=[0, 1, 2])
    )
    assert evaluated().report()["nll"] == evaluation.report()["nll"]  # the last one shows none


def test_an_abstention_is_right_for_none_of_these_and_wrong_for_a_label() -> None:
    labels = as_label_set(NAMES, abstain=["something else"])

    def answer(job: Job) -> Result:
        result = answers(PHOTOS)(job)
        images = tuple(
            image.model_copy(update={"abstained": True, "matched": ()}) for image in result.images
        )
        return result.model_copy(update={"images": images})

    evaluation = FakeClient(answer).evaluate(labels, lines(PHOTOS))

    assert evaluation.figures.correct == 1
    assert evaluation.report()["none_of_these"]["rejected"] == 1
    assert {pair.predicted for pair in evaluation.figures.confusion} == {None}


def test_a_threshold_keeps_other_things_out_and_does_not_change_the_best_label() -> None:
    names = [Label(name=name, threshold=0.55) for name in NAMES]

    evaluation = evaluated(labels=LabelSet(labels=tuple(names)))

    assert evaluation.figures.correct == 3 + 1
    assert evaluation.figures.coverage == pytest.approx(4 / 6)
    assert evaluation.per_label()["cat"].detection.precision == 1.0


def test_a_certificate_of_the_set_is_reported_with_its_label() -> None:
    evidence = {"precision": 0.9, "confidence": 0.95, "accepted": 40, "errors": 1, "threshold": 0.4}
    own = {"cat": {"threshold": 0.6, "accepted": 30, "errors": 0}}
    certified = {**evidence, "labels": own}
    learned = {"checkpoint": "sha256:00", "certified": certified}
    labels = [Label(name=name, threshold=0.4) for name in NAMES]

    found = evaluated(labels=LabelSet(labels=labels, learned=learned)).report()["per_label"]

    promise = {"precision": 0.9, "confidence": 0.95}
    assert found["cat"]["certified"] == promise | {"accepted": 30, "errors": 0, "together": False}
    assert found["dog"]["certified"] == promise | {"accepted": 40, "errors": 1, "together": True}


def test_several_true_labels_count_each_for_itself() -> None:
    photos = [
        ({"cat": 0.9, "dog": 0.7, "soup": 0.2}, None),
        ({"cat": 0.8, "dog": 0.1, "soup": 0.6}, None),
    ]
    manifest = [
        {"image": "s3://photos/0", "labels": ["cat", "dog"]},
        {"image": "s3://photos/1", "labels": ["soup"]},
    ]
    labels = as_label_set(NAMES, scoring="sigmoid")

    evaluation = FakeClient(answers(photos)).evaluate(labels, manifest)

    truth = [[1, 1, 0], [0, 0, 1]]
    shares = [[scores[name] for name in NAMES] for scores, _ in photos]
    by_label = [
        second_opinion.log_loss(
            [row[at] for row in truth], [row[at] for row in shares], labels=[0, 1]
        )
        for at in range(3)
    ]
    assert evaluation.report()["nll"] == pytest.approx(sum(by_label))
    assert evaluation.accuracy == 0.5
    assert [one.detection.recall for one in evaluation.figures.labels] == [1.0, 1.0, 1.0]
    assert evaluation.per_label()["cat"].detection.precision == 0.5


@pytest.mark.parametrize(
    ("photos", "abstain", "scoring"),
    [
        (PHOTOS, (), "softmax"),
        ([({"cat": 0.4, "dog": 0.2, "soup": 0.1}, "cat")], ("else",), "softmax"),
        ([({"cat": 0.4, "dog": 0.2, "soup": 0.1}, "cat")], (), "sigmoid"),
        ([({"cat": 0.01, "dog": 0.0, "soup": 0.0}, "cat")], ("else",), "sigmoid"),
        ([({"cat": 0.9, "dog": 0.8, "soup": 0.1}, "cat")], ("else",), "sigmoid"),
    ],
)
def test_the_scoring_of_a_checkpoint_is_found_in_its_scores(
    photos: Sequence[tuple[Scores, str]], abstain: Sequence[str], scoring: str
) -> None:
    labels = as_label_set(NAMES, abstain=list(abstain))

    assert evaluated(photos, labels).report()["scoring"] == scoring


def test_the_worst_contradictions_come_first() -> None:
    suspicions = evaluated().figures.suspicions

    assert [one.scored.image.line for one in suspicions] == [5, 6, 3]
    assert (suspicions[0].best, suspicions[0].given_score) == ("soup", 0.05)


def test_a_picture_without_scores_is_counted_and_changes_no_figure() -> None:
    gone = {"image": "s3://photos/gone", "label": "cat"}

    evaluation = FakeClient(answers(PHOTOS)).evaluate(NAMES, [gone, *lines(PHOTOS)])

    assert (evaluation.n, evaluation.figures.failed) == (6, 1)
    assert evaluation.accuracy == 0.5
    assert next(evaluation.predictions())["error"] == "image_not_found"


def test_without_a_single_score_there_are_no_figures(tmp_path: Path) -> None:
    gone = {"image": "s3://photos/gone", "label": "cat"}

    evaluation = FakeClient(answers(PHOTOS)).evaluate(NAMES, [gone], require=["accuracy>=0"])

    assert (evaluation.accuracy, evaluation.passed) == (None, False)
    assert json.loads((evaluation.write(tmp_path) / "report.json").read_text())["n"] == 0


def test_the_asynchronous_client_gives_the_same() -> None:
    fake = FakeClient(answers(PHOTOS))

    found = asyncio.run(AsyncFakeClient(fake).evaluate(NAMES, lines(PHOTOS), require=["n>=6"]))

    assert found.passed
    assert found.figures == evaluated().figures
    by_run = AsyncFakeClient(fake).evaluate(NAMES, lines(PHOTOS), out="s3://results/a/")
    assert asyncio.run(by_run).figures == found.figures


def test_a_fake_takes_the_prefix_of_a_run_and_refuses_what_is_none() -> None:
    assert evaluated(out="s3://results/a").figures == evaluated().figures
    with pytest.raises(InvalidMessageError, match="out: "):
        evaluated(out="results/a")


def test_a_registered_set_is_scored_by_its_reference() -> None:
    fake = FakeClient(answers(PHOTOS))
    reference = fake.label_sets.register("animals", as_label_set(NAMES))

    evaluation = fake.evaluate(reference, lines(PHOTOS))

    assert fake.jobs[0].label_set == reference
    assert evaluation.report()["reference"] == reference


def test_every_label_is_asked_for_and_a_job_has_at_most_64_pictures() -> None:
    photos = [PHOTOS[0]] * 130
    fake = FakeClient(answers(photos))

    fake.evaluate(NAMES, lines(photos))

    assert [len(job.images) for job in fake.jobs] == [64, 64, 2]
    assert {job.top_k for job in fake.jobs} == {3}


@pytest.mark.parametrize(("count", "letters"), [(3, 1), (1_000, 20), (10_000, 20), (10_000, 250)])
def test_all_scores_of_a_job_fit_into_its_result(count: int, letters: int) -> None:
    names = [f"{place:0{letters}d}" for place in range(count)]

    size = images_in_a_job(as_label_set(names))

    assert 1 <= size <= 64
    assert size * count <= 100_000
    one = {"name": names[-1], "score": 0.12345678901234567}
    assert size * count * (len(json.dumps(one)) + 1 + letters + 3) < 8 * 2**20


@pytest.mark.parametrize(
    ("text", "passed", "value"),
    [
        ("accuracy>=0.5", True, 0.5),
        ("accuracy > 0.5", False, 0.5),
        ("accuracy_low>=0.5", False, pytest.approx(0.188, abs=0.001)),
        ("ece<=1", True, pytest.approx(0.45)),
        ("n>=7", False, 6),
        ("failed<=0", True, 0),
        ("auroc>=0.9", True, 1.0),
        ("recall[cat]>=0.66", True, pytest.approx(2 / 3)),
        ("precision[dog]>=1", True, 1.0),
        ("recall[*]>=0.6", False, 0.5),
        ("recall[soup]>=0", False, None),
    ],
)
def test_requirements_are_compared_with_their_figure(
    text: str, passed: bool, value: float | None
) -> None:
    [checked] = evaluated(require=[text]).requirements

    assert (checked.passed, checked.value) == (passed, value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy", "write one such as"),
        ("accuracy=0.9", "write one such as"),
        ("accuracy>=90", "0.9 for 90 %"),
        ("accuracy>=nan", "from 0 to 1"),
        ("accuracy>=many", "write a number"),
        ("acuracy>=0.9", "there is no figure acuracy"),
        ("recall>=0.9", r"recall\[a label\]"),
        ("accuracy[cat]>=0.9", "without a label"),
        ("recall[cow]>=0.9", "has no label 'cow'"),
        ("nll<=-1", "at least 0"),
    ],
)
def test_a_wrong_requirement_is_refused_before_a_picture_is_submitted(text: str, said: str) -> None:
    fake = FakeClient(answers(PHOTOS))

    with pytest.raises(InvalidMessageError, match=said):
        fake.evaluate(NAMES, lines(PHOTOS), require=[text])
    assert fake.jobs == []


def test_a_label_with_brackets_can_be_required() -> None:
    [one] = read_requirements("recall[a [big] cat]>=0.5", labels=["a [big] cat"])

    assert (one.label, one.bound) == ("a [big] cat", 0.5)


def test_without_the_extra_the_error_names_it_before_a_picture_is_submitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeClient(answers(PHOTOS))
    monkeypatch.setitem(sys.modules, "numpy", None)

    with pytest.raises(ServiceConfigError, match=r"pip install 'labelyard\[evaluation\]'"):
        fake.evaluate(NAMES, lines(PHOTOS))
    assert fake.jobs == []


class Page(HTMLParser):
    """Parser of a page: its text and its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.images: list[str] = []
        self.feed(text)

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += [str(value) for key, value in attrs if name == "img" and key == "src"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_files_hold_every_score_and_the_page_shows_local_pictures(tmp_path: Path) -> None:
    photo = tmp_path / "0"
    photo.write_bytes(pictures.jpeg())
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"image": "0", "label": "dog", "text": "a title"}))

    evaluation = FakeClient(answers(PHOTOS)).evaluate(NAMES, manifest, require=["accuracy>=0.9"])
    folder = evaluation.write(tmp_path / "found")

    report = json.loads((folder / "report.json").read_text())
    assert list(report)[:6] == ["n", "accuracy", "accuracy_interval", "ece", "nll", "per_label"]
    assert report == json.loads(json.dumps(evaluation.report()))
    [line] = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    assert line["scores"] == {"cat": 0.7, "dog": 0.2, "soup": 0.1}
    assert (line["predicted"], line["correct"], line["text"]) == ("cat", False, "a title")
    page = Page((folder / "report.html").read_text())
    assert [source[:11] for source in page.images] == ["data:image/"]
    assert "accuracy>=0.9" in page.words
    assert evaluation.report()["requirements"][0]["passed"] is False


def test_texts_that_contradict_their_pictures_are_counted_and_the_worst_ones_come_first(
    tmp_path: Path,
) -> None:
    def answer(job: Job) -> Result:
        result = answers(PHOTOS)(job)
        images = tuple(
            image.model_copy(update={"title": title_of(image.id)}) for image in result.images
        )
        return result.model_copy(update={"images": images})

    def title_of(place: str) -> TitleFinding | None:
        agreement = (0.9, 0.06, 0.001, 0.5, 0.01, None)[int(place)]
        return agreement and TitleFinding(
            label="soup", score=0.8, agreement=agreement, agrees=agreement >= 0.05
        )

    rows = [{**row, "text": f"<text {n}>"} for n, row in enumerate(lines(PHOTOS))]
    evaluation = FakeClient(answer).evaluate(NAMES, rows)
    folder = evaluation.write(tmp_path, has_thumbnails=False)

    words = Page((folder / "report.html").read_text()).words
    assert evaluation.report()["titles"] == {"n": 5, "disagree": 2}
    assert [word for word in words if word.startswith("<text")] == [
        *("<text 2>", "<text 4>", "<text 1>")
    ]
    assert any(word.startswith("2 of 5 texts (40 %) contradict") for word in words)
    assert "titles" not in evaluated().report()


def test_hostile_names_stay_text_in_the_page(tmp_path: Path) -> None:
    label = "</style><script>alert(1)</script>"
    photos = [({label: 0.3, "dog": 0.7}, label)]

    folder = evaluated(photos, [label, "dog"]).write(tmp_path, has_thumbnails=False)

    text = (folder / "report.html").read_text()
    assert "<script" not in text
    assert label in Page(text).words


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidMessageError, match="file"):
        evaluated().write(tmp_path / "file", has_thumbnails=False)


def test_each_template_is_measured_on_the_same_pictures_and_the_best_one_named() -> None:
    def answer(job: Job) -> Result:
        assert isinstance(job.label_set, LabelSet)
        is_good = job.label_set.templates == ("a good {}.",)
        scores = {"cat": 0.9, "dog": 0.1} if is_good else {"cat": 0.2, "dog": 0.8}
        rule = answer_by_scores({image.uri: scores for image in job.images})
        return rule(job)

    rows = [{"image": f"s3://photos/{n}.jpg", "label": "cat"} for n in range(4)]
    client = FakeClient(answer)
    templates = ["a bad {}.", "a good {}."]

    choice = client.compare_templates(["cat", "dog"], rows, templates=templates)
    again = asyncio.run(
        AsyncFakeClient(client).compare_templates(["cat", "dog"], rows, templates=templates)
    )

    assert choice.best == again.best == "a good {}."
    assert [one["accuracy"] for one in choice.report()["templates"]] == [0.0, 1.0]
    with pytest.raises(InvalidMessageError, match=r"\{\}"):
        client.compare_templates(["cat", "dog"], rows, templates=["without"])
