"""Labels taught with pictures: the fit, and what it leaves alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from labelyard.evaluation import few_shot
from labelyard.evaluation.example_scores import (
    TaughtLabels,
    divide_among_taught,
    log_sum_exp,
    logits_with_examples,
)
from labelyard.evaluation.few_shot import fit_examples

DIM = 24
Floats = NDArray[np.float64]


def unit(rows: Floats) -> Floats:
    """Scale rows to length 1."""
    found: Floats = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return found


class World:
    """Pictures of labels whose text says little, and whose pictures lie close together."""

    def __init__(self, labels: int = 5, *, noise: float = 0.9, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.labels = labels
        self.centres = unit(self.generator.normal(size=(labels, DIM)))
        self.texts = unit(self.centres + 1.5 * unit(self.generator.normal(size=(labels, DIM))))
        self.noise = noise

    def pictures(self, each: int) -> tuple[Floats, NDArray[np.intp]]:
        """Draw *each* pictures of every label: vectors and classes."""
        classes = np.repeat(np.arange(self.labels), each)
        drawn = self.generator.normal(size=(len(classes), DIM)) / np.sqrt(DIM)
        return unit(self.centres[classes] + self.noise * drawn), classes

    def text_logits(self, vectors: Floats) -> Floats:
        """Compare pictures with the texts."""
        found: Floats = 20 * vectors @ self.texts.T
        return found

    def fit(self, each: int) -> TaughtLabels:
        """Teach all labels with *each* pictures."""
        vectors, classes = self.pictures(each)
        return fit_examples(self.text_logits(vectors), vectors, classes, np.arange(self.labels))

    def accuracy(self, fitted: TaughtLabels) -> float:
        """Measure new pictures."""
        vectors, classes = self.pictures(200)
        return float(
            (fitted.logits(self.text_logits(vectors), vectors).argmax(1) == classes).mean()
        )


def explicit_leave_one_out(
    vectors: Floats, one_hot: Floats, width: float, penalty: float
) -> Floats:
    """Fit the regression once for each example, without it."""
    gram = np.exp(width * (vectors @ vectors.T - 1))
    found = np.empty_like(one_hot)
    for row in range(len(vectors)):
        rest = np.arange(len(vectors)) != row
        kernel = gram[np.ix_(rest, rest)] + penalty * np.eye(rest.sum())
        found[row] = gram[row, rest] @ np.linalg.solve(kernel, one_hot[rest])
    return found


def test_examples_tell_labels_apart_that_text_does_not():
    world = World()
    vectors, classes = world.pictures(200)
    by_text = ((vectors @ world.texts.T).argmax(1) == classes).mean()

    assert world.accuracy(world.fit(8)) > by_text + 0.1


def test_the_closed_form_of_leave_one_out_equals_fitting_without_each_example(monkeypatch):
    monkeypatch.setattr(few_shot, "WIDTHS", (5.0,))
    monkeypatch.setattr(few_shot, "PENALTIES", (0.3,))
    vectors, classes = World().pictures(4)
    one_hot = np.eye(5)[classes]

    found = few_shot._fit_ridge(vectors, one_hot)

    expected = explicit_leave_one_out(vectors, one_hot, 5.0, 0.3)
    assert found.left_out == pytest.approx(expected, abs=1e-9)


def test_a_prototype_leaves_out_the_example_that_it_is_compared_with():
    vectors, classes = World().pictures(3)
    sums = np.eye(5)[classes].T @ vectors

    near = few_shot._prototypes_left_out(vectors, sums, classes)

    for row, label in enumerate(classes):
        others = (classes == label) & (np.arange(len(classes)) != row)
        mean = unit(vectors[others].sum(0))
        assert near[row, label] == pytest.approx(vectors[row] @ mean)
        assert near[row, label - 1] == pytest.approx(vectors[row] @ unit(sums[label - 1]))


def test_useless_text_and_useless_pictures_each_lose_their_weight():
    world = World(noise=1.5)
    vectors, classes = world.pictures(16)
    labels = np.arange(5)
    noise = world.generator.normal(size=(len(classes), 5)) * 6
    is_true = np.eye(5)[classes]

    without_text = fit_examples(noise, vectors, classes, labels)
    shuffled = world.generator.permutation(vectors)
    without_pictures = fit_examples(is_true * 10, shuffled, classes, labels)

    assert without_text.weights[0] < 0.2 < 10.0 < without_text.weights[1]
    assert without_pictures.weights[0] > 0.5
    assert without_pictures.weights[1] < 10.0


def test_one_example_of_each_label_is_scored_with_the_weights_of_the_prior():
    fitted = World().fit(1)

    assert fitted.weights == few_shot.SINGLE_WEIGHTS
    assert np.array_equal(fitted.dual, np.eye(5))


def with_catch_all(each: int) -> tuple[World, Floats, NDArray[np.intp]]:
    """Draw pictures of two labels, and of a third one that may be anything."""
    world = World(2, noise=0.5)
    vectors, classes = world.pictures(each)
    anything = unit(world.generator.normal(size=(each, DIM)))
    return world, np.concatenate([vectors, anything]), np.concatenate([classes, [2] * each])


@pytest.mark.parametrize("each", [4, 16])
def test_examples_of_something_else_take_what_is_near_no_other_label(each):
    world, vectors, classes = with_catch_all(each)
    fitted = fit_examples(np.zeros((len(classes), 3)), vectors, classes, np.arange(3))
    _, new, truth = with_catch_all(200)
    strangers = unit(world.generator.normal(size=(200, DIM)))

    found = fitted.logits(np.zeros((len(new), 3)), new).argmax(1)

    assert (fitted.levels != 0).tolist() == [False, False, True]
    assert not fitted.prototypes[2].any()
    assert (found[truth < 2] == truth[truth < 2]).mean() > 0.95
    assert (fitted.logits(np.zeros((200, 3)), strangers).argmax(1) == 2).mean() > 0.95


def test_labels_that_are_merely_hard_keep_their_means():
    fitted = [World(12, noise=2.0, seed=seed).fit(each) for seed in range(10) for each in (2, 4)]

    assert sum(int((one.levels != 0).sum()) for one in fitted) == 0


def test_a_label_with_one_example_may_stand_beside_labels_with_more():
    vectors, classes = World().pictures(6)
    kept = (classes > 0) | (np.arange(len(classes)) == 0)
    world = World()

    fitted = fit_examples(
        world.text_logits(vectors[kept]), vectors[kept], classes[kept], np.arange(5)
    )

    assert np.isfinite(fitted.weights).all()
    assert fitted.logits(world.text_logits(vectors[:1]), vectors[:1]).argmax() == 0


def test_more_examples_than_the_regression_takes_are_spread_evenly_over_the_labels(monkeypatch):
    monkeypatch.setattr(few_shot, "MOST_KERNEL_EXAMPLES", 12)
    classes = np.repeat(np.arange(3), [2, 10, 30])

    chosen = few_shot._spread_over_labels(classes, np.bincount(classes))

    assert np.bincount(classes[chosen]).tolist() == [2, 5, 5]


def test_the_same_examples_give_the_same_scorer_bit_for_bit():
    first, second = World().fit(5), World().fit(5)

    assert first.weights == second.weights
    assert np.array_equal(first.dual, second.dual)


@pytest.mark.parametrize("classes", [[0, 0, 1, 1], [0, 1, 2, 3]])
def test_a_taught_label_without_an_example_is_refused(classes):
    vectors = np.eye(4)

    with pytest.raises(ValueError, match="needs an example"):
        fit_examples(vectors[:, :3], vectors, np.array(classes), np.arange(3))


def halfway_taught() -> tuple[World, TaughtLabels, Floats, Floats]:
    """Teach three of six labels; return pictures of these and of the others."""
    world = World(6, noise=0.5)
    vectors, classes = world.pictures(4)
    labels = np.arange(3)
    rows = classes < 3
    fitted = fit_examples(
        world.text_logits(vectors[rows])[:, :3], vectors[rows], classes[rows], labels
    )
    new, truth = world.pictures(50)
    return world, fitted, new[truth < 3], new[truth >= 3]


def test_pictures_near_the_examples_are_more_likely_of_the_taught_labels_and_others_less():
    _, fitted, of_taught, of_others = halfway_taught()

    near, far = (fitted.odds(fitted.cosines(one)) for one in (of_taught, of_others))

    assert near.mean() > 0.5
    assert far.mean() < -0.5
    assert np.abs(np.concatenate([near, far])).max() <= 2.0


def test_nearness_moves_the_taught_labels_together_and_not_at_all_if_every_label_is_taught():
    world, fitted, pictures, _ = halfway_taught()
    by_text = world.text_logits(pictures)

    some, to_examples = logits_with_examples(by_text, pictures, fitted, labels=6)
    every, _ = logits_with_examples(by_text[:, :3], pictures, fitted, labels=3)

    assert np.array_equal(some[:, 3:], by_text[:, 3:])
    odds = log_sum_exp(some[:, :3]) - log_sum_exp(by_text[:, :3])
    assert odds == pytest.approx(fitted.odds(to_examples))
    assert log_sum_exp(every) == pytest.approx(log_sum_exp(by_text[:, :3]))


def test_two_taught_labels_are_too_few_to_tell_members_from_strangers():
    vectors, classes = World(2).pictures(8)

    fitted = fit_examples(np.zeros((16, 2)), vectors, classes, np.arange(2))

    assert fitted.nearness == (0.0, 0.0)


def test_untaught_labels_keep_their_share_whatever_the_examples_say():
    generator = np.random.default_rng(1)
    logits, taught_logits = generator.normal(size=(40, 6)) * 5, generator.normal(size=(40, 3)) * 50
    labels = np.array([1, 2, 5])

    mixed = divide_among_taught(logits, taught_logits, labels)

    untaught = [0, 3, 4]
    assert np.array_equal(mixed[:, untaught], logits[:, untaught])
    assert log_sum_exp(mixed) == pytest.approx(log_sum_exp(logits))
    assert (mixed[:, labels].argmax(1) == taught_logits.argmax(1)).all()
