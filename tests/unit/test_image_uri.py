"""Addresses of images: what reaches an S3 client is a bucket and a key, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.buckets import is_bucket_name
from labelyard.errors import ImageError, ServiceConfigError, UnsupportedUriError
from labelyard.settings import ClientSettings
from labelyard.uploads import upload_files
from labelyard_worker.intake.sources.s3_address import S3Address
from tests.contract.test_bounds import HOSTILE_BUCKETS


@pytest.mark.parametrize("bucket", HOSTILE_BUCKETS)
def test_a_hostile_bucket_fails_its_image_alone(bucket: str) -> None:
    with pytest.raises(UnsupportedUriError, match=r"a bucket's name is|write s3://bucket/key"):
        S3Address.parse(f"s3://{bucket}/key.jpg")


@given(rest=st.text(max_size=80))
def test_whatever_an_address_holds_its_bucket_follows_the_rules(rest: str) -> None:
    try:
        address = S3Address.parse(f"s3://{rest}")
    except ImageError:
        return

    assert is_bucket_name(address.bucket)
    assert f"s3://{address.bucket}/{address.key}" == f"s3://{rest}"


def test_a_hostile_bucket_is_not_uploaded_to() -> None:
    settings = ClientSettings(upload_bucket="evil:8080?")

    with pytest.raises(ServiceConfigError, match="LABELYARD_UPLOAD_BUCKET"):
        upload_files([], settings)
