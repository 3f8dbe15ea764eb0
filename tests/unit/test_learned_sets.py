"""Label sets that learned: what they keep, who may score them, and how."""

import base64
import io
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labelyard.errors import (
    InvalidMessageError,
    LabelSetExamplesError,
    LabelSetOfAnotherCheckpointError,
)
from labelyard.evaluation.example_file import ExampleFile, digest_of
from labelyard.evaluation.few_shot import fit_examples
from labelyard.label_sets import as_label_set, label_set_digest
from labelyard.messages import Certified, Examples, Label, LabelSet, Learned, parse_job
from labelyard_worker.vision.learned_sets import LearnedSets
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import LabelMatrix, Scaling
from labelyard_worker.vision.vector_layout import VectorLayout

NAMES = ("a cat", "a dog", "a fox", "a cow")
TAUGHT = ("a fox", "a cat")
CHECKPOINT = "sha256:" + "c" * 64
LAYOUT = VectorLayout(6, 10)
JOINT = VectorLayout(10)
Floats = NDArray[np.float32]


def unit(rows: Any) -> Floats:
    """Scale rows to length 1."""
    found: Floats = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return found


def make_file(*, names: tuple[str, ...] = TAUGHT, each: int = 4, dim: int = 10) -> ExampleFile:
    """Teach labels with random pictures."""
    generator = np.random.default_rng(0)
    classes = np.repeat(np.arange(len(names)), each)
    vectors = unit(generator.normal(size=(len(classes), dim)))
    texts = generator.normal(size=(len(classes), len(names)))
    taught = fit_examples(texts, vectors, classes, np.arange(len(names)))
    return ExampleFile(names, taught, tuple(digest_of(bytes([row])) for row in classes))


def learned_set(body: bytes, **fields: Any) -> LabelSet:
    """Make a label set with examples."""
    examples = Examples(
        object_uri="s3://bucket/label-sets/x.npz",
        sha256=digest_of(body),
        features="penultimate",
        counts=dict.fromkeys(TAUGHT, 4),
    )
    learned = Learned(checkpoint=CHECKPOINT, examples=examples)
    return as_label_set(NAMES).model_copy(update={"learned": learned, **fields})


def sets_of(body: bytes, *, fingerprint: str = CHECKPOINT) -> LearnedSets:
    """Open label sets in a worker whose storage has one object."""
    return LearnedSets(fingerprint, LAYOUT, read=lambda _: body)


def matrix_of(label_set: LabelSet, texts: Floats, body: bytes | None = None) -> LabelMatrix:
    """Make the matrix that a worker scores with."""
    taught = None if body is None else sets_of(body).open(label_set)
    return LabelMatrix.of(
        label_set, texts, digest="sha256:0", trained_scoring="softmax", taught=taught
    )


def test_a_set_that_learned_nothing_keeps_its_bytes_and_its_digest():
    plain = as_label_set(NAMES)

    assert "learned" not in plain.model_dump_json()
    assert "learned" not in plain.model_dump_json(exclude_defaults=True)
    assert label_set_digest(plain) == (
        "sha256:bae24a5d7781e76a458bb3f488537f9e9aad71fe65f670dcfe620718ff514d87"
    )


def test_what_a_set_learned_is_part_of_its_digest():
    first, other = (make_file(each=each).to_bytes() for each in (4, 5))

    digests = {label_set_digest(one) for one in (learned_set(first), learned_set(other))}

    assert len(digests - {label_set_digest(as_label_set(NAMES))}) == 2
    again = LabelSet.model_validate_json(learned_set(first).model_dump_json(exclude_defaults=True))
    assert again == learned_set(first)


@pytest.mark.parametrize("part", ["examples", "certified"])
def test_learned_labels_must_be_labels_of_the_set(part):
    counts = {"a bird": 1}
    parts: dict[str, Any] = {
        "examples": {
            "object_uri": "s3://b/k",
            "sha256": "0" * 64,
            "features": "joint",
            "counts": counts,
        },
        "certified": {
            "precision": 0.95,
            "confidence": 0.9,
            "accepted": 60,
            "errors": 0,
            "labels": {"a bird": {"threshold": 0.5, "accepted": 60, "errors": 0}},
        },
    }

    with pytest.raises(InvalidMessageError, match="a bird"):
        LabelSet(
            labels=(Label(name="a cat"),),
            learned={"checkpoint": CHECKPOINT, part: parts[part]},
        )


