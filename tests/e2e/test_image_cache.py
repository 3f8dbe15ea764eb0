"""A picture that comes again costs little; one that is known needs no picture at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labelyard import Client
from tests.support import pictures
from tests.support.pictures import photo
from tests.support.service import Service

TIMEOUT_S = 60.0


@pytest.mark.usefixtures("worker")
def test_known_pictures_are_scored_again_without_reading_them(service: Service, client: Client):
    uri = service.pictures.put("rescored.png", photo("coffee"))
    first = client.classify([uri], labels=["a cat", "a dog"], timeout_s=TIMEOUT_S)

    again = client.classify(
        [uri], labels=["a cup of coffee", "a dog"], rescore=True, timeout_s=TIMEOUT_S
    )

    assert again.images[0].labels[0].name == "a cup of coffee"
    assert again.images[0].sha256 == first.images[0].sha256
    assert again.timing.model_s == 0.0


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("fate", "code"),
    [("deleted", "image_not_found"), ("replaced", "image_not_embedded")],
)
def test_a_picture_that_is_gone_is_not_scored_again(
    service: Service, client: Client, fate: str, code: str
):
    key = f"{fate}.png"
    uri = service.pictures.put(key, photo("coffee"))
    client.classify([uri], labels=["a cat", "a dog"], timeout_s=TIMEOUT_S)
    if fate == "deleted":
        service.s3.delete_object(Bucket="pictures", Key=key)
    else:
        service.pictures.put(key, pictures.jpeg((70, 50), seed=91))

    again = client.classify([uri], labels=["a cat"], rescore=True, timeout_s=TIMEOUT_S)

    assert again.images[0].error is not None
    assert again.images[0].error.code == code


@pytest.mark.usefixtures("worker")
def test_a_picture_nobody_classified_cannot_be_scored_again(service: Service, client: Client):
    uri = service.pictures.put("unseen.png", photo("cat"))

    result = client.classify([uri], labels=["a cat"], rescore=True, timeout_s=TIMEOUT_S)

    assert result.images[0].error is not None
    assert result.images[0].error.code == "image_not_embedded"


@pytest.mark.usefixtures("worker")
def test_a_picture_that_changed_is_seen_anew(service: Service, client: Client):
    labels = ["a cat", "a flower"]
    uri = service.pictures.put("changing.img", photo("cat"))
    before = client.classify([uri], labels=labels, timeout_s=TIMEOUT_S)
    unchanged = client.classify([uri], labels=labels, timeout_s=TIMEOUT_S)
    service.pictures.put("changing.img", photo("flower"))

    after = client.classify([uri], labels=labels, timeout_s=TIMEOUT_S)

    assert before.images[0].labels[0].name == "a cat"
    assert unchanged.images == before.images
    assert unchanged.timing.model_s == 0.0
    assert after.images[0].labels[0].name == "a flower"


@pytest.mark.usefixtures("worker")
def test_the_command_line_scores_again_what_a_file_names(
    service: Service, client: Client, tmp_path: Path
):
    uris = [service.pictures.put(f"again/{n}.png", photo("cat")) for n in range(3)]
    client.classify(uris, labels=["a cat", "a dog"], timeout_s=TIMEOUT_S)
    listing = tmp_path / "uris.txt"
    listing.write_text("\n".join(uris) + "\n")
    command = (sys.executable, "-m", "labelyard.cli", "rescore", "--uris-file", str(listing))

    done = subprocess.run(
        [*command, "--labels", "a kitten,a car", "--json"],
        env={**os.environ, **service.variables},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (result,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert [image["labels"][0]["name"] for image in result["images"]] == ["a kitten"] * 3
