"""A JPEG fetched and brought to the model's size, with nothing around it; imports no torch."""

import os
from pathlib import Path

from obstore.store import S3Store
from PIL import Image

from labelyard_worker.intake.resize import Drafted, resize_and_crop, resized_size
from labelyard_worker.pixels import PixelSpec


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


def open_store() -> S3Store:
    """Open the bucket with the fastest client that labelyard uses, too."""
    return S3Store(
        os.environ["BENCH_BUCKET"],
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_DEFAULT_REGION"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
