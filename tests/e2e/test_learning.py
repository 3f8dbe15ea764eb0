"""Label sets that learn through the whole path: taught, calibrated, scored, and refused when due."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from labelyard import Client
from labelyard.label_sets import as_label_set
from labelyard.messages import ImageRef
from tests.e2e.instant import NAMESPACE, InstantService
from tests.support import pictures
from tests.support.command_line import lines, run
from tests.support.service import RESULTS

pytestmark = pytest.mark.allow_persistent_keys("registered label sets stay")
# To the model without weights an embedding is a picture's first colours, and its texts are noise.
COLOURS = {"a cat": (200, 40, 40), "a dog": (40, 200, 40), "a fox": (40, 40, 200)}
TIMEOUT_S = 60.0


@pytest.fixture
def environment(instant: InstantService, monkeypatch: pytest.MonkeyPatch) -> InstantService:
    """Lead the command line to the worker without a real model."""
    for name, value in instant.service.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABELYARD_NAMESPACE", NAMESPACE)
    monkeypatch.setenv("LABELYARD_UPLOAD_BUCKET", RESULTS)
    return instant


def draw(label: str, *, seed: int) -> bytes:
    """Draw a picture that is all in about the colour of its label."""
    generator = random.Random(f"{label} {seed}")
    colour = tuple(min(255, max(0, part + generator.randint(-30, 30))) for part in COLOURS[label])
    picture = Image.new("RGB", (24, 24), colour)
    picture.putpixel((20, 20), (seed % 256, seed // 256, len(label)))  # no two are equal
    return pictures.encode(picture, "PNG")


def write_manifest(folder: Path, splits: dict[str, int], *, labels: Any = tuple(COLOURS)) -> Path:
    """Write pictures of every label, and their manifest.

    Args:
        splits: Number of pictures of each label in each split.
    """
    rows, seed = [], 0
    for split, each in splits.items():
        for label in labels:
            for _ in range(each):
                seed += 1
                name = f"{split}-{seed}.png"
                (folder / name).write_bytes(draw(label, seed=seed))
                rows.append({"image": name, "label": label, "split": split})
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def register(names: Any = tuple(COLOURS)) -> str:
    """Register a plain set."""
    with Client() as client:
        return client.label_sets.register("learners", as_label_set(names))


def accuracy_of(reference: str, manifest: Path, folder: Path) -> float:
    """Evaluate a set."""
    (report,) = lines(run("evaluate", reference, str(manifest), "-o", str(folder), "--json"))
    return float(report["accuracy"])


def test_a_set_is_taught_calibrated_and_scored_and_its_examples_do_not_calibrate_it(
    environment: InstantService, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, {"train": 4, "calibration": 25, "test": 5})
    plain = register()

    (taught,) = lines(run("examples", plain, str(manifest), "--json", "--quiet"))
    (calibrated,) = lines(
        run("calibrate", taught["reference"], str(manifest), "--precision", "0.9", "--json", "-q")
    )

    assert (taught["taught"], taught["examples"]) == (3, 12)
    assert taught["reference"] != plain
    assert calibrated["certified"]["accepted"] >= 22
    assert calibrated["certified"]["errors"] == 0
    assert (
        "needs about" in calibrated["per_label"]["a cat"]["verdict"]
        or (calibrated["per_label"]["a cat"]["certified"])
    )
    assert accuracy_of(calibrated["reference"], manifest, tmp_path / "after") == 1.0
    assert accuracy_of(plain, manifest, tmp_path / "before") < 0.9
    refused = run(
        *("calibrate", taught["reference"], str(manifest)),
        *("--precision", "0.9", "--split", "train", "-q"),
    )
    assert refused.exit_code == 2
    assert "12 pictures are examples of the label set" in refused.stderr


def test_labels_without_examples_keep_their_scores_beside_two_taught_ones(
    environment: InstantService, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, {"train": 3}, labels=("a cat", "a dog"))
    uri = environment.service.pictures.put("fox.png", draw("a fox", seed=999))

    with Client() as client:
        taught = client.teach(as_label_set(tuple(COLOURS)), manifest, name="half")
        plain = client.classify([uri], tuple(COLOURS), timeout_s=TIMEOUT_S)
        result = client.classify([uri], taught.reference, timeout_s=TIMEOUT_S)

    before, after = (
        {label.name: label.score for label in one.images[0].labels} for one in (plain, result)
    )
    assert result.label_set != plain.label_set
    assert after["a fox"] == pytest.approx(before["a fox"])
    assert after["a cat"] != pytest.approx(before["a cat"])


def test_a_label_whose_pictures_have_nothing_in_common_is_said_to_be_a_catch_all(
    environment: InstantService, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, {"train": 6}, labels=("a cat", "a dog"))
    generator = random.Random(3)
    rows = []
    for number in range(6):
        colour = tuple(generator.randint(0, 255) for _ in range(3))
        name = f"anything-{number}.png"
        Image.new("RGB", (24, 24), colour).save(tmp_path / name)
        rows.append({"image": name, "label": "something else", "split": "train"})
    with manifest.open("a") as file:
        file.writelines("\n" + json.dumps(row) for row in rows)

    plain = register(("a cat", "a dog", "something else"))
    taught = run("examples", plain, str(manifest), "--quiet")
    (again,) = lines(run("examples", plain, str(manifest), "--quiet", "--json"))

    assert "something else: its pictures have nothing in common" in taught.stdout
    assert again["catch_all"] == ["something else"]


def test_a_set_is_adapted_to_the_shares_of_a_sample_and_wrong_shares_are_refused(
    environment: InstantService, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, {"calibration": 12}, labels=("a cat", "a fox"))
    shares, wrong = tmp_path / "shares.json", tmp_path / "wrong.json"
    shares.write_text(json.dumps({"a cat": 0.45, "a dog": 0.1, "a fox": 0.45}))
    wrong.write_text(json.dumps({"a cat": 0.001, "a dog": 0.998, "a fox": 0.001}))
    plain = register()

    (adapted,) = lines(
        run("prior", plain, "--shares", shares, "--sample", manifest, "--json", "--quiet")
    )
    refused = run("prior", adapted["reference"], "--shares", wrong, "--sample", manifest, "-q")
    rows = map(json.loads, manifest.read_text().splitlines())
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text("\n".join(json.dumps({"image": row["image"]}) for row in rows))
    (after,) = lines(run("prior", adapted["reference"], "--sample", unlabelled, "--json", "-q"))

    per_label = adapted["per_label"]
    assert adapted["accuracy"]["after"] >= adapted["accuracy"]["before"]
    assert all(abs(one["after"] - one["expected"]) < 0.1 for one in per_label.values())
    assert (refused.exit_code, refused.stderr[:15]) == (1, "label_set_worse")
    for name, one in after["per_label"].items():  # as a worker scores with the bias
        assert one["before"] == pytest.approx(per_label[name]["after"], abs=1e-5)


def test_a_set_learns_to_read_titles_and_reports_the_label_of_each(
    environment: InstantService, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, {"train": 12, "test": 6})
    rows = map(json.loads, manifest.read_text().splitlines())
    words = {"a cat": "CAT cat cat", "a dog": "dog dogs dog", "a fox": "fox fox foxx"}
    titled = [{**row, "text": words[row["label"]]} for row in rows]
    manifest.write_text("\n".join(map(json.dumps, titled)))
    uri = environment.service.pictures.put("fox-2.png", draw("a fox", seed=998))
    plain = register()

    (found,) = lines(run("titles", plain, manifest, "--json", "--quiet"))
    with Client() as client:
        texts = [None, words["a fox"], words["a dog"]]
        images = [ImageRef(id=str(n), uri=uri, text=text) for n, text in enumerate(texts)]
        before, after = (
            client.classify(images, reference, timeout_s=TIMEOUT_S).images
            for reference in (plain, found["reference"])
        )

    assert (found["helps"], found["n"]) == (True, 36)
    assert accuracy_of(found["reference"], manifest, tmp_path / "after") == 1.0
    assert accuracy_of(plain, manifest, tmp_path / "before") < 0.9
    assert before[0].labels == before[1].labels == after[0].labels
    assert [one.title for one in (*before, after[0])] == [None] * 4
    assert after[1].title is not None
    assert after[2].title is not None
    assert (after[1].title.label, after[2].title.label) == ("a fox", "a dog")


@pytest.mark.parametrize("fault", ["two labels", "not a picture", "unknown label"])
def test_a_manifest_that_cannot_teach_is_refused_with_its_line(
    environment: InstantService, tmp_path: Path, fault: str
) -> None:
    manifest = write_manifest(tmp_path, {"train": 1})
    rows = manifest.read_text().splitlines()
    first = json.loads(rows[0])
    if fault == "two labels":
        rows.append(json.dumps({**first, "label": "a fox"}))
    elif fault == "not a picture":
        (tmp_path / first["image"]).write_bytes(b"nothing")
    else:
        rows[0] = json.dumps({**first, "label": "a cow"})
    manifest.write_text("\n".join(rows))

    refused = run("examples", register(), str(manifest), "-q")

    assert refused.exit_code == 2
    assert ("line 4" if fault == "two labels" else "line 1") in refused.stderr


def test_a_set_from_a_file_needs_a_name_for_its_new_version(
    environment: InstantService, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(COLOURS))

    refused = run("examples", str(labels), str(write_manifest(tmp_path, {"train": 1})), "-q")

    assert refused.exit_code == 2
    assert "name" in refused.stderr


def test_a_hierarchy_and_a_limit_reach_results_tables_and_evaluations(
    environment: InstantService, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path, {"train": 3, "calibration": 8, "test": 3})
    (tmp_path / "tree.jsonl").write_text(
        '{"name": "a cat", "path": ["animal", "pet"]}\n'
        '{"name": "a dog", "path": ["animal", "pet"]}\n'
        '{"name": "a fox", "path": ["animal"]}\n'
        '{"path": ["animal", "pet"], "threshold": 0.6}\n'
    )
    plain = run("label-sets", "register", "tree", str(tmp_path / "tree.jsonl")).stdout.strip()
    uri = environment.service.pictures.put("dog.png", draw("a dog", seed=99))
    strange = pictures.encode(Image.new("RGB", (24, 24), (0, 255, 0)), "PNG")
    other = environment.service.pictures.put("other.png", strange)

    with Client() as client:
        taught = client.teach(plain, manifest)
        limited = client.calibrate(
            str(taught.reference), manifest, precision=0.8, none_of_these=0.9
        )
        first, second = client.classify(
            [uri, other], str(limited.reference), timeout_s=TIMEOUT_S
        ).images
    (report,) = lines(
        run("evaluate", str(limited.reference), str(manifest), "-o", str(tmp_path / "e"), "--json")
    )
    table = run("classify", uri, "--labels", str(limited.reference), "-q").stdout

    scores = {label.name: label.score for label in first.labels}
    parents = {parent.path: parent.score for parent in first.parents}
    assert parents[("animal",)] == pytest.approx(sum(scores.values()), abs=1e-6)
    assert parents[("animal", "pet")] == pytest.approx(scores["a cat"] + scores["a dog"], abs=1e-6)
    assert first.node is not None
    assert first.node.path == ("animal", "pet", "a dog")
    assert (second.abstained_because, second.matched, second.node) == ("none_of_these", (), None)
    assert "animal > pet > …" in table
    assert "= animal > pet > a dog" in table
    assert report["levels"][0]["accuracy"] == 1.0
