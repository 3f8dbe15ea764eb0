"""Hierarchies of label sets: which are refused, and what their nodes score."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labelyard.cli.label_options import read_label_set
from labelyard.errors import InvalidMessageError
from labelyard.hierarchy import Hierarchy
from labelyard.label_sets import label_set_digest
from labelyard.messages import FitLimit, ImageResult, Label, LabelSet, Learned, Parent, Result
from labelyard_worker.vision import scorer as scorer_module
from labelyard_worker.vision import tree_scores
from labelyard_worker.vision.gpu_scoring import GpuSelector
from labelyard_worker.vision.ranking import ImageScores
from labelyard_worker.vision.scorer import Scorer
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling
from labelyard_worker.vision.vector_layout import VectorLayout

ANIMALS = LabelSet(
    labels=(
        Label(name="a leopard", path=("animal", "mammal")),
        Label(name="a llama", path=("animal", "mammal")),
        Label(name="an ibis", path=("animal", "bird")),
        Label(name="a stop sign"),
    ),
    scoring="softmax",
)
SCALING = Scaling(10.0)


def score(label_set: LabelSet, *cosines: float, top_k: int = 9) -> ImageScores:
    """Score an image that has these cosines to the labels, then to the abstain prompts."""
    texts = np.array([[each, (1 - each**2) ** 0.5] for each in cosines], dtype=np.float32)
    matrix = LabelMatrix.of(label_set, texts, digest="", trained_scoring="softmax")
    image = np.array([1, 0], dtype=np.float32)
    (found,) = Scorer(SCALING).score([image], matrix, top_k=top_k)
    return found


def changed(label_set: LabelSet, **fields: object) -> LabelSet:
    return LabelSet.model_validate({**label_set.model_dump(), **fields})


def test_a_parent_scores_the_sum_of_its_labels() -> None:
    found = score(ANIMALS, 0.4, 0.35, 0.3, 0.1)

    scores = {label.name: label.score for label in found.labels}
    parents = {parent.path: parent.score for parent in found.parents}
    mammal = scores["a leopard"] + scores["a llama"]
    assert parents == {
        ("animal",): pytest.approx(mammal + scores["an ibis"], abs=1e-9),
        ("animal", "mammal"): pytest.approx(mammal, abs=1e-9),
        ("animal", "bird"): pytest.approx(scores["an ibis"], abs=1e-9),
    }


def test_a_parent_has_the_largest_of_its_labels_under_sigmoid() -> None:
    found = score(changed(ANIMALS, scoring="sigmoid"), 0.1, -0.05, 0.2, 0.0)

    scores = {label.name: label.score for label in found.labels}
    parents = {parent.path: parent.score for parent in found.parents}
    assert parents[("animal",)] == scores["an ibis"]
    assert parents[("animal", "mammal")] == scores["a leopard"]


@pytest.mark.parametrize(
    ("cosines", "node"),
    [
        ((0.5, 0.1, 0.1, 0.1), ("animal", "mammal", "a leopard")),
        ((0.5, 0.49, 0.1, 0.3), ("animal", "mammal")),
        ((0.5, -0.5, 0.5, 0.4), ("animal",)),
        ((0.1, 0.1, 0.1, 0.5), ("a stop sign",)),
        ((0.1, 0.1, -0.5, 0.16), ("animal", "mammal")),
    ],
)
def test_the_node_is_the_deepest_that_is_more_likely_than_not(
    cosines: tuple[float, ...], node: tuple[str, ...]
) -> None:
    found = score(ANIMALS, *cosines)

    assert found.node is not None
    assert found.node.path == node


def test_no_node_passes_if_all_are_unlikely() -> None:
    strict = changed(ANIMALS, parents=[{"path": ["animal"], "threshold": 0.9}])

    found = score(strict, 0.3, -0.5, 0.3, 0.3)

    assert found.node is None


def test_a_parent_passes_from_its_own_threshold_on() -> None:
    strict = changed(ANIMALS, parents=[{"path": ["animal", "mammal"], "threshold": 0.95}])

    found = score(strict, 0.5, 0.49, 0.1, 0.3)

    assert found.node is not None
    assert found.node.path == ("animal",)


def test_the_node_is_one_of_the_best_branch_and_not_a_deeper_one_beside_it() -> None:
    lax = [label.model_dump() for label in ANIMALS.labels]
    lax[0]["threshold"] = 0.01

    found = score(changed(ANIMALS, labels=lax), 0.2, 0.1, 0.1, 0.5)

    assert found.node is not None
    assert found.node.path == ("a stop sign",)


def test_an_abstained_image_has_no_node() -> None:
    found = score(changed(ANIMALS, abstain=["nothing"]), 0.4, 0.1, 0.1, 0.1, 0.45)

    assert (found.abstained, found.because, found.node) == (True, "abstain_prompt", None)
    assert found.parents


@pytest.mark.parametrize(
    ("scoring", "is_tree", "temperature"),
    [("softmax", True, 2.0), ("softmax", False, 1.0), ("sigmoid", True, 1.0)],
)
def test_a_tree_is_scored_less_surely_by_a_checkpoint_that_is_too_sure(
    scoring: str, is_tree: bool, temperature: float
) -> None:
    label_set = changed(
        ANIMALS if is_tree else LabelSet(labels=(Label(name="a"),)), scoring=scoring
    )
    texts = np.ones((len(label_set.labels), 1), dtype=np.float32)

    matrix = LabelMatrix.of(
        label_set, texts, digest="", trained_scoring="softmax", tree_temperature=2.0
    )

    assert (matrix.tree_temperature, matrix.temperature) == (temperature, 1.0)
    assert SCALING.over(2.0) == Scaling(5.0)
    assert tree_scores.temperature_of(VectorLayout(64, 128)) == 2.0
    assert tree_scores.temperature_of(VectorLayout(64)) == 1.0


def test_as_many_parents_are_named_as_labels() -> None:
    few = score(ANIMALS, 0.4, 0.35, 0.3, 0.1, top_k=1)

    assert [parent.path for parent in few.parents] == [("animal",)]
    assert len(score(ANIMALS, 0.4, 0.35, 0.3, 0.1, top_k=4).parents) == 3


def test_the_fit_is_the_best_cosine_and_below_the_limit_nothing_is_matched() -> None:
    limit = FitLimit(limit=0.3, method="known", known=20, kept=19, unknown=0, rejected=0)
    limited = changed(ANIMALS, learned=Learned(checkpoint="lite", none_of_these=limit))

    below, above = score(limited, 0.29, -0.9, -0.9, -0.9), score(limited, 0.31, 0.3, 0.3, 0.3)

    assert (below.fit, above.fit) == pytest.approx((0.29, 0.31), abs=1e-6)
    assert (below.abstained, below.because, below.matched) == (True, "none_of_these", ())
    assert (above.abstained, above.because, above.matched) == (False, None, ("a leopard",))


def test_an_image_whose_labels_all_miss_their_thresholds_says_so() -> None:
    label_set = LabelSet(labels=(Label(name="a", threshold=0.9), Label(name="b", threshold=0.9)))

    found = score(label_set, 0.2, 0.2)

    assert (found.abstained, found.because) == (False, "below_threshold")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scoring=st.sampled_from(["softmax", "sigmoid"]),
    top_k=st.integers(1, 30),
)
def test_host_and_device_score_random_trees_as_the_plain_definition(
    seed: int, scoring: Literal["softmax", "sigmoid"], top_k: int
) -> None:
    numbers = np.random.default_rng(seed)
    label_set = random_tree(numbers, scoring)
    rows = numbers.normal(size=(len(label_set.labels) + 3, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts, images = rows[3:], rows[:3]
    matrix = LabelMatrix.of(label_set, texts, digest="d", trained_scoring="softmax")
    tree = Hierarchy.of(label_set)

    for found in both(images, matrix, top_k=top_k):
        for image, each in zip(images, found, strict=True):
            all_scores = score_all(image, matrix)
            assert each.fit == pytest.approx(float((texts @ image).max()), abs=1e-6)
            if tree is None:
                assert (each.parents, each.node) == ((), None)
                continue
            parents = tree.parent_scores(all_scores, scoring)
            named = {tree.parents.index(one.path): one.score for one in each.parents}
            assert named == {place: pytest.approx(parents[place], abs=1e-6) for place in named}
            is_whole = top_k >= len(label_set.labels)
            assert len(named) == len(parents) if is_whole else min(top_k, len(parents))
            deepest = tree.deepest([*all_scores, *parents])
            path = None if deepest is None else tree.nodes[deepest]
            assert (each.node and each.node.path) == path


def random_tree(numbers: np.random.Generator, scoring: str) -> LabelSet:
    """Make a set with labels at the root and up to three levels deep, some with thresholds."""
    labels = [
        Label(
            name=f"l{number}",
            path=tuple(f"p{numbers.integers(3)}" for _ in range(numbers.integers(4))),
            threshold=float(numbers.uniform()) if numbers.random() < 0.5 else None,
        )
        for number in range(numbers.integers(1, 20))
    ]
    paths = {label.path for label in labels if label.path}
    parents = [
        Parent(path=path, threshold=float(numbers.uniform()))
        for path in sorted(paths)
        if numbers.random() < 0.5
    ]
    return LabelSet.model_validate(
        {"labels": tuple(labels), "parents": tuple(parents), "scoring": scoring}
    )


def score_all(image: Floats, matrix: LabelMatrix) -> list[float]:
    """Return the score of every label, in the order of the set."""
    (found,) = Scorer(SCALING).score([image], matrix, top_k=matrix.n_labels)
    scores = {label.name: label.score for label in found.labels}
    return [scores[name] for name in matrix.names]


def both(images: Floats, matrix: LabelMatrix, *, top_k: int) -> tuple[list[ImageScores], ...]:
    """Score on the host, and with the device's code."""
    gpu = GpuSelector(torch.device("cpu"), capacity_bytes=1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer_module, "MANY_LABELS", 1)
        return tuple(
            scorer.score(list(images), matrix, top_k=top_k)
            for scorer in (Scorer(SCALING), Scorer(SCALING, gpu=gpu))
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"labels": [{"name": "fruit"}, {"name": "kiwi", "path": ["fruit"]}]},
            "'fruit' is a label and the parent of another one",
        ),
        (
            {"labels": [{"name": "a"}], "parents": [{"path": ["b"], "threshold": 0.5}]},
            "parents names 'b', but no label is below",
        ),
        (
            {
                "labels": [{"name": "a", "path": ["b"]}],
                "parents": [{"path": ["b"], "threshold": 0.5}] * 2,
            },
            "parents names a path twice",
        ),
        ({"labels": [{"name": "a", "path": [""]}]}, "path"),
        (
            {"labels": [{"name": f"l{n}", "path": [f"p{n}"]} for n in range(1001)]},
            "1001 parents (limit 1000)",
        ),
    ],
)
def test_a_set_that_is_not_a_tree_is_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidMessageError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        LabelSet(**fields)  # type: ignore[arg-type]


