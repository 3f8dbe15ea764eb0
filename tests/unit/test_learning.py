"""Teaching and calibrating through the clients, without servers."""

import asyncio
from typing import Any

import pytest

from labelyard.errors import (
    ImageNotFoundError,
    InvalidMessageError,
    LabelSetOfAnotherCheckpointError,
    LabelyardError,
    StorageUnavailableError,
)
from labelyard.evaluation.calibrating import Calibration
from labelyard.label_sets import as_label_set
from labelyard.messages import Certified, Job, Label, LabelSet, Learned, Result
from labelyard.testing import AsyncFakeClient, FakeClient, answer_by_scores, sample_result

LABELS = ("a cat", "a dog", "a fox")


def sample(
    counts: dict[str, int], *, wrong: dict[str, int] | None = None, sure: float = 0.9
) -> tuple[FakeClient, list[dict[str, Any]]]:
    """Make pictures that are answered with each label, some of them wrongly and less surely."""
    scores: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for answer, count in counts.items():
        others = [label for label in LABELS if label != answer]
        for number in range(count):
            is_wrong = number < (wrong or {}).get(answer, 0)
            best = (0.5 if is_wrong else sure) - 1e-5 * number
            uri = f"s3://photos/{answer}-{number}.jpg"
            scores[uri] = {answer: best} | dict.fromkeys(others, (1.0 - best) / 2)
            label = others[0] if is_wrong else answer
            rows.append({"image": uri, "label": label, "split": "calibration"})
    return FakeClient(answer_by_scores(scores)), rows


def calibrate(client: FakeClient, rows: Any, labels: Any = LABELS, **options: Any) -> Calibration:
    """Calibrate at a precision of 0.95."""
    return client.calibrate(labels, rows, **{"precision": 0.95, "name": "pets", **options})


def test_a_label_with_much_evidence_is_certified_by_itself_and_the_others_together():
    client, rows = sample({"a cat": 150, "a dog": 80, "a fox": 70}, wrong={"a dog": 20})

    found = calibrate(client, rows)

    cat, dog, fox = found.labels
    assert (cat.is_certified, cat.missing) == (True, 0)
    assert (dog.is_certified, dog.is_certified_together) == (False, True)
    assert fox.threshold == dog.threshold
    assert dog.errors == 0
    assert dog.missing is not None
    certified = found.certified
    assert certified is not None
    assert set(certified.labels) == {"a cat"}
    assert certified.errors == 0
    assert 260 < certified.accepted <= 280
    assert found.label_set == client.label_sets.get(str(found.reference))


def test_twenty_pictures_a_label_certify_none_and_invent_no_threshold():
    client, rows = sample({"a cat": 20, "a dog": 20, "a fox": 20}, wrong={"a fox": 12})

    found = calibrate(client, rows)

    assert found.certified is None
    assert [label.threshold for label in found.label_set.labels] == [None] * 3
    assert found.labels[0].verdict == "not certified, needs about 25 more pictures"
    assert found.label_set.learned is not None


def test_a_picture_in_many_lines_is_no_more_evidence_than_in_one():
    client, rows = sample(dict.fromkeys(LABELS, 12))

    once, thrice = calibrate(client, rows), calibrate(client, rows * 3)

    assert (thrice.n, thrice.repeated) == (once.n, 72)
    assert [one.verdict for one in thrice.labels] == [one.verdict for one in once.labels]
    assert thrice.certified is None


def test_a_picture_with_two_labels_does_not_calibrate_and_the_error_names_both_lines():
    client, rows = sample(dict.fromkeys(LABELS, 2))

    with pytest.raises(InvalidMessageError, match="line 7: the same picture as in line 1, with"):
        calibrate(client, [*rows, {**rows[0], "label": "a fox"}])


def test_a_label_that_others_hold_back_lacks_what_a_certificate_of_its_own_needs():
    client, rows = sample({"a cat": 60, "a dog": 30}, wrong={"a dog": 28}, sure=0.6)

    cat, _, fox = calibrate(client, rows).labels

    assert cat.verdict == "not certified, needs about 75 more pictures"
    assert fox.verdict == "not certified, no picture was answered with it"


