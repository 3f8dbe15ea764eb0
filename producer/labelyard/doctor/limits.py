"""Settings of producers that contradict each other."""

from collections.abc import Iterator
from typing import Final

from labelyard.doctor.report import Finding, FindingKind, Severity
from labelyard.messages import MAX_IMAGES
from labelyard.settings import ConnectionSettings

RESULTS_OUTLIVE_INDEX: Final = FindingKind(
    "results_outlive_index",
    "settings",
    Severity.WARNING,
    "LABELYARD_RESULT_TTL_S is {result_s} and LABELYARD_OPEN_TTL_S only {open_s}: results outlive "
    "the totals, the dead letters and the pending deliveries that name them.",
    "Set LABELYARD_OPEN_TTL_S to at least LABELYARD_RESULT_TTL_S.",
)
QUEUE_SHORTER_THAN_JOB: Final = FindingKind(
    "queue_shorter_than_job",
    "settings",
    Severity.WARNING,
    "LABELYARD_MAX_QUEUED_IMAGES is {most}: a job of {job} images is never accepted.",
    "Set LABELYARD_MAX_QUEUED_IMAGES to at least {job}, or to 0 for no limit.",
)
KINDS: Final = (RESULTS_OUTLIVE_INDEX, QUEUE_SHORTER_THAN_JOB)


def check_limits(settings: ConnectionSettings) -> Iterator[Finding]:
    """Find contradictions between settings that producers and workers share."""
    if settings.result_ttl_s > settings.open_ttl_s:
        yield RESULTS_OUTLIVE_INDEX.at(result_s=settings.result_ttl_s, open_s=settings.open_ttl_s)
    if 0 < settings.max_queued_images < MAX_IMAGES:
        yield QUEUE_SHORTER_THAN_JOB.at(most=settings.max_queued_images, job=MAX_IMAGES)