def test_a_file_of_examples_comes_back_as_it_was_written():
    file = make_file()

    read = ExampleFile.from_bytes(file.to_bytes())

    assert (read.names, read.sha256) == (file.names, file.sha256)
    assert read.taught.weights == file.taught.weights
    assert read.taught.examples == pytest.approx(file.taught.examples, abs=1e-3)
    assert read.taught.dual == pytest.approx(file.taught.dual, abs=1e-5)


def test_a_file_of_the_first_version_is_read_without_levels_and_nearness():
    file = make_file(names=(*TAUGHT, "a third one"))
    body = without(rewritten(file.to_bytes(), "version", np.array(1)), {"levels", "nearness"})

    read = ExampleFile.from_bytes(body)

    assert read.taught.weights == file.taught.weights
    assert (read.taught.levels.tolist(), read.taught.nearness) == ([0.0] * 3, (0.0, 0.0))
    assert file.taught.nearness != (0.0, 0.0)


def test_equal_examples_give_equal_bytes():
    assert make_file().to_bytes() == make_file().to_bytes()


def without(body: bytes, names: set[str]) -> bytes:
    """Remove arrays of a file."""
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as old, zipfile.ZipFile(kept, "w") as new:
        for entry in old.namelist():
            if entry.removesuffix(".npy") not in names:
                new.writestr(entry, old.read(entry))
    return kept.getvalue()


