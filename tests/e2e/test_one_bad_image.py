"""Broken pictures cost themselves: their neighbours, the job and the worker go on."""

from collections.abc import Callable

import psutil
import pytest

from labelyard import Client
from labelyard.messages import ImageRef
from labelyard_worker.local.photographs import EVERYDAY_LABELS
from labelyard_worker.local.worker_process import WorkerProcess
from tests.e2e.test_first_light import SHOWN
from tests.support import broken_pictures, pictures
from tests.support.service import PICTURES, Service
from tests.support.waiting import wait_until

TIMEOUT_S = 120.0
MIB = 1024 * 1024

BROKEN_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    **{name: (make, "image_undecodable") for name, make in broken_pictures.UNDECODABLE.items()},
    **{name: (make, "image_too_large") for name, make in broken_pictures.TOO_LARGE.items()},
}
BROKEN_ADDRESSES = {
    "missing key": (f"s3://{PICTURES}/nobody/put/this.jpg", "image_not_found"),
    "somebody else's bucket": ("s3://no-such-bucket-here/a.jpg", "image_access_denied"),
    "forbidden": ("s3://private/secret.jpg", "image_access_denied"),
    "a directory": (f"s3://{PICTURES}/folder/", "image_not_found"),
    "a local file": ("/etc/hostname", "unsupported_uri"),
    "not switched on": ("https://example.com/cat.jpg", "unsupported_uri"),
}
# Odd, but pictures all the same: the first frame counts, and no EXIF data is needed.
ODD_FILES = {
    "animated.gif": pictures.animated_gif,
    "animated.webp": pictures.animated_webp,
    "corrupt_exif.jpg": broken_pictures.corrupt_exif_jpeg,
    "mistyped_exif.jpg": broken_pictures.mistyped_exif_jpeg,
}


def broken_images(service: Service) -> tuple[list[ImageRef], dict[str, str]]:
    """Store 20 breakages, and return them with their codes."""
    images, codes = [], {}
    for name, (make, code) in BROKEN_FILES.items():
        uri = service.pictures.put(f"broken/{name}", make())
        images.append(ImageRef(id=name, uri=uri))
        codes[name] = code
    service.private.put("secret.jpg", pictures.jpeg())
    for name, (uri, code) in BROKEN_ADDRESSES.items():
        images.append(ImageRef(id=name, uri=uri))
        codes[name] = code
    return images, codes


def good_images(service: Service, count: int) -> list[ImageRef]:
    """Store photographs and odd pictures, *count* images in all."""
    odd = [
        ImageRef(id=name, uri=service.pictures.put(f"odd/{name}", make()))
        for name, make in ODD_FILES.items()
    ]
    names = list(SHOWN)
    uris = {name: service.pictures.put(f"{name}.img", pictures.photo(name)) for name in names}
    photos = [
        ImageRef(id=f"{names[n % 6]}-{n}", uri=uris[names[n % 6]]) for n in range(count - len(odd))
    ]
    return odd + photos


def test_twenty_broken_images_of_64_cost_only_themselves(
    service: Service, client: Client, worker: WorkerProcess
):
    broken, codes = broken_images(service)
    good = good_images(service, 64 - len(broken))
    assert len(broken) == 20
    mixed = [image for pair in zip(good, broken, strict=False) for image in pair] + good[20:]
    client.classify(good, labels=list(EVERYDAY_LABELS), timeout_s=TIMEOUT_S)  # warm
    process = psutil.Process(worker.pid)
    before_bytes = process.memory_info().rss

    result = client.classify(mixed, labels=list(EVERYDAY_LABELS), timeout_s=TIMEOUT_S)

    assert result.status == "partial"
    assert [image.id for image in result.images] == [image.id for image in mixed]
    found = {image.id: image.error.code for image in result.images if image.error}
    assert found == codes
    for image in result.images:
        kind = image.id.partition("-")[0]
        if kind in SHOWN:
            assert image.labels[0].name == SHOWN[kind]
    assert process.pid == worker.pid
    wait_until(
        lambda: process.memory_info().rss < before_bytes + 64 * MIB,
        message="the worker's memory is what it was",
    )


@pytest.mark.usefixtures("worker")
def test_an_object_that_changed_is_not_scored_as_the_one_that_was_meant(
    service: Service, client: Client
):
    uri = service.pictures.put("cat.png", pictures.photo("cat"))
    image = ImageRef(id="cat", uri=uri, etag="0" * 32)

    result = client.classify([image], labels=["a cat", "a dog"], timeout_s=TIMEOUT_S)

    assert result.status == "failed"
    assert result.images[0].error is not None
    assert result.images[0].error.code == "image_not_found"
    assert "changed" in result.images[0].error.message
