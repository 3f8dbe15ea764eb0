"""A JPEG fetched and brought to the model's size, with nothing around it; imports no torch."""

import os
from pathlib import Path

from obstore.store import S3Store
from PIL import Image

from labelyard.s3_client import S3Credentials
from labelyard_worker.intake.resize import Drafted, resize_and_crop
from labelyard_worker.intake.sources.s3_clients import open_store
from labelyard_worker.intake.sources.s3_settings import S3Settings
from labelyard_worker.pixels import PixelSpec
from labelyard_worker.resized_sizes import resized_size


def decode_file(path: Path, spec: PixelSpec, *, is_exact: bool = False) -> bytes:
    """Decode a JPEG to the model's size; at a reduced DCT scale unless *is_exact*."""
    with Image.open(path) as image:
        return decode_image(image, spec, is_exact=is_exact)


def decode_image(image: Image.Image, spec: PixelSpec, *, is_exact: bool = False) -> bytes:
    """Bring an opened picture to the model's size."""
    width, height = image.size
    drafted = None
    if not is_exact:
        resized_height, resized_width = resized_size(spec, height=height, width=width)
        image.draft(None, (2 * resized_width, 2 * resized_height))
    if image.size != (width, height):
        scale = round(width / image.width)
        drafted = Drafted(height, width, (0, 0, width / scale, height / scale))
    return resize_and_crop(image.convert("RGB"), spec, drafted=drafted).tobytes()


def open_bucket() -> S3Store:
    """Open the benchmark's bucket with the client that labelyard's fetchers use."""
    credentials = S3Credentials(
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    )
    settings = S3Settings(
        os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_DEFAULT_REGION"], credentials=credentials
    )
    return open_store(settings, os.environ["BENCH_BUCKET"])
