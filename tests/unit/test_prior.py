"""Biases of labels, from expected shares and from samples."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelyard.errors import InvalidMessageError, LabelSetWorseError
from labelyard.evaluation.prior import bayes_bias, fit_bias, level_bias, to_shares
from labelyard.label_sets import as_label_set, label_set_digest
from labelyard.messages import Certified, Label, LabelSet, Learned
from labelyard.testing import AsyncFakeClient, FakeClient, answer_by_scores

LABELS = ("a cat", "a dog", "a fox")
SHARES = {"a cat": 0.7, "a dog": 0.2, "a fox": 0.1}


def pictures(
    count: int = 300, *, seed: int = 0, shares: tuple[float, ...] = (0.7, 0.2, 0.1)
) -> tuple[FakeClient, list[dict[str, Any]]]:
    """Make pictures with the shares, and a client whose scores favour foxes."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(3, count, p=shares)
    logits = generator.normal(size=(count, 3)) + 2.0 * np.eye(3)[truth] + np.array([0, 0, 1.5])
    scores = to_shares(logits)
    rows, answers = [], {}
    for number, (label, each) in enumerate(zip(truth.tolist(), scores.tolist(), strict=True)):
        uri = f"s3://photos/{number}.jpg"
        answers[uri] = dict(zip(LABELS, each, strict=True))
        rows.append({"image": uri, "label": LABELS[label]})
    return FakeClient(answer_by_scores(answers)), rows


def unlabelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"image": row["image"]} for row in rows]


def test_mean_scores_of_a_large_sample_become_the_expected_shares():
    client, rows = pictures(2000)

    found = client.adapt(LABELS, shares=SHARES, sample=unlabelled(rows), name="pets")

    assert found.n == 2000
    for name, share in SHARES.items():
        before, after = found.mean_scores[name]
        assert abs(before - share) > abs(after - share)
        assert after == pytest.approx(share, abs=0.002)
    assert found.bias == client.label_sets.get(str(found.reference)).learned.bias


def test_true_shares_make_more_of_a_skewed_sample_right():
    client, rows = pictures()

    found = client.adapt(LABELS, shares=SHARES, sample=rows, name="pets")

    assert found.labelled == 300
    assert found.accuracy is not None
    assert found.accuracy[1] > found.accuracy[0] + 0.05


def test_a_small_sample_stays_close_to_the_rule_of_bayes():
    logits = np.random.default_rng(0).normal(size=(2000, 3)) + np.array([0.0, 0.0, 4.0])
    shares = np.array([0.7, 0.2, 0.1])

    few, many = (np.abs(fit_bias(logits[:n], shares) - bayes_bias(shares)).max() for n in (2, 2000))

    assert few < many


def test_a_sample_without_shares_takes_each_labels_mean_logit_away():
    logits = np.random.default_rng(0).normal(size=(50, 3)) + np.array([0.0, 1.0, -2.0])

    means = (logits + level_bias(logits)).mean(axis=0)

    np.testing.assert_allclose(means, means[0])


def test_a_version_that_is_worse_on_labelled_pictures_is_refused_and_not_registered():
    client, rows = pictures()
    wrong = {"a cat": 0.1, "a dog": 0.1, "a fox": 0.8}

    with pytest.raises(LabelSetWorseError, match="of 300 labelled pictures"):
        client.adapt(LABELS, shares=wrong, sample=rows, name="pets")

    assert client.label_sets.versions("pets") == []


def test_shares_alone_act_by_the_rule_of_bayes_for_the_checkpoint_of_the_set():
    client = FakeClient()
    learned = Learned(checkpoint="sha256:abc")
    label_set = as_label_set(LABELS).model_copy(update={"learned": learned, "temperature": 2.0})

    found = client.adapt(label_set, shares=SHARES, name="pets")

    differences = found.bias["a cat"] - found.bias["a fox"]
    assert differences == pytest.approx(2.0 * np.log(7), abs=1e-5)
    with pytest.raises(InvalidMessageError, match="give a sample"):
        client.adapt(LABELS, shares=SHARES, name="pets")


def test_a_second_version_adds_to_the_first_and_a_promise_of_other_scores_goes():
    client, rows = pictures(500)
    certified = Certified(precision=0.9, confidence=0.9, accepted=50, errors=0, threshold=0.3)
    learned = Learned(checkpoint="test", certified=certified, bias={"a cat": 3.0})
    labels = tuple(Label(name=name, threshold=0.3) for name in LABELS)
    label_set = LabelSet(labels=labels, learned=learned)

    plain = client.adapt(LABELS, shares=SHARES, sample=rows, name="pets")
    again = client.adapt(label_set, shares=SHARES, sample=rows, name="pets")

    assert again.bias["a cat"] == pytest.approx(plain.bias["a cat"] + 3.0, abs=1e-5)
    assert again.label_set.learned is not None
    assert again.label_set.learned.certified is None
    assert {label.threshold for label in again.label_set.labels} == {None}


def test_a_run_is_a_sample_by_its_id_and_both_clients_adapt_alike(tmp_path: Path):
    client, rows = pictures()
    client.runs.labelled["run-1"] = [row["image"] for row in rows]
    file = tmp_path / "shares.json"
    file.write_text(json.dumps(SHARES))

    of_run = client.adapt(LABELS, shares=file, sample="run-1", name="pets")
    of_rows = asyncio.run(
        AsyncFakeClient(client).adapt(LABELS, shares=SHARES, sample=unlabelled(rows), name="pets")
    )

    assert of_run.reference == of_rows.reference


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"a cat": 0.7, "a dog": 0.3}, "'a fox' has no share"),
        ({**SHARES, "a cow": 0.1}, "no label 'a cow'"),
        ({"a cat": 0.7, "a dog": 0.2, "a fox": 0.5}, "add up to 1.400"),
        ({"a cat": True, "a dog": 0.2, "a fox": 0.5}, "'a cat' has no share"),
        ("nowhere.json", "nowhere.json"),
        ([0.1], "write an object"),
    ],
)
def test_shares_that_cannot_be_are_refused_before_a_picture_is_scored(shares: Any, words: str):
    client, rows = pictures(10)

    with pytest.raises(InvalidMessageError, match=words):
        client.adapt(LABELS, shares=shares, sample=rows, name="pets")

    assert client.jobs == []


def test_a_set_without_a_bias_keeps_its_digest():
    learned = Learned(checkpoint="sha256:abc")
    label_set = as_label_set(LABELS).model_copy(update={"learned": learned})

    assert "bias" not in label_set.model_dump_json()
    assert label_set_digest(label_set) == label_set_digest(
        LabelSet.model_validate_json(label_set.model_dump_json())
    )
