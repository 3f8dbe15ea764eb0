"""Explanations through the whole path: the picture, its cost, its bounds, and the commands."""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelyard import Client
from labelyard.errors import ImageNotFoundError, InvalidMessageError
from labelyard.messages import ImageResult, Result
from tests.e2e.instant import NAMESPACE, InstantService
from tests.support import pictures
from tests.support.command_line import lines, run
from tests.support.scraping import scrape
from tests.support.service import RESULTS

TIMEOUT_S = 60.0
LABELS = ["a cat", "a dog", "a fox"]


@pytest.fixture
def client(instant: InstantService) -> Iterator[Client]:
    with instant.client() as producer:
        yield producer


def odd_corner(seed: int) -> bytes:
    """Draw a grey picture whose first pixels, all that the instant model looks at, have colours."""
    picture = Image.new("RGB", (8, 8), (90, 90, 90))
    generator = random.Random(seed)
    for column in range(3):
        picture.putpixel((column, 0), tuple(generator.randrange(256) for _ in range(3)))
    return pictures.encode(picture, "PNG")


def store(instant: InstantService, name: str, seed: int) -> str:
    return instant.service.pictures.put(name, odd_corner(seed))


def explained(result: Result) -> ImageResult:
    (image,) = result.images
    assert image.error is None
    return image


def open_map(instant: InstantService, uri: str) -> np.ndarray:
    key = uri.removeprefix(f"s3://{RESULTS}/")
    body = instant.service.s3.get_object(Bucket=RESULTS, Key=key)
    assert body["ContentType"] == "image/png"
    return open_picture(body["Body"].read())


def open_picture(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_labels_are_explained_with_sixteen_extra_images_together(
    instant: InstantService, client: Client
) -> None:
    uri = store(instant, "corner.png", 1)
    before = scrape(instant.worker.health_url)

    result = client.classify([uri], LABELS, explain=["a cat", "a fox"], timeout_s=TIMEOUT_S)

    after = scrape(instant.worker.health_url)
    image = explained(result)
    assert [one.label for one in image.explanations] == ["a cat", "a fox"]
    read = "labelyard_batch_size_sum"
    assert after.value(read, tower="image") - before.value(read, tower="image") == 17
    extra = "labelyard_occluded_images_total"
    assert after.value(extra) - before.value(extra) == 16
    for place, one in enumerate(image.explanations):
        assert one.object_uri == f"s3://{RESULTS}/explanations/{result.job_id}/0-{place}.png"
        assert open_map(instant, one.object_uri).shape == (384, 384, 3)
        assert [len(row) for row in one.drops] == [4] * 4
        scores = {label.name: label.score for label in image.labels}
        assert one.score == pytest.approx(scores[one.label], abs=1e-5)
        assert one.competitor in {*LABELS} - {one.label}
        # Only the first window, and its neighbour, hide what the model looks at.
        drops = np.array(one.drops)
        assert np.abs(drops[1:]).max() == 0
        assert np.abs(drops[:, 2:]).max() == 0
        assert np.abs(drops[0, 0]) > 0


def test_a_known_picture_is_explained_and_keeps_its_scores(
    instant: InstantService, client: Client
) -> None:
    uri = store(instant, "known.png", 2)
    plain = explained(client.classify([uri], LABELS, timeout_s=TIMEOUT_S))

    first = explained(client.classify([uri], LABELS, explain=["a dog"], timeout_s=TIMEOUT_S))
    second = explained(client.classify([uri], LABELS, explain=["a dog"], timeout_s=TIMEOUT_S))
    again = explained(client.classify([uri], LABELS, timeout_s=TIMEOUT_S))

    assert plain.labels == first.labels == second.labels == again.labels
    assert plain.explanations == again.explanations == ()
    one, other = first.explanations[0], second.explanations[0]
    assert one.drops == other.drops
    assert (open_map(instant, one.object_uri) == open_map(instant, other.object_uri)).all()


def test_one_bad_picture_is_not_explained_and_its_neighbours_are(
    instant: InstantService, client: Client
) -> None:
    good = [store(instant, f"good-{seed}.png", seed) for seed in (3, 4)]
    bad = instant.service.pictures.uri("nobody/put/this.png")

    result = client.classify(
        [good[0], bad, good[1]], LABELS, explain=["a cat"], timeout_s=TIMEOUT_S
    )

    assert [len(image.explanations) for image in result.images] == [1, 0, 1]
    assert [image.error.code if image.error else "" for image in result.images] == [
        *("", "image_not_found", "")
    ]
    assert result.images[2].explanations[0].object_uri.endswith("/2-0.png")


@pytest.mark.allow_persistent_keys("registered label sets stay")
def test_a_label_that_a_registered_set_does_not_have_fails_the_job_by_name(
    instant: InstantService, client: Client
) -> None:
    from labelyard.label_sets import as_label_set

    reference = client.label_sets.register("explained", as_label_set(LABELS))

    result = client.classify(
        [instant.picture()], reference, explain=["a horse"], timeout_s=TIMEOUT_S
    )

    assert result.error is not None
    assert result.error.code == "invalid_message"
    assert "'a horse', not a label of the set" in result.error.message


def test_clients_bring_the_map_and_raise_the_error_of_the_picture(
    instant: InstantService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lead_to(instant, monkeypatch)
    file = tmp_path / "corner.png"
    file.write_bytes(odd_corner(5))
    gone = instant.service.pictures.uri("nobody/put/this.png")

    with Client() as client:
        found = client.explain(file, "a cat", LABELS, grid=2, timeout_s=TIMEOUT_S)
        with pytest.raises(ImageNotFoundError):
            client.explain(gone, "a cat", LABELS, timeout_s=TIMEOUT_S)
        with pytest.raises(InvalidMessageError, match="no file"):
            client.explain(tmp_path / "nothing.png", "a cat", LABELS)

    written = found.write(tmp_path / "heat.png")
    assert found.png == written.read_bytes()
    assert open_picture(written.read_bytes()).shape == (384, 384, 3)
    assert len(found.explanation.drops) == 2


def lead_to(instant: InstantService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead uploads and the command line to the worker without a real model."""
    for name, value in instant.service.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LABELYARD_NAMESPACE", NAMESPACE)
    monkeypatch.setenv("LABELYARD_UPLOAD_BUCKET", RESULTS)


def test_the_command_writes_the_map_and_says_where_the_label_was_seen(
    instant: InstantService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lead_to(instant, monkeypatch)
    file, heat = tmp_path / "corner.png", tmp_path / "heat.png"
    file.write_bytes(odd_corner(6))
    labels = ("--labels", ",".join(LABELS))

    (found,) = lines(run("explain", str(file), "a cat", *labels, "-o", str(heat), "--json", "-q"))
    shown = run("explain", str(file), "a cat", *labels, "-o", str(heat), "-q")
    refused = run("explain", str(file), "a horse", *labels, "-q")

    assert found["output"] == str(heat)
    assert open_picture(heat.read_bytes()).shape == (384, 384, 3)
    assert shown.exit_code == 0
    assert "competitor: " in shown.stdout
    assert (found["warning"] is None) or f"[{found['warning']}]" in shown.stdout
    assert refused.exit_code == 2
    assert "'a horse', not a label of the set" in refused.stderr
