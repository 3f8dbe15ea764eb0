"""Comparison of a job's answers with those of a canary, through the same embeddings."""

import logging
from collections.abc import Callable, Sequence

from pydantic import Field

from labelyard.drift.canary import CanaryAnswer, compare_answers, failed_comparison
from labelyard.errors import LabelyardError
from labelyard.messages import ImageResult, Job, Result
from labelyard_worker.vision.ranking import ImageScores

log = logging.getLogger(__name__)


class ComparedResult(Result):
    """Result of a job that a canary has scored, too; consumers read it as any other.

    Attributes:
        comparison: Counts of the comparison; it stays in the worker.
    """

    comparison: dict[str, int] = Field(default_factory=dict, exclude=True)

    @staticmethod
    def of(result: Result, comparison: dict[str, int]) -> "ComparedResult":
        """Return *result* with the comparison beside it."""
        return ComparedResult.model_construct(**dict(result), comparison=comparison)


def compare_with_canary(
    job: Job, images: Sequence[ImageResult], score: Callable[[], list[ImageScores]]
) -> dict[str, int]:
    """Score the images with the canary, and count how its answers differ.

    Whatever is wrong with the canary is counted, and never the job's fault: its answer stands.

    Args:
        images: Results of the job's images.
        score: Scores the embedded images with the canary, in their order.
    """
    try:
        found = score()
    except LabelyardError as error:
        code = error.code
    except Exception:  # the answer of the job must not be lost
        log.exception("canary_failed", extra={"fields": {"job_id": job.job_id}})
        code = "internal"
    else:
        scored = [image for image in images if image.error is None]
        answers = zip(map(_answer, scored), map(_answer, found), strict=True)
        return compare_answers(answers)
    log.warning("canary_not_scored", extra={"fields": {"job_id": job.job_id, "code": code}})
    return failed_comparison(code)


def _answer(scores: ImageResult | ImageScores) -> CanaryAnswer:
    best = scores.labels[0]
    label = "" if scores.abstained else best.name
    return CanaryAnswer(label, best.score, frozenset(scores.matched))
