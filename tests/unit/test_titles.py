"""Texts beside pictures: the weights that are fitted, and the scores that workers make of them."""

import asyncio
from typing import Any

import numpy as np
import pytest

from labelyard.errors import InvalidMessageError
from labelyard.evaluation.title_weights import TitledSample, fit_title_weights
from labelyard.label_sets import as_label_set, label_set_digest
from labelyard.messages import ImageRef, Label, LabelSet, Learned, TitleWeights
from labelyard.testing import AsyncFakeClient, FakeClient, sample_job
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix, Scaling
from labelyard_worker.vision.title_scores import SENTENCE_SCALE, TitleLabels

COUNT, LABELS = 200, 5


def sample(*, picture: float, title: float, seed: int = 0) -> TitledSample:
    """Make logits that tell the true label as clearly as the numbers say."""
    generator = np.random.default_rng(seed)
    truth = np.eye(LABELS, dtype=bool)[generator.integers(0, LABELS, COUNT)]
    pictures, titles = (
        generator.normal(size=truth.shape) + strength * truth for strength in (picture, title)
    )
    return TitledSample(pictures, titles, truth)


def accuracy(of: TitledSample, *weights: float) -> float:
    return float(of.hits(*weights).mean())


@pytest.mark.parametrize(("picture", "title"), [(2.0, 2.0), (0.5, 3.0), (2.0, 1.0), (1.5, 0.7)])
def test_both_together_are_not_worse_than_the_better_one(picture: float, title: float) -> None:
    fitted = fit_title_weights(sample(picture=picture, title=title))

    judged = sample(picture=picture, title=title, seed=1)
    single = max(accuracy(judged, 1.0, 0.0), accuracy(judged, 0.0, 1.0))
    assert accuracy(judged, fitted.picture, fitted.title) >= single - 0.005
    assert fitted.title > 0


@pytest.mark.parametrize("title", [0.0, -3.0], ids=["useless", "misleading"])
def test_texts_that_do_not_help_get_no_weight_though_the_pictures_are_too_sure(
    title: float,
) -> None:
    given = sample(picture=1.0, title=title)
    too_sure = TitledSample(5.0 * given.pictures, given.titles, given.truth)

    fitted = fit_title_weights(too_sure)

    assert (fitted.picture, fitted.title) == (1.0, 0.0)


def test_a_handful_of_pictures_fits_no_weights() -> None:
    given = sample(picture=0.0, title=5.0).rows(np.arange(COUNT) < 9)

    assert fit_title_weights(given).title == 0


def matrix_of(**weights: float) -> LabelMatrix:
    """Make a set of two labels, with weights if there are some."""
    learned = Learned(checkpoint="sha256:abc", titles=TitleWeights(**weights)) if weights else None
    label_set = LabelSet(labels=(Label(name="cat"), Label(name="dog")), learned=learned)
    vectors = np.eye(2, dtype=np.float32)
    titles = TitleLabels(vectors, 2, **weights) if weights else None
    return LabelMatrix.of(
        label_set, vectors, digest="sha256:0", trained_scoring="softmax", titles=titles
    )


def scored(matrix: LabelMatrix, *titles: Any) -> Any:
    """Score two pictures of cats, the second without a text."""
    image = np.array([0.8, 0.6], dtype=np.float32)
    return Scorer(Scaling(10.0)).score([image, image], matrix, top_k=2, titles=titles)


def test_a_text_is_added_to_its_picture_and_others_keep_their_scores_to_the_bit() -> None:
    dog = np.array([0.0, 1.0], dtype=np.float32)

    plain = scored(matrix_of())
    titled = scored(matrix_of(picture=0.5, title=0.2), dog, None)

    logits = 0.5 * np.array([8.0, 6.0]) + 0.2 * SENTENCE_SCALE * np.array([-0.5, 0.5])
    expected = np.exp(logits[1]) / np.exp(logits).sum()
    assert titled[0].labels[0].name == "dog"
    assert titled[0].labels[0].score == pytest.approx(expected, abs=1e-6)
    assert titled[1].title is None
    assert titled[1].labels[0].score == pytest.approx(plain[1].labels[0].score, abs=1e-12)
    assert scored(matrix_of(), dog, None) == plain


def test_a_result_tells_whether_the_text_contradicts_the_picture() -> None:
    cat, dog = np.eye(2, dtype=np.float32)
    silent = np.full(2, 0.5**0.5, dtype=np.float32)
    matrix = matrix_of(picture=3.0, title=1.0)

    same, against, nothing = (scored(matrix, each, None)[0].title for each in (cat, dog, silent))

    assert (same.label, same.agrees, against.label, against.agrees) == ("cat", True, "dog", False)
    assert against.agreement < 0.05 < 0.5 < same.agreement
    assert nothing.agreement == pytest.approx(0.5, abs=1e-6)


def test_texts_count_as_prompts_of_the_tenant_each_once() -> None:
    images = tuple(
        ImageRef(id=str(n), uri="s3://a/b.jpg", text=text)
        for n, text in enumerate(["red shoe", "red shoe", "hat", None])
    )
    job = sample_job(images=images)

    assert job.count_titles() == 2
    assert '"text"' not in sample_job(images=(images[3],)).model_dump_json()
    with pytest.raises(InvalidMessageError, match="at most 2048 characters"):
        ImageRef(id="1", uri="s3://a/b.jpg", text="a" * 2049)


def test_a_client_fits_to_lines_with_a_text_and_refuses_a_manifest_without() -> None:
    client = FakeClient()
    rows = [
        {"image": f"s3://photos/{n}.jpg", "label": ("cat", "dog")[n % 2], "text": f"title {n}"}
        for n in range(12)
    ]

    with pytest.raises(InvalidMessageError, match="no line has the split train"):
        client.read_titles(["cat", "dog"], rows, name="pets")
    lines = [{**row, "split": "train"} for row in rows]
    with pytest.raises(InvalidMessageError, match="has a text and exactly one label"):
        client.read_titles(["cat", "dog"], [{**row, "text": None} for row in lines], name="pets")
    found = client.read_titles(["cat", "dog"], lines, name="pets")

    assert found.n == 12
    assert [image.text for image in client.jobs[0].images] == [None] * 12
    assert client.jobs[1].images[3].text == "title 3"
    again = asyncio.run(AsyncFakeClient(client).read_titles(["cat", "dog"], lines, name="pets"))
    assert again.reference == found.reference


def test_a_set_that_reads_no_texts_keeps_its_digest() -> None:
    label_set = as_label_set(["cat"]).model_copy(update={"learned": Learned(checkpoint="a")})

    assert "titles" not in label_set.model_dump_json()
    assert label_set_digest(label_set).startswith("sha256:")
