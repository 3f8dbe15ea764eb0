"""Work of both Celery competitors' processes: boto3, Pillow and transformers' pipeline."""

import io
import os
from functools import cache
from typing import Any

from celery import Celery
from celery.signals import worker_ready

TOP_K = 5


def make_app() -> Celery:
    """Make the worker's application, which reports when it is ready."""
    app = Celery(
        "benchmarks", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"]
    )

    def say(**_: Any) -> None:
        import redis

        with redis.Redis.from_url(os.environ["BENCH_CONTROL"]) as control:
            control.set(os.environ["BENCH_READY"], "1", ex=60)

    worker_ready.connect(say, weak=False)
    return app


@cache
def s3() -> Any:
    """Make the S3 client of this process."""
    import boto3

    return boto3.client("s3")


@cache
def pipeline() -> Any:
    """Load the model into this process."""
    import torch
    import transformers

    from labelyard_worker.vision import lite

    lite.register()
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    return transformers.pipeline(
        "zero-shot-image-classification",
        model=os.environ["BENCH_CHECKPOINT"],
        device=os.environ["BENCH_DEVICE"],
        dtype=getattr(torch, os.environ["BENCH_DTYPE"]),
    )


def open_picture(key: str) -> Any:
    """Fetch and open a picture."""
    from PIL import Image

    body = s3().get_object(Bucket=os.environ["BENCH_BUCKET"], Key=key)["Body"].read()
    return Image.open(io.BytesIO(body)).convert("RGB")
