"""The tutorial's pipeline behind celery-batches: it runs the queued pictures together."""

import os
from typing import Any

from celery_batches import Batches, SimpleRequest  # type: ignore[import-not-found]

from benchmarks.systems.pipeline import TOP_K, make_app, open_picture, pipeline

BATCH_SIZE = int(os.environ["BENCH_BATCH_SIZE"])

app = make_app()
app.conf.worker_prefetch_multiplier = 4 * BATCH_SIZE  # else a batch could never fill


@app.task(  # type: ignore[untyped-decorator]
    name="benchmarks.classify", base=Batches, flush_every=BATCH_SIZE, flush_interval=0.1
)
def classify(requests: list[SimpleRequest]) -> None:
    """Score the pictures of one batch; they have the same labels here."""
    pictures = [open_picture(request.args[0]) for request in requests]
    every: list[Any] = pipeline()(
        pictures, candidate_labels=requests[0].args[1], batch_size=BATCH_SIZE
    )
    for request, scores in zip(requests, every, strict=True):
        app.backend.mark_as_done(request.id, scores[:TOP_K], request=request)
