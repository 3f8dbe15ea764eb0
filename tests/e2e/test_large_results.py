"""A result that is too large for the ledger goes to its object as a whole, or is refused."""

import json

import pytest

from labelyard import Client
from labelyard.messages import Deliver, Label
from tests.support import pictures
from tests.support.buckets import Bucket
from tests.support.service import RESULTS, Service

TIMEOUT_S = 120.0
# Names of 1 kB each in JSON, so that 10 images make a result of 10 MB; the prompts are short.
LABELS = tuple(
    Label(name=f"{number:04}" + "\U0001f408" * 252, prompts=(f"cat {number % 10}",))
    for number in range(1_000)
)


@pytest.mark.usefixtures("worker")
def test_the_object_has_the_whole_and_the_ledger_its_beginning(
    client: Client, service: Service
) -> None:
    uri = f"s3://{RESULTS}/large.json"
    images = [service.pictures.put(f"large/{n}.jpg", pictures.jpeg(seed=n)) for n in range(10)]
    deliver = Deliver(object_uri=uri)

    kept = client.classify(images, LABELS, top_k=1_000, deliver=deliver, timeout_s=TIMEOUT_S)
    refused = client.classify(images, LABELS, top_k=1_000, timeout_s=TIMEOUT_S)

    whole = json.loads(Bucket(RESULTS, service.s3).get("large.json"))
    assert (kept.status, kept.object_uri) == ("succeeded", uri)
    assert [len(image["labels"]) for image in whole["images"]] == [1_000] * 10
    assert [one.name for one in kept.images[9].labels] == [
        one["name"] for one in whole["images"][9]["labels"][:5]
    ]
    assert refused.error is not None
    assert refused.error.code == "invalid_message"
    assert "set deliver.object_uri" in refused.error.message
