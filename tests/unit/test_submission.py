"""A producer's arguments become a job, or are refused with words that help."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import InvalidMessageError
from labelyard.messages import ImageRef, Label, LabelSet, job_id_for
from labelyard.settings import ClientSettings
from labelyard.submission import make_job, name_images

SETTINGS = ClientSettings(tenant="shop-eu")
IMAGES = ("s3://photos/cat.jpg",)
REFERENCE = f"animals@sha256:{'0' * 64}"


@given(
    uris=st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)
        | st.text("ab", min_size=230, max_size=400)
        | st.sampled_from(["a", "a#2"]),
        min_size=1,
        max_size=64,
    )
)
def test_any_addresses_become_images_with_ids_of_their_own(uris: list[str]) -> None:
    job = make_job(SETTINGS, uris, ["cat"])

    assert [image.uri for image in job.images] == uris
    assert len({image.id for image in job.images}) == len(uris)


def test_an_image_is_called_by_its_address() -> None:
    named = name_images(["s3://p/1.jpg", "s3://p/1.jpg", "s3://p/2.jpg"])

    ids = [image["id"] for image in named if isinstance(image, dict)]
    assert ids == ["s3://p/1.jpg", "s3://p/1.jpg#2", "s3://p/2.jpg"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (("cat", Label(name="dog", threshold=0.2)), ["cat", "dog"]),
        (LabelSet(labels=(Label(name="cat"),)), ["cat"]),
    ],
)
def test_labels_are_names_or_labels_or_a_set(labels: Any, names: list[str]) -> None:
    label_set = make_job(SETTINGS, IMAGES, labels).label_set

    assert isinstance(label_set, LabelSet)
    assert [label.name for label in label_set.labels] == names


def test_a_registered_label_set_is_referred_to() -> None:
    assert make_job(SETTINGS, IMAGES, REFERENCE).label_set == REFERENCE


def test_what_is_not_said_comes_from_settings_and_the_contract() -> None:
    job = make_job(SETTINGS, IMAGES, ["cat"])

    assert (job.tenant, job.top_k, job.expires_at) == ("shop-eu", 5, None)


def test_what_is_said_is_kept() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)

    job = make_job(
        SETTINGS,
        IMAGES,
        ["cat"],
        tenant="b",
        top_k=1,
        expires_at=at,
        idempotency_key="order-1",
        rescore=True,
    )

    assert (job.tenant, job.top_k, job.expires_at, job.rescore) == ("b", 1, at, True)
    assert job.job_id == job_id_for("b", "order-1")


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        ("s3://photos/cat.jpg", ["cat"], 'images must be a list: ["s3://photos/cat.jpg"]'),
        ([], ["cat"], "images: name at least 1 item"),
        ([("a", "s3://a/b"), ("a", "s3://a/c")], ["cat"], "two images have the same id"),
        ([7], ["cat"], "images.0"),
        ([("a", "b", "c")], ["cat"], "images.0"),
        (IMAGES, "cat", "labels must be a sequence of names"),
        (IMAGES, [], "labels"),
        (IMAGES, ["cat", "cat"], "two labels have the same name"),
        (IMAGES, "animals@sha256:short", "label_set"),
    ],
)
def test_what_cannot_be_a_job_is_refused(images: Any, labels: Any, complaint: str) -> None:
    with pytest.raises(InvalidMessageError) as refusal:
        make_job(SETTINGS, images, labels)

    assert complaint in str(refusal.value)


def test_an_image_with_its_own_id_is_taken_as_it_is() -> None:
    ref = ImageRef(id="sku", uri="s3://p/1.jpg", version_id="v1")

    assert make_job(SETTINGS, [ref], ["cat"]).images == (ref,)
