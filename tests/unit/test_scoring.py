"""Scores, ranks and matches of known embeddings."""

from typing import Any

import numpy as np
import pytest

from labelyard.messages import Label, LabelSet, Learned
from labelyard_worker.vision.ranking import ImageScores
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling, sigmoid, softmax

IMAGE = np.array([1, 0], dtype=np.float32)


def at_cosines(*cosines: float) -> Floats:
    """Make unit vectors with these cosines to ``IMAGE``."""
    return np.array([[cosine, (1 - cosine**2) ** 0.5] for cosine in cosines], dtype=np.float32)


def matrix_of(label_set: LabelSet, *cosines: float, trained: Any = "softmax") -> LabelMatrix:
    """Give the labels, then the abstain prompts, these cosines to ``IMAGE``."""
    return LabelMatrix.of(
        label_set, at_cosines(*cosines), digest="sha256:0", trained_scoring=trained
    )


def score(
    matrix: LabelMatrix, *, top_k: int = 5, scale: float = 10, bias: float = 0
) -> ImageScores:
    """Score ``IMAGE``."""
    (found,) = Scorer(Scaling(scale, bias)).score([IMAGE], matrix, top_k=top_k)
    return found


def labels(*names: str, **thresholds: float) -> tuple[Label, ...]:
    """Make labels, those in *thresholds* with a threshold."""
    return tuple(Label(name=name, threshold=thresholds.get(name)) for name in names)


def test_softmax_shares_one_among_the_labels() -> None:
    found = score(matrix_of(LabelSet(labels=labels("cat", "dog")), 0.2, 0.3))

    assert [label.name for label in found.labels] == ["dog", "cat"]
    odds = np.exp(10 * 0.1)
    assert found.labels[0].score == pytest.approx(odds / (1 + odds), abs=1e-6)
    assert sum(label.score for label in found.labels) == pytest.approx(1)
    assert found.matched == ("dog",)


def test_a_bias_is_added_before_the_temperature_and_not_to_abstain_prompts() -> None:
    learned = Learned(checkpoint="sha256:abc", bias={"cat": 2.0, "dog": -1.0})
    names, nothing = labels("cat", "dog"), ("nothing",)
    plain = LabelSet(labels=names, temperature=2.0, abstain=nothing)

    found = score(matrix_of(plain.model_copy(update={"learned": learned}), 0.2, 0.3, 0.1))

    weights = np.exp(np.array([2.0 + 2.0, 3.0 - 1.0, 1.0]) / 2.0)
    expected = weights / weights.sum()
    assert [label.name for label in found.labels] == ["cat", "dog"]
    assert [label.score for label in found.labels] == pytest.approx(expected[:2], abs=1e-6)


def test_sigmoid_judges_each_label_by_itself() -> None:
    label_set = LabelSet(labels=labels("cat", "dog", "cow"))

    found = score(matrix_of(label_set, 0.5, 0.4, 0.1, trained="sigmoid"), bias=-3)

    expected = 1 / (1 + np.exp(-np.array([2.0, 1.0, -2.0])))
    assert [label.score for label in found.labels] == pytest.approx(expected, abs=1e-6)
    assert found.matched == ("cat", "dog")


def test_a_label_set_may_choose_against_what_the_checkpoint_was_trained_for() -> None:
    label_set = LabelSet(labels=labels("cat", "dog"), scoring="sigmoid")

    assert matrix_of(label_set, 0.1, 0.1, trained="softmax").scoring == "sigmoid"
    assert matrix_of(LabelSet(labels=labels("cat")), 0.1, trained="sigmoid").scoring == "sigmoid"


def test_one_label_alone_has_softmax_score_1() -> None:
    assert score(matrix_of(LabelSet(labels=labels("cat")), -0.5)).labels[0].score == 1


def test_thresholds_decide_what_matches_beyond_the_top_k() -> None:
    label_set = LabelSet(
        labels=labels("cat", "dog", "cow", "pig", cat=0.05, dog=0.9, cow=0.01), scoring="softmax"
    )

    found = score(matrix_of(label_set, 0.2, 0.4, 0.1, 0.1), top_k=1)

    assert [label.name for label in found.labels] == ["dog"]
    assert found.labels[0].score < 0.9  # the best, and not good enough for its threshold
    assert found.matched == ("cat", "cow")


def test_an_abstain_prompt_that_fits_best_leaves_nothing_matched() -> None:
    label_set = LabelSet(labels=labels("cat", "dog", cat=0.0), abstain=("a photo of nothing",))

    found = score(matrix_of(label_set, 0.1, 0.2, 0.3))

    assert found.abstained
    assert found.matched == ()
    assert [label.name for label in found.labels] == ["dog", "cat"]
    assert sum(label.score for label in found.labels) < 0.5  # its share is not shared out


def test_an_abstain_prompt_that_fits_no_better_changes_no_match() -> None:
    label_set = LabelSet(labels=labels("cat", "dog"), abstain=("a photo of nothing",))

    found = score(matrix_of(label_set, 0.1, 0.3, 0.3))

    assert not found.abstained
    assert found.matched == ("dog",)


def test_a_higher_temperature_makes_scores_less_sure() -> None:
    hot = LabelSet(labels=labels("cat", "dog"), temperature=10)

    found = score(matrix_of(hot, 0.2, 0.3), scale=100)

    assert found == score(matrix_of(LabelSet(labels=labels("cat", "dog")), 0.2, 0.3), scale=10)


def test_equal_labels_keep_the_order_of_the_set() -> None:
    names = [f"label {number}" for number in range(50)]

    found = score(matrix_of(LabelSet(labels=labels(*names)), *[0.5] * 50), top_k=7)

    assert [label.name for label in found.labels] == names[:7]
    assert found.matched == (names[0],)


def test_extreme_logits_neither_overflow_nor_tie() -> None:
    logits = np.array([[-1e6, 0.0, 1e6]])

    assert softmax(logits).tolist() == [[0, 0, 1]]
    assert sigmoid(logits).tolist() == [[0, 0.5, 1]]
    saturated = score(
        matrix_of(LabelSet(labels=labels("good", "better")), 0.8, 0.9, trained="sigmoid"),
        scale=1000,
    )
    assert [label.name for label in saturated.labels] == ["better", "good"]


def test_a_jobs_images_score_as_each_would_alone() -> None:
    rng = np.random.default_rng(0)
    images, texts = (rng.normal(size=(n, 16)).astype(np.float32) for n in (8, 300))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    label_set = LabelSet(labels=labels(*map(str, range(300))))
    matrix = LabelMatrix.of(label_set, texts, digest="sha256:0", trained_scoring="softmax")

    scorer = Scorer(Scaling(100))

    together = scorer.score(list(images), matrix, top_k=5)

    for image, found in zip(images, together, strict=True):
        (alone,) = scorer.score([image], matrix, top_k=5)
        assert [label.name for label in found.labels] == [label.name for label in alone.labels]
        assert [label.score for label in found.labels] == pytest.approx(
            [label.score for label in alone.labels], abs=1e-5
        )