@pytest.mark.parametrize(
    ("error", "raised", "text"),
    [
        (LabelSetOfAnotherCheckpointError("learned with another"), None, "learned with another"),
        (StorageUnavailableError("s3://photos"), None, "s3://photos"),
        (ImageNotFoundError("s3://photos/0.jpg"), InvalidMessageError, "line 1: image_not_found"),
    ],
    ids=["set", "storage", "picture"],
)
def test_a_fault_that_is_no_pictures_keeps_its_class(
    error: LabelyardError, raised: type[LabelyardError] | None, text: str
):
    client = FakeClient(answer_by_scores({"s3://photos/0.jpg": error}))
    rows = [{"image": "s3://photos/0.jpg", "label": "a cat", "split": "calibration"}]

    with pytest.raises(raised or type(error), match=text) as caught:
        calibrate(client, rows)

    assert type(caught.value) is (raised or type(error))


def test_thresholds_of_the_owner_stay_and_those_of_an_earlier_calibration_go():
    client, rows = sample(dict.fromkeys(LABELS, 10))
    owned = LabelSet(labels=tuple(Label(name=name, threshold=0.3) for name in LABELS))
    certified = Certified(precision=0.9, confidence=0.9, accepted=50, errors=0, threshold=0.3)
    learned = Learned(checkpoint="sha256:old", certified=certified)
    earlier = owned.model_copy(update={"learned": learned})

    kept, dropped = (calibrate(client, rows, labels) for labels in (owned, earlier))

    assert {label.threshold for label in kept.label_set.labels} == {0.3}
    assert {label.threshold for label in dropped.label_set.labels} == {None}


def test_under_sigmoid_each_label_is_certified_by_itself_and_the_temperature_stays():
    client, rows = sample({"a cat": 100, "a dog": 100})

    found = calibrate(client, rows, LabelSet(labels=as_label_set(LABELS).labels, scoring="sigmoid"))

    assert [label.is_certified for label in found.labels] == [True, True, False]
    assert found.label_set.temperature == 1.0
    assert found.nll is None


def test_scores_that_are_too_sure_get_a_temperature_above_one():
    client, rows = sample(dict.fromkeys(LABELS, 60), wrong=dict.fromkeys(LABELS, 20), sure=0.999)

    found = calibrate(client, rows)

    assert found.nll is not None
    assert found.nll[1] < found.nll[0]
    assert found.label_set.temperature != 1.0


def test_pictures_that_taught_a_set_do_not_calibrate_it_under_another_name_either():
    client = FakeClient()
    rows = [
        {"image": f"s3://photos/{name}.jpg", "label": name, "split": "train"} for name in LABELS
    ]
    taught = client.teach(LABELS, rows, name="pets")
    again = [{**row, "split": "calibration"} for row in rows]

    def with_vectors(job: Job) -> Result:
        return answer(job.model_copy(update={"vectors": True}))  # for the digests of contents

    answer = client._answer
    assert answer is not None
    client._answer = with_vectors

    with pytest.raises(InvalidMessageError, match=r"3 pictures are examples .* \(lines 1, 2, 3\)"):
        calibrate(client, again, taught.label_set)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, float("nan")])
@pytest.mark.parametrize("option", ["precision", "confidence"])
def test_a_share_that_cannot_be_promised_is_refused(option, share):
    client, rows = sample({"a cat": 1})

    with pytest.raises(InvalidMessageError, match=option):
        calibrate(client, rows, **{option: share})


def test_a_picture_without_scores_is_not_left_out_in_silence():
    client = FakeClient(lambda job: sample_result("failed", job=job))

    with pytest.raises(InvalidMessageError, match="line 1"):
        calibrate(
            client, [{"image": "s3://photos/gone.jpg", "label": "a cat", "split": "calibration"}]
        )


def test_the_asynchronous_client_makes_the_same_versions():
    rows = [
        {"image": f"s3://photos/{n}.jpg", "label": LABELS[n % 3], "split": "train"}
        for n in range(9)
    ]

    async def learn() -> tuple[Any, Any]:
        async with AsyncFakeClient() as client:
            taught = await client.teach(LABELS, rows, name="pets")
            return taught, await client.calibrate(
                LABELS,
                [{**row, "split": "calibration"} for row in rows],
                precision=0.9,
                name="pets",
            )

    taught, calibrated = asyncio.run(learn())

    client = FakeClient()
    assert taught.reference == client.teach(LABELS, rows, name="pets").reference
    assert calibrated.labels[0].answered == 9


def test_a_set_without_a_name_cannot_be_registered():
    with pytest.raises(InvalidMessageError, match="name"):
        FakeClient().teach(LABELS, [{"image": "s3://a/b.jpg", "label": "a cat", "split": "train"}])
