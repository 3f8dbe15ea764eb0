"""Whatever the logits: the ranking is that of a full stable sort, and scores are scores."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from labelyard.messages import Label, LabelSet
from labelyard_worker.vision.scoring import (
    Floats,
    LabelMatrix,
    best_first,
    score_images,
    sigmoid,
    softmax,
)

# Few different values, so that ties are common; and any value at all.
TIED = st_numpy.arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([-1.0, 0.0, 2.0]))
ANY = st_numpy.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))


@given(logits=TIED | ANY, top_k=st.integers(1, 80))
def test_the_best_are_those_of_a_full_stable_sort(logits: Floats, top_k: int) -> None:
    expected = np.argsort(-logits, kind="stable")[:top_k]

    assert best_first(logits, top_k).tolist() == expected.tolist()


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
    """The fast way finds what the contract says in words."""
    count = cosines.shape[1] - abstain
    label_set = LabelSet(
        labels=tuple(Label(name=str(n), threshold=thresholds[n]) for n in range(count)),
        abstain=("none of these",) * abstain,
        scoring=scoring,
    )
    identity = np.eye(cosines.shape[1], dtype=np.float32)
    matrix = LabelMatrix.of(label_set, identity, digest="sha256:0", trained_scoring="softmax")

    found = score_images(cosines, matrix, logit_scale=20, logit_bias=0, top_k=top_k)

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
