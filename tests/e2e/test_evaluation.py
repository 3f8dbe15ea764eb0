"""An evaluation of real photographs by a real worker, and a set that knows what it does not know."""

from pathlib import Path

import pytest

from labelyard import Client, LabelSet
from labelyard.evaluation.comparison import compare_evaluations
from labelyard.label_sets import as_label_set
from labelyard_worker.local.photographs import EVERYDAY_LABELS
from tests.e2e.test_first_light import SHOWN
from tests.support.pictures import photo
from tests.support.service import Service

#: Label that is left out of a set, so that its photograph shows none of the labels.
HIDDEN = "a cat"


@pytest.mark.usefixtures("worker")
def test_photographs_are_evaluated_with_the_scores_of_every_label(
    service: Service, client: Client, tmp_path: Path
) -> None:
    uris = {name: service.pictures.put(f"evaluated/{name}.img", photo(name)) for name in SHOWN}
    lines = [{"image": uris[name], "label": label} for name, label in SHOWN.items()]
    labels = as_label_set(list(EVERYDAY_LABELS))

    evaluation = client.evaluate(labels, lines, require=["accuracy>=1", "recall[*]>=1"])

    assert evaluation.passed
    assert evaluation.figures.scoring == "softmax"
    for one in evaluation.scored:
        assert len(one.scores) == len(EVERYDAY_LABELS)
        assert sum(one.scores) == pytest.approx(1.0)
    assert evaluation.report()["model"]["device"] == "cpu"
    assert evaluation.cost.jobs == 1
    assert (evaluation.write(tmp_path) / "report.html").stat().st_size > 10_000


@pytest.mark.usefixtures("worker")
def test_a_hidden_label_is_none_of_these_and_a_sentence_for_it_helps(
    service: Service, client: Client
) -> None:
    uris = {name: service.pictures.put(f"evaluated/{name}.img", photo(name)) for name in SHOWN}
    lines = [
        {"image": uris[name], "label": None if label == HIDDEN else label}
        for name, label in SHOWN.items()
    ]
    plain = as_label_set([name for name in SHOWN.values() if name != HIDDEN])
    abstaining = LabelSet(labels=plain.labels, abstain=("a photo of an animal",))

    first, second = (client.evaluate(one, lines) for one in (plain, abstaining))

    comparison = compare_evaluations(first, second)
    assert first.report()["none_of_these"] == {
        "n": 1,
        "rejected": 0,
        "auroc": 1.0,
        "auroc_fit": 1.0,
    }
    assert second.figures.none_of_these is not None
    assert second.figures.none_of_these.rejected == 1
    assert [flip.kind for flip in comparison.flips] == ["fixed"]