def rewritten(body: bytes, name: str, array: Any) -> bytes:
    """Replace an array of a file."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.namelist():
            content = io.BytesIO()
            np.lib.format.write_array(content, array) if entry == f"{name}.npy" else content.write(
                old.read(entry)
            )
            new.writestr(entry, content.getvalue())
    return changed.getvalue()


BROKEN = {
    "not a zip": lambda body: b"nothing",
    "cut off": lambda body: body[: len(body) // 2],
    "another version": lambda body: rewritten(body, "version", np.array(3)),
    "arrays of another version": lambda body: rewritten(body, "version", np.array(1)),
    "too many levels": lambda body: rewritten(body, "levels", np.zeros(3)),
    "no slope": lambda body: rewritten(body, "nearness", np.zeros(1)),
    "another type": lambda body: rewritten(body, "dual", np.zeros((8, 2))),
    "another shape": lambda body: rewritten(body, "dual", np.zeros((8, 3), dtype="<f4")),
    "not finite": lambda body: rewritten(body, "width", np.array(np.nan)),
    "objects": lambda body: rewritten(body, "labels", np.array([{}, {}], dtype=object)),
    "too few weights": lambda body: rewritten(body, "weights", np.ones(2)),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_of_examples_is_refused(fault):
    body = BROKEN[fault](make_file().to_bytes())

    with pytest.raises(LabelSetExamplesError):
        sets_of(body).open(learned_set(body))


def test_another_object_under_the_name_is_refused():
    label_set = learned_set(make_file().to_bytes())

    with pytest.raises(LabelSetExamplesError, match="another object"):
        sets_of(make_file(each=5).to_bytes()).open(label_set)


def test_vectors_of_another_length_are_refused():
    body = make_file(dim=12).to_bytes()

    with pytest.raises(LabelSetExamplesError, match="another length"):
        sets_of(body).open(learned_set(body))


@pytest.mark.parametrize("has_examples", [True, False])
def test_a_set_of_another_checkpoint_is_refused_with_examples_or_without(has_examples):
    body = make_file().to_bytes()
    label_set = learned_set(body)
    if not has_examples:
        assert label_set.learned is not None
        learned = label_set.learned.model_copy(update={"examples": None})
        label_set = label_set.model_copy(update={"learned": learned})

    with pytest.raises(LabelSetOfAnotherCheckpointError, match="teach and calibrate it again"):
        sets_of(body, fingerprint="sha256:" + "d" * 64).open(label_set)


def test_plain_sets_score_bit_for_bit_as_before_beside_features():
    generator = np.random.default_rng(0)
    texts = unit(generator.normal(size=(4, 6)))
    matrix = matrix_of(as_label_set(NAMES), texts)
    embeds, features = (unit(generator.normal(size=(30, dim))) for dim in (6, 10))
    vectors = np.concatenate([embeds, features], axis=1)

    for count in (1, 2, 30):
        before = Scorer(Scaling(20.0)).score(list(embeds[:count]), matrix, top_k=4)
        after = Scorer(Scaling(20.0), layout=LAYOUT).score(list(vectors[:count]), matrix, top_k=4)
        assert after == before


def test_taught_labels_are_scored_by_examples_and_the_others_keep_their_scores():
    generator = np.random.default_rng(1)
    texts = unit(generator.normal(size=(4, 6)))
    body = make_file().to_bytes()
    label_set = learned_set(body)
    embeds, features = (unit(generator.normal(size=(20, dim))) for dim in (6, 10))
    scorer = Scorer(Scaling(20.0), layout=LAYOUT)
    vectors = list(np.concatenate([embeds, features], axis=1))

    by_text = scorer.score(vectors, matrix_of(as_label_set(NAMES), texts), top_k=4)
    found = scorer.score(vectors, matrix_of(label_set, texts, body), top_k=4)

    for old, new in zip(by_text, found, strict=True):
        before = {label.name: label.score for label in old.labels}
        after = {label.name: label.score for label in new.labels}
        assert after["a dog"] == pytest.approx(before["a dog"])
        assert after["a cow"] == pytest.approx(before["a cow"])
        assert sum(after[name] for name in TAUGHT) == pytest.approx(
            sum(before[name] for name in TAUGHT)
        )
    assert found != by_text


def test_the_order_of_labels_in_the_file_does_not_matter():
    file = make_file()
    taught = file.placed_in(NAMES)

    assert taught.labels.tolist() == [0, 2]
    assert np.array_equal(taught.prototypes, file.taught.prototypes[::-1])
    assert np.array_equal(taught.dual, file.taught.dual[:, ::-1])


def test_a_certified_softmax_set_matches_its_best_label_only():
    texts = unit(np.eye(4, 6) + 0.1)
    certified = Certified(precision=0.9, confidence=0.9, accepted=40, errors=0, threshold=0.1)
    labels = tuple(Label(name=name, threshold=0.1) for name in NAMES)
    plain = LabelSet(labels=labels)
    learned = Learned(checkpoint=CHECKPOINT, certified=certified)
    image = [unit(np.array([1.0, 0.95, 0, 0, 0, 0]))]

    before, after = (
        Scorer(Scaling(5.0)).score(image, matrix_of(one, texts), top_k=4)[0]
        for one in (plain, plain.model_copy(update={"learned": learned}))
    )

    assert before.matched[:2] == ("a cat", "a dog")
    assert after.matched == ("a cat",)
    assert after.labels == before.labels


def test_a_job_may_want_vectors_and_says_so_only_then():
    job = parse_job(
        {
            "job_id": "1",
            "images": [{"id": "1", "uri": "s3://b/k"}],
            "label_set": {"labels": [{"name": "a"}]},
        }
    )

    assert "vectors" not in job.model_dump_json()
    assert parse_job(job.model_copy(update={"vectors": True}).model_dump_json()).vectors


@pytest.mark.parametrize(("layout", "features"), [(LAYOUT, "penultimate"), (JOINT, "joint")])
def test_the_vector_in_a_result_is_the_one_that_examples_are_compared_by(layout, features):
    vector = unit(np.random.default_rng(3).normal(size=layout.length))

    found = Scorer(Scaling(1.0), layout=layout).vector_of(vector)

    numbers = np.frombuffer(base64.b64decode(found.float16), dtype="<f2")
    assert found.features == features
    assert numbers == pytest.approx(layout.features(vector), abs=1e-3)
