"""Observations that several parts make, with the series of the metrics looked up beforehand."""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Final, Literal

from prometheus_client import Counter, Histogram

from labelyard.errors import all_errors
from labelyard.queues import Priority
from labelyard_worker.metrics import (
    BATCH_FILL,
    BATCH_SECONDS,
    BATCH_SIZE,
    IMAGE_CACHE,
    IMAGES,
    JOBS,
    OTHER,
    PROMPTS_ENCODED,
    STAGE_SECONDS,
)
from labelyard_worker.tenant_labels import TenantLabels

Tower = Literal["image", "text"]
TOWERS: Final[tuple[Tower, ...]] = ("image", "text")
Stage = Literal["queued", "fetch", "decode", "batch_wait", "model", "score"]
STAGES: Final[tuple[Stage, ...]] = ("queued", "fetch", "decode", "batch_wait", "model", "score")
# labels() takes a lock and builds a tuple: about as long as the observation itself.
_STAGE_SECONDS: Final = {
    (stage, priority): STAGE_SECONDS.labels(stage, priority.value)
    for stage, priority in itertools.product(STAGES, Priority)
}
_BATCHES: Final[Mapping[Tower, tuple[Histogram, Histogram, Histogram]]] = {
    tower: (BATCH_SIZE.labels(tower), BATCH_FILL.labels(tower), BATCH_SECONDS.labels(tower))
    for tower in TOWERS
}
#: Counters of ``IMAGE_CACHE``, by result.
IMAGE_CACHE_RESULTS: Final[Mapping[str, Counter]] = {
    result: IMAGE_CACHE.labels(result) for result in ("memory", "shared", "content", "miss")
}
_CODES: Final = frozenset(error.code for error in all_errors())


#: The tenants of this process; ``limit`` is LABELYARD_METRICS_MAX_TENANTS.
TENANTS: Final = TenantLabels(100, beyond=OTHER)


def observe_stage(stage: Stage, seconds: float, priority: Priority) -> None:
    """Observe the seconds of one image or job in a stage."""
    _STAGE_SECONDS[stage, priority].observe(seconds)


@contextmanager
def timed(stage: Stage, priority: Priority) -> Iterator[None]:
    """Observe the block as one stage, unless it raises."""
    began_at = time.monotonic()
    yield
    observe_stage(stage, time.monotonic() - began_at, priority)


def observe_batch(tower: Tower, size: int, seconds: float, *, max_size: int) -> None:
    """Observe one forward pass."""
    of_size, of_fill, of_seconds = _BATCHES[tower]
    of_size.observe(size)
    of_fill.observe(size / max_size)
    of_seconds.observe(seconds)
    if tower == "text":
        PROMPTS_ENCODED.inc(size)


def count_job(tenant: str, outcome: str, images: Iterable[str]) -> None:
    """Count a job that became final, and its images by outcome: ``succeeded`` or a code."""
    value = TENANTS.value(tenant)
    _job_child(value, outcome).inc()
    for image in images:
        _image_child(value, image if image == "succeeded" else code_label(image)).inc()


@cache  # as bounded as the labels are
def _job_child(tenant: str, outcome: str) -> Counter:
    return JOBS.labels(tenant, outcome)


@cache
def _image_child(tenant: str, outcome: str) -> Counter:
    return IMAGES.labels(tenant, outcome)


def code_label(code: str) -> str:
    """Return the label of an error code; a code that is not ours, as a task may raise, is one."""
    return code if not code or code in _CODES else OTHER