def test_a_path_may_end_with_the_label_itself() -> None:
    assert Label(name="kiwi", path=("fruit", "kiwi")) == Label(name="kiwi", path=("fruit",))


def test_a_set_without_paths_has_the_bytes_and_the_digest_of_before() -> None:
    plain = LabelSet(labels=(Label(name="cat"), Label(name="dog")))

    assert plain.model_dump_json() == (
        '{"labels":[{"name":"cat","prompts":[],"threshold":null},'
        '{"name":"dog","prompts":[],"threshold":null}],'
        '"templates":["This is a photo of {}."],"scoring":"auto","temperature":1.0,"abstain":[]}'
    )
    assert label_set_digest(plain) == (
        "sha256:6556e022d91995902ae9356cd6780e9e211146b3ba5d6f82975bfc9ddb4ef022"
    )


def test_a_file_of_json_lines_holds_labels_with_paths_and_thresholds_of_parents(
    tmp_path: Path,
) -> None:
    file = tmp_path / "animals.jsonl"
    file.write_text(
        '{"name": "a leopard", "path": ["animal", "mammal"]}\n\n'
        '{"name": "a stop sign"}\n'
        '{"path": ["animal"], "threshold": 0.8}\n'
    )

    assert read_label_set(file) == LabelSet(
        labels=(Label(name="a leopard", path=("animal", "mammal")), Label(name="a stop sign")),
        parents=(Parent(path=("animal",), threshold=0.8),),
    )


