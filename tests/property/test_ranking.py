"""For all logits the ranking is that of a full stable sort, and scores are from 0 to 1."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from labelyard.messages import Label, LabelSet, Scoring
from labelyard_worker.vision import scorer as scorer_module
from labelyard_worker.vision.gpu_scoring import GpuSelector
from labelyard_worker.vision.ranking import rank_arrays
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling, sigmoid, softmax
from labelyard_worker.vision.selection import select_labels

SCORINGS: tuple[Scoring, ...] = ("softmax", "sigmoid")
# Few different values, so that ties are common; and any value at all.
TIED = st_numpy.arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([-1.0, 0.0, 2.0]))
ANY = st_numpy.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))


@given(logits=TIED | ANY, top_k=st.integers(1, 80))
def test_the_best_are_those_of_a_full_stable_sort(logits: Floats, top_k: int) -> None:
    label_set = LabelSet(labels=tuple(Label(name=str(n)) for n in range(len(logits))))
    vectors = np.zeros((len(logits), 1), dtype=np.float32)
    matrix = LabelMatrix.of(label_set, vectors, digest="", trained_scoring="softmax")
    expected = np.argsort(-logits, kind="stable")[:top_k]

    selection = select_labels(logits[None], matrix, fits=np.zeros(1), top_k=top_k)
    (found,) = rank_arrays(selection, matrix, top_k=top_k).to_image_scores(matrix.names)

    assert [int(label.name) for label in found.labels] == expected.tolist()


@given(logits=TIED | ANY)
def test_softmax_rows_sum_to_one_and_keep_the_order(logits: Floats) -> None:
    scores = softmax(logits[None].astype(np.float64))[0]

    assert abs(scores.sum() - 1) < 1e-9
    assert np.all(np.diff(scores[np.argsort(logits, kind="stable")]) >= 0)


@given(logits=TIED | ANY)
def test_sigmoid_stays_between_0_and_1_and_keeps_the_order(logits: Floats) -> None:
    scores = sigmoid(logits[None].astype(np.float64))[0]

    assert np.all((scores >= 0) & (scores <= 1))
    assert np.all(np.diff(scores[np.argsort(logits, kind="stable")]) >= 0)


@given(
    cosines=st_numpy.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(2, 20)),
        elements=st.floats(-1, 1, width=16),
    ),
    thresholds=st.lists(st.none() | st.floats(0, 1), min_size=20, max_size=20),
    abstain=st.integers(0, 1),
    scoring=st.sampled_from(["softmax", "sigmoid"]),
    top_k=st.integers(1, 30),
)
def test_matches_and_ranks_agree_with_the_plain_definition(
    cosines: Floats, thresholds: list[float | None], abstain: int, scoring: str, top_k: int
) -> None:
    """The fast way finds the labels that the contract defines."""
    count = cosines.shape[1] - abstain
    label_set = LabelSet(
        labels=tuple(Label(name=str(n), threshold=thresholds[n]) for n in range(count)),
        abstain=("none of these",) * abstain,
        scoring=scoring,
    )
    identity = np.eye(cosines.shape[1], dtype=np.float32)
    matrix = LabelMatrix.of(label_set, identity, digest="sha256:0", trained_scoring="softmax")

    found = Scorer(Scaling(20)).score(list(cosines), matrix, top_k=top_k)

    for image, row in zip(found, cosines.astype(np.float64) * 20, strict=True):
        scores = (softmax if scoring == "softmax" else sigmoid)(row[None])[0]
        ranked = sorted(range(count), key=lambda n: -row[n])
        default = 0.5 if scoring == "sigmoid" else None
        good = [
            str(n)
            for n in ranked
            if (
                scores[n] >= threshold
                if (threshold := default if thresholds[n] is None else thresholds[n]) is not None
                else n == ranked[0]
            )
        ]
        abstained = bool(abstain) and row[count] > max(row[:count])
        assert [label.name for label in image.labels] == [str(n) for n in ranked[:top_k]]
        assert image.abstained == abstained
        assert list(image.matched) == ([] if abstained else good)


@given(
    cosines=st_numpy.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 8)),
        elements=st.floats(-1, 1, width=32),
    ),
    temperature=st.floats(0, 1000, exclude_min=True),
    logit_scale=st.floats(1e-6, 1e6),
    logit_bias=st.floats(-1e6, 1e6),
    scoring=st.sampled_from(SCORINGS),
)
@example(np.array([[0.2, 0.1]], np.float32), 5e-324, 100.0, 0.0, "softmax")
@example(np.array([[0.2, -0.2]], np.float32), 5e-324, 1e6, -1e6, "sigmoid")
@example(np.array([[0.0, 1e-45]], np.float32), 5e-324, 1e-6, 0.0, "softmax")
def test_scores_are_finite_and_ranked_whatever_is_legal(
    cosines: Floats, temperature: float, logit_scale: float, logit_bias: float, scoring: Scoring
) -> None:
    count = cosines.shape[1]
    label_set = LabelSet.model_construct(
        labels=tuple(Label(name=str(n)) for n in range(count)),
        abstain=(),
        scoring=scoring,
        temperature=temperature,
    )
    identity = np.eye(count, dtype=np.float32)
    matrix = LabelMatrix.of(label_set, identity, digest="sha256:0", trained_scoring="softmax")
    scaling = Scaling(logit_scale, logit_bias)
    images = list(cosines)

    hosts = Scorer(scaling).score(images, matrix, top_k=count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer_module, "MANY_LABELS", 1)
        gpu = GpuSelector(torch.device("cpu"), capacity_bytes=1 << 20)
        devices = Scorer(scaling, gpu=gpu).score(images, matrix, top_k=count)

    for found, row in zip([*hosts, *devices], [*cosines, *cosines], strict=True):
        scores = [label.score for label in found.labels]
        assert all(0 <= score <= 1 for score in scores)
        assert scores == sorted(scores, reverse=True)
        raw = row.astype(np.float64) * logit_scale + logit_bias
        assert raw[int(found.labels[0].name)] == raw.max()
        if scoring == "softmax":
            assert abs(sum(scores) - 1) < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("is_on_device", [False, True])
def test_an_embedding_that_is_not_finite_gives_an_error_and_no_score(
    bad: float, scoring: Scoring, is_on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "MANY_LABELS", 1)
    label_set = LabelSet(labels=(Label(name="a"), Label(name="b")), scoring=scoring)
    identity = np.eye(2, dtype=np.float32)
    matrix = LabelMatrix.of(label_set, identity, digest="sha256:0", trained_scoring="softmax")
    gpu = GpuSelector(torch.device("cpu"), capacity_bytes=1 << 20) if is_on_device else None
    images = [np.array(row, np.float32) for row in ([1, 0], [bad, 0])]

    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError):
        Scorer(Scaling(20), gpu=gpu).score(images, matrix, top_k=1)