@pytest.mark.parametrize("line", ['"a leopard"', "[]", "{", '{"name": "a", "color": "red"}'])
def test_a_line_that_is_not_a_label_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "animals.jsonl"
    file.write_text(f'{{"name": "b"}}\n{line}\n')

    with pytest.raises(InvalidMessageError, match=r"animals\.jsonl: (line 2|labels\.1)"):
        read_label_set(file)


def test_rows_and_json_have_the_node_the_parents_and_the_reason() -> None:
    fields = {
        "id": "1",
        "uri": "s3://photos/1.jpg",
        "labels": [{"name": "a leopard", "score": 0.6}],
        "fit": 0.25,
        "abstained_because": "below_threshold",
        "parents": [{"path": ["animal"], "score": 0.9}, {"path": ["animal", "cat"], "score": 0.6}],
        "node": {"path": ["animal", "cat"], "score": 0.6},
    }
    image = ImageResult.model_validate(fields)
    result = Result(job_id="j", status="succeeded", tenant="t", images=(image,))

    (row,) = result.rows()

    assert row["node"] == "animal > cat"
    assert row["node_score"] == 0.6
    assert row["parents"] == "animal: 0.900000; animal > cat: 0.600000"
    assert (row["fit"], row["abstained_because"]) == (0.25, "below_threshold")
    assert Result.model_validate_json(result.model_dump_json()) == result
    assert json.loads(image.model_dump_json())["node"] == fields["node"]
